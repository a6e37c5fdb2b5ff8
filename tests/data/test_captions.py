"""Captions: words and their numbers, digits that say all there is, and what parts keep of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from sdegen.data import (
    ArrayData,
    ImageFolder,
    captioned_digits,
    digits,
    gather,
    hold_out,
    to_uint8,
    tokens,
    vocabulary,
)
from sdegen.data.captions import COLOURS, NUMBERS, PLACES, SPLITS
from sdegen.data.parts import Part
from sdegen.text import Words
from tests.cases import close, refused, refused_with


def test_words_are_numbered_from_one() -> None:
    said = ["Cat Face, crying", "a cat's FACE", ""]
    words = vocabulary(said)
    assert words == ("a", "cat", "cat's", "crying", "face")
    ids = tokens(said, words)
    assert ids.tolist() == [[2, 5, 4], [1, 3, 5], [0, 0, 0]] and ids.dtype == torch.int64
    bag = nn.EmbeddingBag(len(words) + 1, 3, mode="sum", padding_idx=0)
    close(bag(ids)[2].detach(), torch.zeros(3))
    with refused_with("The word 'dog' is not among the 5 that are known"):
        tokens(["dog face"], words)


@pytest.mark.parametrize("size", [16, 24])
def test_a_captioned_digit_is_what_its_caption_says(size: int) -> None:
    data = captioned_digits("test", size)
    assert data.shape == (3, size, size) and data.classes == 10 and data.names == NUMBERS
    assert float(data.x.min()) == -1 and float(data.x.max()) <= 1 + 1e-6
    half = size // 2
    for x, y, caption in list(zip(data.x, data.y, data.captions, strict=True))[::149]:
        large, colour, number, *place = caption.split()
        assert number == NUMBERS[int(y)]
        row, column = PLACES[" ".join(place)]
        ink = ((x + 1) / 2).clone()
        quarter = ink[:, half * row : half * (row + 1), half * column : half * (column + 1)]
        # Every pixel of it has the colour's red, green and blue in their shares.
        peak = quarter.sum(0).max() / sum(COLOURS[colour])
        assert float(peak) > 0.5
        by_ink = quarter / torch.tensor(COLOURS[colour])[:, None, None]
        close(by_ink[0], by_ink[1], atol=1e-6)
        close(by_ink[0], by_ink[2], atol=1e-6)
        border = [quarter[:, 0], quarter[:, -1], quarter[:, :, 0], quarter[:, :, -1]]
        empty = all(float(line.abs().max()) < 1e-6 for line in border)
        assert empty or large == "large"
        quarter.zero_()
        assert float(ink.abs().max()) == 0  # nothing lies elsewhere


def test_a_large_digit_is_the_digit_itself() -> None:
    data, images = captioned_digits("train", 16), digits("train")
    k = next(k for k, caption in enumerate(data.captions) if caption.startswith("large yellow"))
    row, column = PLACES[" ".join(data.captions[k].split()[3:])]
    quarter = data.x[k, 0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
    close(quarter, images.x[k // 8, 0], atol=1e-6)  # yellow's red is 1
    assert int(data.y[k]) == int(images.y[k // 8])


def test_combinations_and_images_are_held_out() -> None:
    train, test, novel = (captioned_digits(split) for split in SPLITS)
    known, tried, new = (set(data.captions) for data in (train, test, novel))
    assert len(known) == 288 and tried <= known and len(new) == 32 and not new & known
    assert len(train) == 8 * 899 and len(test) == 8 * 898
    assert len(vocabulary(train.captions)) == 10 + 4 + 4 + 2
    assert set(vocabulary(novel.captions)) <= set(vocabulary(train.captions))
    # A digit's image is in eight different combinations.
    assert max(Counter(test.captions[:8]).values()) == 1
    assert captioned_digits("novel").captions == novel.captions
    with refused("split = 'valid', but it must be one of train, test, novel"):
        captioned_digits("valid")
    with refused("size = 15, but it must be even"):
        captioned_digits(size=15)
    with refused("size must be a whole number >= 8, but it is 6"):
        captioned_digits(size=6)


def test_captions_go_with_their_data() -> None:
    x = torch.arange(10.0)[:, None]
    data = ArrayData(x, captions=[f"{k}" for k in range(10)])
    with refused("there are 2 captions of 10 data"):
        ArrayData(x, captions=["a", "b"])
    train, test = hold_out(data, 0.3)
    some = gather(data, 4)
    part = Part(data, torch.tensor([3, 1]))
    assert part.captions == ("3", "1")
    for each in (train, test, some):
        assert each.captions == tuple(f"{int(v)}" for v in each.x[:, 0]) and len(each.captions) > 2


def test_a_folder_has_the_captions_of_its_metadata(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 9).save(tmp_path / name)
    assert ImageFolder(tmp_path, 4).captions == ()
    lines = [{"file_name": name, "text": name[0]} for name in ("sub/c.png", "b.png", "a.png")]
    path = tmp_path / "captions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    data = ImageFolder(tmp_path, 4)
    assert data.captions == ("a", "b", "s") and data.classes == 0
    _, test = hold_out(data, 0.4)
    assert test.captions == tuple(data.captions[data.files.index(file)] for file in test.files)
    (tmp_path / "metadata.jsonl").write_text(path.read_text().replace('"text"', '"caption"'))
    assert ImageFolder(tmp_path, 4).captions == data.captions
    for text, words in (
        (json.dumps(lines[0]), "has no line for 'a.png'"),
        (json.dumps({"file_name": "d.png", "text": ""}), "line 1 of"),
        (json.dumps({"file_name": "a.png", "text": 3}), "must be a JSON object with a file_name"),
        (json.dumps({"text": "a"}), "must be a JSON object with a file_name, and a text where"),
        (
            "\n".join([json.dumps(lines[0]), json.dumps({"file_name": "a.png"})]),
            "metadata.jsonl' has no text, but others have one",
        ),
        ('{"file_name": ', "is '{\"file_name\": ', but it must be a JSON object"),
        ("[1]", "is '[1]', but it must be a JSON object"),
    ):
        (tmp_path / "metadata.jsonl").write_text(text)
        with refused_with(words):
            ImageFolder(tmp_path, 4)


def test_a_table_of_metadata_has_captions_too(tmp_path: Path) -> None:
    """Hugging Face's metadata.csv, with a comma, quotes and a line's end inside a caption."""
    Image.new("L", (4, 4), 9).save(tmp_path / "a.png")
    (tmp_path / "sub").mkdir()
    Image.new("L", (4, 4), 9).save(tmp_path / "sub" / "ü.png")
    table = tmp_path / "metadata.csv"
    table.write_text('file_name,label,text\na.png,3,"red, ""big""\nand é"\nsub/ü.png,1,\n')
    assert ImageFolder(tmp_path, 4).captions == ('red, "big"\nand é', "")
    table.write_text("file_name,text\na.png,one\n")
    with refused_with("has no line for 'sub/ü.png'"):
        ImageFolder(tmp_path, 4)
    table.write_text("file_name,text\na.png,one\nsub/ü.png\n")
    with refused_with("line 3 of"):
        ImageFolder(tmp_path, 4)
    table.write_text(f"file_name,text\na.png,{'x' * 200_000}\n")
    with refused_with("a metadata.csv cannot be read, near line 1: field larger"):
        ImageFolder(tmp_path, 4)
    table.write_text('text,file_name\n"a')
    with refused("line 2 of .*, but it must have a file_name, and a text"):
        ImageFolder(tmp_path, 4)
    for other in ("camera,lens\na,\xe9\n".encode("latin-1"), "é;b\n".encode("utf-16"), b""):
        table.write_bytes(other)  # of something else
        assert ImageFolder(tmp_path, 4).captions == ()
    table.write_bytes("file_name,text\na.png,\xe9\n".encode("latin-1"))
    with refused_with("is it UTF-8?"):
        ImageFolder(tmp_path, 4)


def test_metadata_without_text_has_no_captions(tmp_path: Path) -> None:
    """Such folders are Hugging Face's too: other columns are not read."""
    Image.new("L", (4, 4), 9).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "label": 3}))
    assert ImageFolder(tmp_path, 4).captions == ()
    (tmp_path / "captions.jsonl").write_text(json.dumps({"file_name": "a.png", "text": "a"}))
    assert ImageFolder(tmp_path, 4).captions == ("a",)


def test_lines_of_metadata_end_where_json_says(tmp_path: Path) -> None:
    """What is a line's end to Python may stand in a JSON string as it is; and a file may begin
    with a byte order mark, as Windows writes it."""
    said = {"a.png": "one\u2028two", "b.png": "three\x85four"}
    lines = [json.dumps({"file_name": k, "text": v}, ensure_ascii=False) for k, v in said.items()]
    for name in said:
        Image.new("L", (4, 4), 9).save(tmp_path / name)
    path = tmp_path / "metadata.jsonl"
    path.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert ImageFolder(tmp_path, 4).captions == tuple(said.values())
    path.write_bytes("\n".join(lines).encode("utf-16"))
    with refused("metadata.jsonl' could not be read .is it UTF-8"):
        ImageFolder(tmp_path, 4)


def test_metadata_of_sub_folders_are_relative_to_these(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), 9).save(tmp_path / name / "a.png")
        line = json.dumps({"file_name": "a.png", "text": f"of {name}"})
        (tmp_path / name / "metadata.jsonl").write_text(line)
    data = ImageFolder(tmp_path, 4)
    assert data.captions == ("of x", "of y") and data.names == ("x", "y")
    # The nearest folder's word is the last.
    line = json.dumps({"file_name": "x/a.png", "text": "of all"})
    (tmp_path / "metadata.jsonl").write_text(line)
    assert ImageFolder(tmp_path, 4).captions == ("of x", "of y")


def test_captions_are_gathered_and_those_of_damaged_images_are_not(tmp_path: Path) -> None:
    lines = []
    for k in range(4):
        Image.new("L", (4, 4), 50 * k).save(tmp_path / f"{k}.png")
        lines.append(json.dumps({"file_name": f"{k}.png", "text": f"{50 * k}"}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    assert gather(ImageFolder(tmp_path, 4)).captions == ("0", "50", "100", "150")
    for damaged in (1, 3):
        (tmp_path / f"{damaged}.png").write_bytes(b"x")
    with pytest.warns(UserWarning, match="is left out"):
        data = gather(ImageFolder(tmp_path, 4))
    assert data.captions == ("0", "100", "100", "0")
    assert [int(c) for c in data.captions] == to_uint8(data.x)[:, 0, 0, 0].tolist()


def test_a_caption_is_no_list_of_its_letters() -> None:
    for call in (lambda: tokens("red", ["red"]), lambda: Words(8, ("red",), 2)("red")):
        with refused("Captions are a list of texts, .* but they are 'red'"):
            call()

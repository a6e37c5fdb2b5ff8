"""Markup is drawn by the font that comes with Pillow, and read back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sdegen.data import drawn_markup, markup, markup_tokens, read_markup
from sdegen.data.typeset import GLYPHS, MARKS, TOKENS, parsed, templates
from tests.cases import refused, refused_with


def test_what_is_drawn_is_read() -> None:
    data = markup(300)
    assert data.x.shape == (300, 1, 16, 32) and len(data.captions) == 300
    assert read_markup(data.x) == list(data.captions)
    every = [mark + glyph for mark in MARKS for glyph in GLYPHS]
    assert read_markup(drawn_markup(every)) == every


def test_reading_takes_noise_of_half_a_glyph() -> None:
    """Nearest of templates: right as long as less than half their distance is added."""
    cells = templates()[1].flatten(1)
    apart = torch.pdist(cells).min()
    data, off = markup(50), torch.randn(50, 1, 16, 32)
    norms = off[:, 0].unflatten(2, (4, 8)).square().sum((1, 3)).sqrt()
    off = off[:, 0].unflatten(2, (4, 8)) / norms[:, None, :, None] * 0.49 * apart
    assert float(apart) > 1 and read_markup(data.x + off.flatten(2)[:, None]) == [*data.captions]


def test_marks_move_glyphs() -> None:
    def middle(x: Tensor) -> float:
        ink = (x[0, 0] + 1).sum(1)
        return float((ink * torch.arange(16)).sum() / ink.sum())

    heights = [middle(drawn_markup([mark + "3"])) for mark in ("^", "", "_")]
    assert heights[0] + 2 < heights[1] < heights[2] - 2
    up, on = drawn_markup(["^3"]), drawn_markup(["3"])
    assert float((up + 1).sum()) < float((on + 1).sum())  # and smaller


def test_strings_are_drawn_at_random_and_again() -> None:
    data = markup(4000)
    assert markup(4000).captions == data.captions
    fresh = set(markup(500, seed=1).captions)
    assert len(fresh & set(data.captions)) < 30  # of the short ones
    long = [len(parsed(each)) for each in data.captions]
    assert set(long) == {3, 4} and abs(long.count(3) - 2000) < 200
    signs = "".join(data.captions)
    assert set(signs) == set(TOKENS)
    assert abs(signs.count("^") / sum(long) - 0.25) < 0.02


def test_tokens_are_the_signs() -> None:
    ids = markup_tokens(["x^2", "1"])
    assert ids.shape == (2, 8) and ids.dtype == torch.int64
    assert "".join(TOKENS[k - 1] for k in ids[0].tolist() if k) == "x^2"
    assert ids[1].tolist() == [TOKENS.index("1") + 1, *[0] * 7]


@pytest.mark.parametrize("wrong", ["", "^", "x^", "x^^2", "xyzxy", "x?", "^2_3^4_5x"])
def test_what_is_no_markup(wrong: str) -> None:
    with refused("arkup"):
        drawn_markup([wrong])
    with refused("arkup"):
        markup_tokens([wrong])


def test_pictures_of_another_shape() -> None:
    with refused_with("(2, 1, 16, 16)"):
        read_markup(torch.zeros(2, 1, 16, 16))
    with refused("n must be a whole number"):
        markup(0)


def test_one_string_is_no_list_and_a_lost_picture_says_nothing() -> None:
    with refused("are a list of texts"):
        drawn_markup("x+1")
    with refused("are a list of texts"):
        markup_tokens([None])  # type: ignore[list-item]
    x = drawn_markup(["x^2+", "ab"])
    x[1, 0, 0, 0] = torch.nan  # of the first cell
    assert read_markup(x) == ["x^2+", "b"]
    with refused("A picture is a torch.Tensor"):
        read_markup(x.numpy())  # type: ignore[arg-type]

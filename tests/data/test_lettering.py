"""A drawn letter: values, classes, draws."""

from __future__ import annotations

import torch

from sdegen.data import digits, letters
from tests.cases import refused


def test_letters_are_like_digits_and_a_class_more() -> None:
    data, known = letters(6), digits()
    assert data.shape == known.shape and data.levels == known.levels
    steps = (data.x + 1) * 8
    assert torch.equal(steps, steps.round()) and data.x.min() == -1 and data.x.max() <= 1
    assert data.classes == 11 and data.names == (*"0123456789", "W") and (data.y == 10).all()
    assert all(not torch.equal(a, b) for a, b in zip(data.x[:-1], data.x[1:], strict=True))


def test_the_first_are_the_first_whatever_their_number_and_the_seed_counts() -> None:
    assert torch.equal(letters(7).x[:3], letters(3).x)
    assert not torch.equal(letters(3, seed=1).x, letters(3).x)
    assert not torch.equal(letters(3, "K").x, letters(3).x)


def test_strokes_are_where_they_belong() -> None:
    """An I is upright: of a row most lies in the middle; a dash is flat."""
    upright, flat = (letters(20, each).x.mean((0, 1)) for each in "I-")
    assert upright[:, 3:5].mean() > upright[:, :2].mean() + 0.5
    assert flat[3:5].amax() > flat[:2].amax() + 0.3


def test_what_is_no_letter_is_refused() -> None:
    with refused("letter is one letter"):
        letters(2, "WW")
    with refused("n must be a whole number >= 1"):
        letters(0)
    with refused("label must be a whole number >= 10"):
        letters(2, label=3)

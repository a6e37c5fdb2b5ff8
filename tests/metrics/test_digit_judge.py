"""What is said of captioned digits, beside what they are."""

from __future__ import annotations

import pytest
import torch

from sdegen.data import captioned_digits
from sdegen.metrics import DigitJudge, words_right
from tests.cases import refused, refused_with


def test_words_are_counted_one_by_one() -> None:
    asked = ["small red one top left", "large red two top left"]
    found = ["small red one top right", "small blue two top left"]
    right = {"size": 0.5, "colour": 0.5, "digit": 1.0, "place": 0.5, "all": 0.0}
    assert words_right(found, asked) == right
    assert set(words_right(asked, asked).values()) == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 24])
def test_the_judge_sees_what_captions_say(size: int) -> None:
    judge, data = DigitJudge(size), captioned_digits("test", size)
    picks = torch.arange(0, len(data), 11)
    asked = [data.captions[i] for i in picks.tolist()]
    right = words_right(judge(data.x[picks]), asked)
    assert right["place"] == right["colour"] == 1 and right["size"] > 0.99
    assert right["digit"] > 0.95  # of images that it was not fitted to
    with refused_with(f"expected (n, 3, {size}, {size})"):
        judge(torch.zeros(2, 1, size, size))


def test_captions_of_other_counts_are_refused() -> None:
    for found, asked in (([], []), (["a"], ["a", "b"])):
        with refused("captions found, and . asked for"):
            words_right(found, asked)
    with refused("found are a list of texts"):
        words_right("abc", ["a", "b", "c"])

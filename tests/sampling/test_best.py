"""The best of several samples."""

from __future__ import annotations

import torch
from torch import Tensor

import sdegen as sg
from sdegen.sampling import best_of
from tests.cases import refused

MODEL = sg.ScoreModel(lambda x, t: 0.3 * x, sg.VPSDE(), "x0")


def draw(seed: int) -> Tensor:
    return sg.sample(MODEL, (6, 2), steps=4, seed=seed)


def score(x: Tensor) -> Tensor:
    return x[:, 0] - x[:, 1]


def test_of_one_it_is_the_sample_and_of_more_never_worse() -> None:
    one = best_of(draw, 1, score)
    assert torch.equal(one, draw(0))
    before = score(one)
    for k in (2, 3, 5):
        x = best_of(draw, k, score)
        every = torch.stack([draw(j) for j in range(k)])
        picks = torch.stack([score(each) for each in every]).argmax(0)
        assert torch.equal(x, every[picks, torch.arange(6)])
        assert (score(x) >= before).all()
        before = score(x)
    assert (before > score(one)).any()


def test_a_sample_that_failed_gives_way() -> None:
    bad, good = torch.full((2, 1), torch.nan), torch.tensor([[1.0], [2.0]])
    for draws in ((bad, good), (good, bad)):
        assert torch.equal(best_of(draws.__getitem__, 2, lambda x: x[:, 0]), good)
    for worst in (torch.inf, -torch.inf, torch.nan):  # a score that is none keeps no sample
        lost = torch.tensor([[worst], [0.0]])
        for draws in ((lost, good), (good, lost)):
            assert torch.equal(best_of(draws.__getitem__, 2, lambda x: x[:, 0]), good)
        none = best_of(lambda j: good + j, 3, lambda x, s=worst: torch.full((2,), s))  # type: ignore[misc]
        assert torch.equal(none, good)
    ties = best_of(lambda j: good + j, 3, lambda x: torch.zeros(len(x)))
    assert torch.equal(ties, good)


def test_what_is_no_score_or_number_is_refused() -> None:
    with refused("k must be a whole number >= 1, but it is 0"):
        best_of(draw, 0, score)
    with refused(r"A score is one number for each of 6 samples, \(6,\), but it is \(\)"):
        best_of(draw, 2, lambda x: x.sum())

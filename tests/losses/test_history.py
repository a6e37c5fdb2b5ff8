"""Times with a memory: where losses were large, and no bias for it."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.files import read_tensors
from sdegen.losses import LossHistory, hybrid_loss
from sdegen.networks import MLP
from sdegen.solvers import Range, Residual
from sdegen.training import Trainer, TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import close, normal, refused


def filled(bins: int = 4, keep: int = 3) -> LossHistory:
    """Bin k has seen losses of k + 1 alone."""
    history = LossHistory(bins, keep)
    place = (torch.arange(bins * keep, dtype=torch.float64) % bins + 0.5) / bins
    history.seen(place, (place * bins + 0.5).float())
    return history


def test_it_is_uniform_until_every_bin_is_full() -> None:
    """And then as the losses, mixed with a little of the uniform law."""
    history = LossHistory(4, 2)
    places = torch.tensor([0.1, 0.3, 0.6, 0.9, 0.1, 0.3, 0.6])
    history.seen(places, torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0]))
    close(history.p, torch.full((4,), 0.25, dtype=torch.float64))
    history.seen(torch.tensor([1.0]), torch.tensor([4.0]))
    want = 0.999 * torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64) + 0.001 / 4
    close(history.p, want, rtol=1e-6)
    history.eval()
    close(history.p, torch.full((4,), 0.25, dtype=torch.float64))
    before = history.losses.clone()
    history.seen(torch.tensor([0.1]), torch.tensor([9.0]))
    assert torch.equal(before, history.losses)


def test_the_last_of_a_bin_are_kept() -> None:
    """Of one call with more than it keeps as of many calls."""
    values = torch.arange(1.0, 12.0)
    place = torch.tensor([0.1, 0.7, 0.2, 0.8, 0.3, 0.4, 0.1, 0.9, 0.2, 0.3, 0.1])
    at_once, one_by_one = LossHistory(2, 3), LossHistory(2, 3)
    at_once.seen(place, values)
    for p, v in zip(place, values, strict=True):
        one_by_one.seen(p[None], v[None])
    assert torch.equal(at_once.losses, one_by_one.losses)
    assert torch.equal(at_once.count, one_by_one.count)
    assert sorted(at_once.losses[0].tolist()) == [9.0, 10.0, 11.0]


@pytest.mark.parametrize("broken", [math.inf, -math.inf, math.nan, 1e300])
def test_what_is_not_finite_is_left_out(broken: float) -> None:
    """In any place of a batch, and where the losses are of a wider type: what is remembered, and
    p, are those of the others alone, and weighted losses keep their mean."""
    values = torch.arange(1.0, 12.0, dtype=torch.float64)
    place = torch.tensor([0.1, 0.7, 0.2, 0.8, 0.3, 0.4, 0.1, 0.9, 0.2, 0.3, 0.1])
    others = [k for k in range(11) if k not in (0, 4, 7)]
    spoilt, alone = LossHistory(2, 3), LossHistory(2, 3)
    alone.seen(place[others], values[others])
    values[[0, 4, 7]] = broken
    spoilt.seen(place, values)
    assert torch.equal(spoilt.losses, alone.losses) and torch.equal(spoilt.count, alone.count)
    history = filled()
    before = history.p
    for _ in range(5):
        history.seen(
            torch.tensor([0.9, 0.1]).double(), torch.full((2,), broken, dtype=torch.float64)
        )
    assert torch.equal(history.p, before) and bool(before.isfinite().all())
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    v, factor = history(u)
    close((factor * v.square()).mean(), torch.tensor(1 / 3).double(), rtol=1e-3)


def test_weighted_losses_have_the_uniform_mean() -> None:
    """Of any function of the place, exactly: over u its mean is the integral over places."""
    history = filled()
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    place, factor = history(u)
    f = torch.exp(2 * place) * (1 + (3 * place).sin())
    v = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    exact = (torch.exp(2 * v) * (1 + (3 * v).sin())).mean()
    close((factor * f).mean(), exact, rtol=1e-8)
    share = torch.histc(place, 4, 0, 1) / len(u)
    close(share, history.p, atol=1e-4)


def two_heads(seed: int = 0) -> sg.ScoreModel:
    torch.manual_seed(seed)
    return sg.ScoreModel(MLP(2, width=8, depth=1, out=4), sg.VPSDE(), heads=2, time="c_noise")


def test_the_hybrid_losses_mean_does_not_depend_on_the_history() -> None:
    """The same integral over steps, each with noise of its own, to the error of the draws."""
    model, n = two_heads(), 60_000
    x0 = torch.zeros(n, 2)
    means, errors = [], []
    for history in (None, filled(8, 2)):
        draws = torch.Generator().manual_seed(1)
        how: dict[str, Any] = {"steps": 20, "generator": draws, "history": history}
        with torch.no_grad():
            loss = hybrid_loss(model, x0, head=Range(), share=0.01, **how)
        means.append(float(loss.mean())), errors.append(float(loss.std()) / n**0.5)
    assert abs(means[0] - means[1]) < 4 * sum(e**2 for e in errors) ** 0.5


def training(folder: Path, steps: int) -> Trainer:
    folder.mkdir(exist_ok=True)
    data = sg.data.toy("moons", n=50)
    history = LossHistory(2, 2)
    return Trainer(
        two_heads(),
        data,
        partial(hybrid_loss, head=Range(), steps=20, history=history),
        lambda weights: torch.optim.AdamW(weights, lr=1e-2),
        TrainSettings(steps=steps, batch_size=8, save_every=100, device="cpu"),
        folder,
    )


def test_a_stopped_run_remembers(tmp_path: Path) -> None:
    """Killed and resumed = undisturbed, bit for bit, the history too."""
    list(training(tmp_path / "whole", 8).steps())
    list(training(tmp_path / "parts", 5).steps())
    list(training(tmp_path / "parts", 8).steps())
    whole, parts = (read_tensors(tmp_path / n / CHECKPOINT)[0] for n in ("whole", "parts"))
    assert whole.keys() == parts.keys() and "loss.history.losses" in whole
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert int(whole["loss.history.count"].sum()) == 8 * 8


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: LossHistory(even=0.0), "even is a share"),
        (lambda: LossHistory(keep=0), "keep"),
        (
            lambda: hybrid_loss(two_heads(), normal(2, 2).float(), head=Range(), levels=17),
            "these have other values",
        ),
        (
            lambda: hybrid_loss(two_heads(), torch.zeros(2, 2), head=Residual(), levels=3),
            "levels is of the bound",
        ),
    ],
)
def test_refusals(use: Any, words: str) -> None:
    with refused(words):
        use()

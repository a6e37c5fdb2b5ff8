"""Losses where levels differ between coordinates: the mean of each coordinate's own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.losses.weightings import WEIGHTINGS
from tests.cases import close, fixed, normal
from tests.coordinates import DIFFERENT, MEAN, STD, One, denoiser, exact

TARGETS = ("x0", "eps", "score", "v", "velocity", "edm")


def net(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(x)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("predicts", TARGETS)
def test_it_is_the_mean_of_each_coordinates_loss(
    weighting: str, predicts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sde, x0, z = DIFFERENT["anisotropic"], normal(12, 3), normal(12, 3, seed=1)
    columns = slice(None)
    monkeypatch.setattr(torch, "randn", lambda *shape, **how: z[:, columns])
    model = sg.ScoreModel(net, sde, predicts)
    whole = sg.dsm_loss(model, x0, weighting=weighting, draw=fixed)
    parts = []
    for i in range(3):
        columns = slice(i, i + 1)
        one = sg.ScoreModel(net, One(sde, i), predicts)
        parts.append(sg.dsm_loss(one, x0[:, columns], weighting=weighting, draw=fixed))
    assert whole.shape == (12,)
    close(whole, torch.stack(parts).mean(0), rtol=1e-10)


@pytest.mark.parametrize("on", DIFFERENT)
def test_the_exact_score_is_its_minimum(on: str) -> None:
    sde = DIFFERENT[on]
    x0 = MEAN + STD * normal(4000, 3)

    def loss(off: list[float]) -> float:
        right = denoiser(sde, MEAN, STD)
        model = sg.ScoreModel(lambda x, t: right(x, t) + torch.tensor(off), sde, "x0")
        generator = torch.Generator().manual_seed(0)
        found = sg.dsm_loss(model, x0, weighting="min_snr", generator=generator)
        return float(found.mean())

    least = loss([0.0, 0.0, 0.0])
    for i in range(3):
        for by in (-0.2, 0.2):
            assert loss([by * (j == i) for j in range(3)]) > least


@pytest.mark.parametrize("times", [sg.losses.LogNormalTime(), sg.losses.likelihood_time])
def test_times_are_the_references(times: sg.losses.times.Times) -> None:
    u = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    for got, want in zip(times(DIFFERENT["anisotropic"], u), times(sg.VPSDE(), u), strict=True):
        close(got, want)


def test_a_weighting_of_the_time_alone_is_the_samples() -> None:
    """(b,) beside coordinates, three samples of three: each sample's own number."""
    model, x0 = exact(DIFFERENT["anisotropic"]), normal(3, 3)

    def loss(weighting: object) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return sg.dsm_loss(model, x0, weighting=weighting, generator=generator)  # type: ignore[arg-type]

    close(loss(lambda level: 1 + level.t) / loss("eps"), 1 + drawn(), rtol=1e-12)


def drawn() -> Tensor:
    """The times of the loss's draws."""
    generator = torch.Generator().manual_seed(0)
    u = torch.rand(3, generator=generator, dtype=torch.float64)
    return 1e-3 + u * (1 - 1e-3)


def test_gradients_and_types() -> None:
    layer = torch.nn.Linear(3, 3)
    model = sg.ScoreModel(
        lambda x, t: layer(x), DIFFERENT["blurring"], "v", module=layer, time="lam"
    )
    loss = sg.dsm_loss(model, normal(5, 3, dtype=torch.float32))
    assert loss.dtype == torch.float32 and loss.shape == (5,)
    loss.mean().backward()
    assert layer.weight.grad is not None and bool(layer.weight.grad.isfinite().all())

"""Losses at states off the path: their minima and marginals on Gaussian data are known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.losses import dropped, exposed, perturbed
from sdegen.losses.exposure import earlier, stepped
from sdegen.networks import MLP
from tests.cases import close, refused

SDES = [sg.VPSDE(), sg.EDMSDE(), sg.SubVPSDE(), sg.FlowSDE()]
V = 0.49


class Linear(nn.Module):
    """eps = k x, one number."""

    def __init__(self, k: float = 0.0) -> None:
        super().__init__()
        self.k = nn.Parameter(torch.tensor(k, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.k * x


class Exact(nn.Module):
    """eps of Gaussian data of variance V."""

    def __init__(self, sde: Any) -> None:
        super().__init__()
        self.sde = sde

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        level = self.sde(t.double())
        k = level.sigma / (level.alpha**2 * V + level.sigma**2)
        return k.reshape(-1, *[1] * (x.ndim - 1)) * x


def exact(sde: Any) -> sg.ScoreModel:
    return sg.ScoreModel(Exact(sde), sde, time="t")


def at(t: float) -> Any:
    """A distribution of times that is one time."""
    return lambda sde, u: (torch.full_like(u, t), torch.ones_like(u))


def minimum(loss: Any, x0: Tensor, sde: Any, **how: Any) -> float:
    """The k of least loss, a square in k: from its values at three."""
    values = []
    for k in (-1.0, 0.0, 1.0):
        torch.manual_seed(0)
        values.append(float(loss(sg.ScoreModel(Linear(k), sde), x0, **how).mean().detach()))
    low, middle, high = values
    return (low - high) / (2 * (low + high - 2 * middle))


@pytest.mark.parametrize("sde", SDES, ids=lambda s: type(s).__name__)
def test_the_minimum_is_eps_of_a_little_more_noise(sde: Any) -> None:
    torch.manual_seed(1)
    x0, gamma = V**0.5 * torch.randn(200_000, 1, dtype=torch.float64), 0.5
    level = sde(torch.tensor(0.4, dtype=torch.float64))
    found = minimum(perturbed, x0, sde, gamma=gamma, times=at(0.4))
    wanted = level.sigma / (level.alpha**2 * V + level.sigma**2 * (1 + gamma**2))
    close(found, wanted, rtol=0.02)
    plain = level.sigma / (level.alpha**2 * V + level.sigma**2)
    assert abs(found / plain - 1) > 0.03 or level.sigma < 0.3


@pytest.mark.parametrize("loss", [perturbed, exposed])
def test_without_it_is_denoising_score_matching(loss: Any) -> None:
    torch.manual_seed(0)
    x0, model = torch.randn(6, 3), sg.ScoreModel(MLP(3, width=8), sg.VPSDE(), predicts="v")
    model.net.leave.weight.data.normal_()  # type: ignore[union-attr,operator]
    none = {"gamma": 0} if loss is perturbed else {"p": 0.0}
    where = torch.tensor([[True, False, True]])
    for how in ({}, {"where": where, "weighting": "min_snr"}):
        torch.manual_seed(5)
        alone = sg.dsm_loss(model, x0, **how)
        torch.manual_seed(5)
        assert torch.equal(loss(model, x0, **none, **how), alone)
        torch.manual_seed(5)
        assert not torch.equal(loss(model, x0, **how), alone)


@pytest.mark.parametrize("sde", SDES, ids=lambda s: type(s).__name__)
def test_states_that_an_exact_model_makes_have_the_right_law(sde: Any) -> None:
    """Up to gap^2: on a Gaussian a step multiplies, and so does the standard deviation."""
    model, s = exact(sde), sde(torch.full((1,), 0.4, dtype=torch.float64))

    def off(gap: float) -> float:
        t = sde(earlier(sde, s, gap))
        close(t.lam, s.lam - gap, rtol=1e-6)
        c = stepped(model, torch.ones(1, 1, dtype=torch.float64), t, s)[0, 0]
        spread = [(level.alpha**2 * V + level.sigma**2)[0] for level in (s, t)]
        return float((c**2 * spread[1] / spread[0] - 1).abs())

    first, second = off(0.1), off(0.05)
    assert 3.6 < first / second < 4.4 and first < 0.01


def test_the_minimum_is_off_by_a_multiple_of_the_gap() -> None:
    """E[x0 | x_s'] is that of x_t; to nothing as gap goes to nothing."""
    sde, s = sg.VPSDE(), sg.VPSDE()(torch.full((1,), 0.4, dtype=torch.float64))
    model = exact(sde)

    def off(gap: float) -> float:
        t = sde(earlier(sde, s, gap))
        c = stepped(model, torch.ones(1, 1, dtype=torch.float64), t, s)[0, 0]
        x0 = t.alpha * V / (c * (t.alpha**2 * V + t.sigma**2))
        return float((x0 / (s.alpha * V / (s.alpha**2 * V + s.sigma**2)) - 1).abs())

    assert 1.9 < off(0.1) / off(0.05) < 2.1


class Told(nn.Module):
    """eps = k x of whoever asks with a gradient, and the exact one of who asks without."""

    def __init__(self, k: float, sde: Any) -> None:
        super().__init__()
        self.asked, self.exact = Linear(k), Exact(sde)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.asked(x, t) if torch.is_grad_enabled() else self.exact(x, t)


def test_the_target_keeps_the_data() -> None:
    """The k of least loss is (1 - alpha_s q) / sigma_s, with q x_s' the mean of x0."""
    torch.manual_seed(1)
    sde, gap = sg.VPSDE(), 0.5
    x0 = V**0.5 * torch.randn(200_000, 1, dtype=torch.float64)
    s = sde(torch.full((1,), 0.4, dtype=torch.float64))
    t = sde(earlier(sde, s, gap))
    c = stepped(exact(sde), torch.ones(1, 1, dtype=torch.float64), t, s)[0, 0]
    q = t.alpha * V / (c * (t.alpha**2 * V + t.sigma**2))
    values = []
    for k in (-1.0, 0.0, 1.0):
        torch.manual_seed(0)
        model = sg.ScoreModel(Told(k, sde), sde, time="t")
        values.append(float(exposed(model, x0, p=1.0, gap=gap, times=at(0.4)).mean().detach()))
    low, middle, high = values
    found = (low - high) / (2 * (low + high - 2 * middle))
    close(found, ((1 - s.alpha * q) / s.sigma)[0], rtol=0.02)


def test_the_models_own_step_has_no_gradient_and_one_more_call() -> None:
    torch.manual_seed(0)
    model, x0 = sg.ScoreModel(MLP(2, width=8), sg.VPSDE()), torch.randn(3, 2)
    exposed(model, x0, p=1.0).mean().backward()
    assert model.nfe == 2
    model = sg.ScoreModel(Exact(sg.VPSDE()), sg.VPSDE(), time="t")
    assert not stepped(model, x0.requires_grad_(), *map(sg.VPSDE(), (0.5, 0.4))).requires_grad


def test_at_the_ends_and_with_labels() -> None:
    torch.manual_seed(0)
    for sde in (*SDES, sg.FlowSDE(T=1.0)):
        model = sg.ScoreModel(MLP(2, width=8, classes=3), sde, predicts="edm", time="tau")
        for t in (sde.t_min or 1e-3, sde.T):
            given, x0 = model.given(y=torch.tensor([0, 1, 2])), torch.randn(3, 2)
            for loss in (exposed, perturbed):
                assert bool(loss(given, x0, times=at(t)).isfinite().all())
                found = dropped(given, x0, loss=loss, p=0.5, without={"y": 3})
                assert found.shape == (3,)


def test_what_cannot_be_is_refused() -> None:
    model, x0 = sg.ScoreModel(MLP(2, width=8), sg.VPSDE()), torch.randn(3, 2)
    with refused("gamma must be a number >= 0"):
        perturbed(model, x0, gamma=-0.1)
    with refused("p lies in"):
        exposed(model, x0, p=1.5)
    with refused("gap, a step in lam, must be positive"):
        exposed(model, x0, gap=0.0)
    apart = sg.ScoreModel(MLP(2, width=8), sg.sde.AnisotropicVPSDE((0.5, 2.0)))
    with refused("exposed steps in one lam of each sample"):
        exposed(apart, x0)
    assert perturbed(apart, x0).shape == (3,)
    for loss in (exposed, perturbed):
        with refused("where is boolean"):
            loss(model, x0, where=torch.ones(2))
        with refused("Data must be floating"):
            loss(model, torch.ones(3, 2, dtype=torch.int64))

"""Losses: the textbook objectives sample by sample, and the value that theory says they have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.losses.weightings import WEIGHTINGS
from tests.cases import Recorder, Smooth, U, close, every_sde, fixed, normal


def by_eps(
    sde: sg.LinearSDE, eps: Callable[[Tensor, Tensor], Tensor], predicts: str
) -> sg.ScoreModel:
    """The model that says eps(x, t), with a network that says it in the words of ``predicts``."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        level, e = sde(t), eps(x, t)
        a, s = level.alpha[:, None], level.sigma[:, None]
        x0 = (x - s * e) / a
        f, g2 = level.f[:, None], level.g2[:, None]
        return {
            "eps": e,
            "x0": x0,
            "score": -e / s,
            "v": a * e - s * x0,
            "velocity": f * x + g2 / (2 * s) * e,
        }[predicts]

    held = eps if isinstance(eps, torch.nn.Module) else None
    return sg.ScoreModel(net, sde, predicts, module=held)


def case(sde: sg.LinearSDE) -> tuple[Recorder, Tensor, sg.Level, Tensor, dict[str, Tensor]]:
    """A network of no meaning on twelve samples, its losses, and the x_t, t and z behind them."""
    net, x0 = Recorder(Smooth(3)), normal(12, 3)
    model = sg.ScoreModel(net, sde)
    got = {}
    for name in WEIGHTINGS:
        generator = torch.Generator().manual_seed(2)
        got[name] = sg.dsm_loss(model, x0, weighting=name, draw=fixed, generator=generator)
    level = sde(net.t)
    z = (net.x - level.alpha[:, None] * x0) / level.sigma[:, None]
    return net, x0, level, z, got


def mean(error: Tensor) -> Tensor:
    return error.square().mean(1)


@every_sde
def test_losses_are_the_textbooks_sample_by_sample(sde: sg.LinearSDE) -> None:
    net, x0, level, z, got = case(sde)
    x, eps = net.x, net.net(net.x, net.t)
    alpha, sigma = level.alpha[:, None], level.sigma[:, None]
    f, g = level.f[:, None], level.g2.sqrt()[:, None]
    score, D = -eps / sigma, (x - sigma * eps) / alpha
    rho = sigma / alpha
    velocity = f * x - g**2 * score / 2
    target = f * (alpha * x0 + sigma * z) + g**2 * z / sigma / 2
    want = {
        # Ho et al. (2020), eq. 14
        "eps": mean(eps - z),
        # Song et al. (2021), their code: |sigma s + z|^2
        "sigma2": mean(sigma * score + z),
        # Song et al. (2021b), thm. 1: g^2 |s + z / sigma|^2
        "likelihood": mean(g * (score + z / sigma)),
        # Lipman et al. (2023), eq. 9: |v - (alpha' x0 + sigma' z)|^2
        "velocity": mean(velocity - target),
        # Karras et al. (2022), eq. 2 and table 1: lambda(sigma) |D - x0|^2
        "edm": ((rho**2 + 0.5**2) / (rho * 0.5) ** 2)[:, 0] * mean(D - x0),
        # Hang et al. (2023), eq. 9: min(SNR, gamma) |D - x0|^2
        "min_snr": (1 / rho**2).clamp(max=5.0)[:, 0] * mean(D - x0),
        # Salimans & Ho (2022), sec. 4: max(SNR, 1) |D - x0|^2
        "truncated_snr": (1 / rho**2).clamp(min=1.0)[:, 0] * mean(D - x0),
        # of the straightened flow: |(eps - x0) - (z - x0)|^2
        "straight": mean((eps - D) - (z - x0)),
    }
    assert set(want) == set(got)
    for name in want:
        # What is compared with is divided by alpha and by sigma: its own rounding sets the scale.
        slack = 1e-13 * (1 + 1 / level.alpha + 1 / level.sigma).max().item() ** 2
        close(got[name], want[name], rtol=slack + 1e-11)
    # eta-free check of the states: standard normal noise, on uniform times
    close(net.t, sde.t_min + U * (sde.T - sde.t_min))
    assert 0.5 < float(z.square().mean()) < 1.6


def test_flow_matching_is_its_usual_self() -> None:
    """On the straight flow: |v_theta - (z - x0)|^2."""
    sde, x0 = sg.FlowSDE(), normal(12, 3)
    net = Recorder(Smooth(3))
    model = sg.ScoreModel(net, sde, predicts="velocity")
    got = sg.dsm_loss(model, x0, weighting="velocity", draw=fixed)
    t = net.t[:, None]
    z = (net.x - (1 - t) * x0) / t
    close(got, mean(net.net(net.x, net.t) - (z - x0)), rtol=1e-10)


def test_settings_of_the_weightings_are_their_papers() -> None:
    sde = sg.VPSDE()
    level = sde(torch.linspace(1e-3, 1, 20, dtype=torch.float64))
    snr = (level.alpha / level.sigma) ** 2
    for gamma in (1.0, 5.0, 20.0):
        close(sg.losses.MinSNR(gamma)(level) * snr, snr.clamp(max=gamma))
    for sd in (0.5, 1.0):
        want = (level.rho**2 + sd**2) / (level.rho * sd) ** 2
        close(sg.losses.EDMWeighting(sd)(level) * snr, want)


@every_sde
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_loss_does_not_depend_on_the_networks_words(sde: sg.LinearSDE, weighting: str) -> None:
    eps = Smooth(2)
    x0 = normal(12, 2)
    losses = []
    for predicts in ("eps", "x0", "score", "v", "velocity"):
        model = by_eps(sde, eps, predicts)
        generator = torch.Generator().manual_seed(2)
        losses.append(sg.dsm_loss(model, x0, weighting=weighting, draw=fixed, generator=generator))
    level = sde(sde.t_min + U * (sde.T - sde.t_min))
    slack = 1e-12 * (1 + 1 / level.alpha + 1 / level.sigma).max().item() ** 2
    for loss in losses[1:]:
        close(loss, losses[0], rtol=min(slack, 1e-4))


def test_a_weighting_of_your_own() -> None:
    model, x0 = sg.ScoreModel(Smooth(2), sg.VPSDE()), normal(12, 2)
    plain, tenfold = (
        sg.dsm_loss(model, x0, weighting=w, draw=fixed, generator=torch.Generator().manual_seed(0))
        for w in (None, lambda level: 10 * level.t)
    )
    close(tenfold, 10 * plain * (1e-3 + U * (1 - 1e-3)))


def test_default_is_eps_which_is_sigma2() -> None:
    model, x0 = sg.ScoreModel(Smooth(2), sg.SubVPSDE()), normal(12, 2)
    losses = [
        sg.dsm_loss(model, x0, weighting=w, generator=torch.Generator().manual_seed(0))
        for w in (None, "eps", "sigma2")
    ]
    assert torch.equal(losses[0], losses[1]) and torch.equal(losses[0], losses[2])


@every_sde
def test_gradients_reach_the_network_and_are_finite(sde: sg.LinearSDE) -> None:
    net = Smooth(2, torch.float32)
    for weighting in WEIGHTINGS:
        net.zero_grad()
        model = sg.ScoreModel(net, sde)
        loss = sg.dsm_loss(model, normal(12, 2, dtype=torch.float32), weighting=weighting)
        assert loss.shape == (12,) and loss.dtype == torch.float32 and model.nfe == 1
        loss.mean().backward()
        assert net.W.grad is not None and bool(net.W.grad.isfinite().all())
        assert float(net.W.grad.abs().max()) > 0


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 3, 4, 4), (5, 2, 3, 2, 2)], ids=str)
def test_loss_is_a_mean_over_coordinates_of_any_shape(shape: tuple[int, ...]) -> None:
    """With a network of zeros the eps-loss is the mean square of z itself."""
    seen: list[Tensor] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    loss = sg.dsm_loss(sg.ScoreModel(net, sg.EDMSDE()), torch.zeros(shape).double(), draw=fixed)
    z = seen[0] / (0.002 + U[:5] * (80 - 0.002)).reshape(-1, *[1] * (len(shape) - 1))
    close(loss, z.square().reshape(5, -1).mean(1))

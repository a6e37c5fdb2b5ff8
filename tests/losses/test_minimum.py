"""The minimum of the loss is the exact score's, and its value is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.losses.weightings import WEIGHTINGS
from tests.cases import EVERY, Recorder

VAR = (0.5, 0.02)
DATA = Gaussian([0.4, -1.0], VAR)


def minimum(level: sg.Level) -> Tensor:
    """E |E[eps | x_t] - eps|^2 / d on Gaussian data: the posterior variance of eps."""
    each = [level.alpha**2 * c / (level.alpha**2 * c + level.sigma**2) for c in VAR]
    return sum(each, torch.zeros(())) / len(VAR)


def weight(name: str, level: sg.Level) -> Tensor:
    """The weightings once more, in terms of f, g, alpha, sigma."""
    rho2 = (level.sigma / level.alpha) ** 2
    return {
        "sigma2": torch.ones_like(rho2),
        "eps": torch.ones_like(rho2),
        "likelihood": level.g2 / level.sigma**2,
        "velocity": (level.g2 / 2 / level.sigma) ** 2,
        "edm": rho2 * (rho2 + 0.25) / (rho2 * 0.25),
        "min_snr": rho2 * (1 / rho2).clamp(max=5.0),
        "truncated_snr": rho2 * (1 / rho2).clamp(min=1.0),
        "straight": 1 + 2 * rho2.sqrt() + rho2,
    }[name]


def quad(f: Callable[[Tensor], Tensor], a: float, b: float) -> float:
    """An integral by SciPy."""
    value, error = integrate.quad(
        lambda u: float(f(torch.tensor(u, dtype=torch.float64))), a, b, limit=400, epsrel=1e-7
    )
    assert error < 1e-5 * max(abs(value), 1e-9)
    return float(value)


def over_uniform_time(sde: sg.LinearSDE, name: str) -> float:
    """Over log t, where the integrand is smooth at both ends."""

    def integrand(u: Tensor) -> Tensor:
        level = sde(u.exp())
        return weight(name, level) * minimum(level) * level.t

    low, high = math.log(sde.t_min), math.log(sde.T)
    return quad(integrand, low, high) / (sde.T - sde.t_min)


def rho_to_t(sde: sg.LinearSDE, rho: Tensor) -> Tensor:
    """The inverse of rho(t), worked out anew."""
    if isinstance(sde, sg.EDMSDE):
        return rho
    half = torch.log1p(rho**2) / 2  # -log alpha on VP
    return (-0.1 + torch.sqrt(0.01 + 4 * 19.9 * half)) / (2 * 19.9) * 2


def over_log_normal_time(sde: sg.LinearSDE, name: str) -> float:
    """ln rho ~ N(-1.2, 1.2^2), with what falls outside [t_min, T] put on its ends."""

    def integrand(n: Tensor) -> Tensor:
        t = rho_to_t(sde, (-1.2 + 1.2 * n).exp()).clamp(sde.t_min, sde.T)
        level = sde(t)
        return weight(name, level) * minimum(level) * (-(n**2) / 2).exp() / math.sqrt(2 * math.pi)

    return quad(integrand, -7.0, 7.0)


def sampled(sde: sg.LinearSDE, n: int, seed: int = 0, **options: object) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x0 = DATA.sample(n, generator)
    return sg.dsm_loss(exact_model(DATA, sde), x0, generator=generator, **options)  # type: ignore[arg-type]


def within(losses: Tensor, want: float, errors: float = 4.0) -> None:
    """The mean is what it should be, within so many standard errors."""
    standard = float(losses.std()) / math.sqrt(len(losses))
    assert abs(float(losses.mean()) - want) < errors * standard
    # and the standard error is small enough for that to say something
    assert standard < 0.08 * want


FOUR = [EVERY[name] for name in ("vp", "subvp", "cosine", "flow", "discrete")]


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("sde", FOUR, ids=lambda sde: type(sde).__name__)
def test_exact_score_reaches_the_minimum(sde: sg.LinearSDE, name: str) -> None:
    if isinstance(sde, sg.DiscreteVPSDE):
        t = (torch.arange(1, 1000, dtype=torch.float64) + 0.5) / 1000
        level = sde(t)
        want = float((weight(name, level) * minimum(level)).mean())
    else:
        want = over_uniform_time(sde, name)
    within(sampled(sde, 60_000, weighting=name), want)


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.EDMSDE()], ids=["vp", "edm"])
def test_minimum_under_log_normal_times(sde: sg.LinearSDE, name: str) -> None:
    want = over_log_normal_time(sde, name)
    losses = sampled(sde, 60_000, weighting=name, times=sg.losses.LogNormalTime())
    within(losses, want)


@pytest.mark.parametrize(
    "sde", [sg.VPSDE(), sg.EDMSDE(), sg.SubVPSDE()], ids=["vp", "edm", "subvp"]
)
def test_likelihood_times_change_the_variance_and_not_the_mean(sde: sg.LinearSDE) -> None:
    want = over_uniform_time(sde, "likelihood")
    drawn = sampled(sde, 40_000, weighting="likelihood", times=sg.losses.likelihood_time)
    within(drawn, want)
    plain = sampled(sde, 40_000, weighting="likelihood")
    assert float(drawn.std()) < 0.7 * float(plain.std())
    # The weight is gone: loss = E minimum over lam uniform, times a constant.
    high, low = sde(torch.tensor([sde.t_min, sde.T], dtype=torch.float64)).lam.tolist()
    constant = 2 * (high - low) / (sde.T - sde.t_min)
    over_lam = quad(lambda lam: minimum(sde(sde.time(lam))), low, high) / (high - low)
    assert abs(constant * over_lam / want - 1) < 1e-4


def test_likelihood_times_serve_every_weighting() -> None:
    sde = sg.VPSDE()
    for name in ("sigma2", "min_snr", "velocity"):
        losses = sampled(sde, 60_000, weighting=name, times=sg.losses.likelihood_time)
        within(losses, over_uniform_time(sde, name))


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_wrong_model_loses_exactly_its_weighted_square(name: str) -> None:
    """E loss(eps* + d) - E loss(eps*) = E w |d|^2 / dim: the cross term has mean zero."""
    sde, n = sg.VPSDE(), 40_000
    exact = exact_model(DATA, sde)
    deviation = torch.tensor([0.3, -0.1], dtype=torch.float64)

    def off(x: Tensor, t: Tensor) -> Tensor:
        eps: Tensor = exact(x, t).eps
        return eps + deviation * torch.sin(x)

    seen = Recorder(off)
    generator = torch.Generator().manual_seed(0)
    x0 = DATA.sample(n, generator)
    wrong = sg.dsm_loss(sg.ScoreModel(seen, sde), x0, weighting=name, generator=generator)
    right = sampled(sde, n, weighting=name)
    square = (deviation * torch.sin(seen.x)).square().mean(1) * weight(name, sde(seen.t))
    cross = wrong - right - square
    assert abs(float(cross.mean())) < 4 * float(cross.std()) / math.sqrt(n)
    assert float((wrong - right).mean()) > 4 * float((wrong - right).std()) / math.sqrt(n)

"""Times of training: their densities, and what low discrepancy saves."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from scipy import integrate, stats
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from tests.cases import close, every_sde


def quad(f: Callable[[Tensor], Tensor], a: float, b: float) -> float:
    """An integral by SciPy."""
    value, error = integrate.quad(
        lambda u: float(f(torch.tensor(u, dtype=torch.float64))), a, b, limit=400, epsrel=1e-7
    )
    assert error < 1e-5 * max(abs(value), 1e-9)
    return float(value)


def within(losses: Tensor, want: float, errors: float = 4.0) -> None:
    """The mean is what it should be, within so many standard errors."""
    standard = float(losses.std()) / math.sqrt(len(losses))
    assert abs(float(losses.mean()) - want) < errors * standard
    # and the standard error is small enough for that to say something
    assert standard < 0.08 * want


@every_sde
def test_times_follow_their_densities(sde: sg.LinearSDE) -> None:
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    t, ratio = sg.losses.uniform_time(sde, u)
    close(t, sde.t_min + u * (sde.T - sde.t_min))
    close(ratio, torch.ones_like(u))
    t, ratio = sg.losses.LogNormalTime(-0.5, 0.8)(sde, u)
    inside = (t > sde.t_min) & (t < sde.T)
    lam = sde(t).lam
    close((-lam[inside] + 0.5) / 0.8, stats.norm.ppf(u.numpy())[inside.numpy()], 1e-6, 1e-8)
    assert int(inside.sum()) > 1000 and torch.equal(ratio, torch.ones_like(u))
    t, ratio = sg.losses.likelihood_time(sde, u)
    lam, ends = sde(t).lam, sde(torch.tensor([sde.t_min, sde.T], dtype=torch.float64)).lam
    close((lam - ends[0]) / (ends[1] - ends[0]), u, 1e-6, 1e-9)
    # importance weights average to one: the integral of p_uniform / p over p
    assert abs(float(ratio.mean()) - 1) < 0.01
    density = 1 / (ratio * (sde.T - sde.t_min))
    constant = 2 * (ends[0] - ends[1]) * density * (sde(t).sigma ** 2 / sde(t).g2)
    close(constant, torch.ones_like(u), 1e-9)
    for drawn in (sg.losses.uniform_time, sg.losses.LogNormalTime(), sg.losses.likelihood_time):
        t, _ = drawn(sde, torch.tensor([0.0, 1e-300, 1 - 1e-16], dtype=torch.float64))
        assert bool(((t >= sde.t_min) & (t <= sde.T)).all())


def test_low_discrepancy_uniforms_are_a_shifted_lattice() -> None:
    device, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    draws = torch.stack([sg.losses.low_discrepancy(7, device, generator) for _ in range(4000)])
    assert draws.dtype == torch.float64
    gaps = draws.sort(1).values.diff(dim=1)
    close(gaps, torch.full_like(gaps, 1 / 7), rtol=1e-12)
    assert float(draws.min()) >= 0 and float(draws.max()) < 1
    for i in range(7):
        assert stats.kstest(draws[:, i].numpy(), "uniform").pvalue > 1e-5
    even = sg.losses.independent(20_000, device, generator)
    assert even.dtype == torch.float64 and stats.kstest(even.numpy(), "uniform").pvalue > 1e-5


def test_low_discrepancy_has_the_same_mean_and_less_variance() -> None:
    """On 50 coordinates, where the variance left by the noise is small beside that of t."""
    sde, c = sg.VPSDE(), 0.1
    data = Gaussian([0.0] * 50, [c] * 50)
    model = exact_model(data, sde)

    def value(t: Tensor) -> Tensor:
        level = sde(t)
        return level.alpha**2 * c / (level.alpha**2 * c + level.sigma**2)

    want = quad(value, 1e-3, 1.0) / (1 - 1e-3)
    variances = []
    for draw in (sg.losses.low_discrepancy, sg.losses.independent):
        generator = torch.Generator().manual_seed(0)
        losses = torch.stack(
            [
                sg.dsm_loss(model, data.sample(32, generator), draw=draw, generator=generator)
                for _ in range(300)
            ]
        ).mean(1)
        within(losses, want)
        variances.append(float(losses.var()))
    assert variances[0] < variances[1] / 5

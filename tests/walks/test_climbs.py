"""Walks that climb: every marginal kept, in any grid, and ancestral steps as such a walk."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sdegen as sg
from sdegen import walks
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.noise.source import Noise
from sdegen.solvers.equation import climb
from sdegen.walks.grids import GRIDS
from tests.cases import (
    EVERY,
    SDES,
    Replay,
    Smooth,
    climbing,
    climbs,
    close,
    every_sde,
    normal,
    run,
)

pytestmark = pytest.mark.filterwarnings("ignore:ancestral turns at t_min")  # eta = 2 does

NET = Smooth()


class Impulses(Noise):
    """Draw number k is one in row first + k of the batch, and zero elsewhere."""

    def __init__(self, first: int) -> None:
        self.row = first

    def __call__(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
        z = torch.zeros_like(x)
        z[self.row] = 1.0
        self.row += 1
        return z


def law(
    solver: sg.Solver,
    model: sg.ScoreModel,
    walk: Tensor,
    start: tuple[float, float],
    draws: int,
) -> tuple[float, float]:
    """The exact mean and variance of an affine sampler's output, from x_T ~ N(m, v) = start.

    Row 0 has no noise at all, row 1 a unit of the start's, row 2 + k a unit of draw k.
    """
    m, v = start
    x = torch.full((2 + draws, 1), m, dtype=torch.float64)
    x[1] += math.sqrt(v)
    noise = Impulses(2)
    y = run(solver, model, x, walk, noise=noise)
    assert noise.row == 2 + draws, "not as many draws as were said"
    return float(y[0]), float((y[1:] - y[0]).square().sum())


def at_rho(sde: sg.LinearSDE, rho: float) -> float:
    return float(sde.time(-torch.tensor(rho, dtype=torch.float64).log()))


# ------------------------------------------------------------------------------------- climbing


@every_sde
@pytest.mark.parametrize("variance", [0.0, 0.3, 4.0])
def test_climbing_keeps_the_marginal(sde: sg.LinearSDE, variance: float) -> None:
    """From N(a m, a^2 v + s^2) at one level to the same at any higher one, in one climb or two."""
    t, m, s = sde(
        sde.t_min + torch.tensor([0.1, 0.3, 0.8]).double() * (sde.T - sde.t_min)
    ).unbind()
    for stops in ([t, s], [t, m, s]):
        x = torch.zeros(1 + len(stops), 1, dtype=torch.float64)
        x[0], x[1] = t.alpha * 0.7, (t.alpha**2 * variance + t.sigma**2).sqrt()
        x[1:] += x[0]
        noise = Impulses(2)
        p = sg.Reverse(sg.ScoreModel(NET, sde), 0.0, noise)
        for low, high in pairwise(stops):
            x = climb(p, x, low, high)
        close(x[0, 0], s.alpha * 0.7, 1e-12)
        close((x[1:] - x[0]).square().sum(), s.alpha**2 * variance + s.sigma**2, 1e-12)


@every_sde
@climbing
def test_a_walk_that_climbs_keeps_every_marginal(sde: sg.LinearSDE, by: walks.Climb) -> None:
    """Data at one point: DDIM is exact on any grid, so the law at the end must be too."""
    model = sg.ScoreModel(lambda x, t: torch.full_like(x, 0.7), sde, "x0")
    walk = by(sde, sg.walks.log_snr(sde, 9))
    top, bottom = sde(walk[[0, -1]]).unbind()
    start = (float(top.alpha) * 0.7, float(top.sigma) ** 2)
    mean, var = law(sg.DDIM(), model, walk, start, climbs(walk))
    assert climbs(walk) > 2
    close(mean, bottom.alpha * 0.7, 1e-9, 1e-12)
    close(var, bottom.sigma**2, 1e-9)


@climbing
@given(st.sampled_from(sorted(EVERY)), st.integers(1, 60), st.sampled_from(["log_snr", "uniform"]))
def test_a_walk_keeps_its_grid_and_its_bounds(
    by: walks.Climb, name: str, n: int, grid: str
) -> None:
    sde = EVERY[name]
    times = GRIDS[grid](sde, n)
    if "restart" in str(by) and grid == "uniform":
        times = sg.walks.karras(sde, n)
    try:
        walk = by(sde, times)
    except ValueError as error:
        # A coarse grid has nothing near rho_min below rho_max.
        assert "restart climbs from rho" in str(error)
        return
    left = iter(walk.tolist())
    assert all(any(t == u for u in left) for t in times.tolist())
    assert sde.t_min <= float(walk.min()) and float(walk.max()) <= sde.T
    for t, s in pairwise(sg.walks.levels(sde, walk)):
        assert isinstance(t, sg.Level) and isinstance(s, sg.Level)
        if s.t > t.t:
            assert float(s.sigma**2 - (s.alpha / t.alpha * t.sigma) ** 2) > 0


# ------------------------------------------------------------------------------------ ancestral


@every_sde
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_eta_is_ddim_on_an_ancestral_walk(sde: sg.LinearSDE, eta: float) -> None:
    """The same noise, the same states: the two are one formula, so they are one law."""
    model = sg.ScoreModel(NET, sde, "x0")
    times = sg.walks.log_snr(sde, 8, stop=at_rho(sde, float(sde(sde.t_min).rho) ** 0.5 * 0.9))
    x, z = normal(4, 2), normal(8, 4, 2, seed=1)
    walk = walks.ancestral(sde, times, eta)
    assert climbs(walk) == (8 if eta else 0)
    want = run(sg.DDIM(eta), model, x, times, noise=Replay(list(z)))
    close(run(sg.DDIM(), model, x, walk, noise=Replay(list(z))), want, 1e-8, 1e-9)


@pytest.mark.parametrize("eta", [0.4, 1.0])
@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_ancestral_has_ddims_law_on_gaussian_data(name: str, eta: float) -> None:
    sde = SDES[name]
    model = exact_model(Gaussian([0.4], [0.49]), sde)
    times = sg.walks.log_snr(sde, 6, stop=0.3 * sde.T)
    start = (0.2, float(sde(sde.T).sigma) ** 2)
    walk = walks.ancestral(sde, times, eta)
    got = law(sg.DDIM(), model, walk, start, 6)
    close(got, law(sg.DDIM(eta), model, times, start, 6), 1e-10)
    assert not math.isclose(got[1], law(sg.DDIM(), model, times, start, 0)[1], rel_tol=1e-3)


@every_sde
def test_below_t_min_an_ancestral_step_turns_there(sde: sg.LinearSDE) -> None:
    """Each step is DDIM with the eta for which there is room; the last is plain."""
    model, x, z = sg.ScoreModel(NET, sde, "x0"), normal(4, 2), normal(12, 4, 2, seed=1)
    times = sg.walks.log_snr(sde, 12)
    rho, floor = sde(times).rho, float(sde(sde.t_min).rho)
    walk = walks.ancestral(sde, times)
    got = run(sg.DDIM(), model, x, walk, noise=Replay(list(z)))
    room = []
    for k, (t, s) in enumerate(pairwise(rho.tolist())):
        down = max(s * s / t, floor)
        room.append(math.sqrt(max(0.0, (1 - (down / s) ** 2) / (1 - (s / t) ** 2))))
        eta = 0.0 if k == 11 else min(1.0, room[-1])
        x = run(sg.DDIM(eta), model, x, times[k : k + 2], noise=Replay([z[k]]))
    assert room[0] == pytest.approx(1) and room[-1] < 1e-3
    close(got, x, 1e-8, 1e-9)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("solver", [sg.Euler(), sg.DDIM()])
def test_ancestral_euler_by_hand(solver: sg.Solver, eta: float) -> None:
    """k-diffusion's rule for how far down and up, and a last step to sigma = 0."""
    sde, n = sg.EDMSDE(t_min=1e-6), 8
    sigma = torch.cat([sg.walks.karras(sde, n - 1, stop=0.002), torch.zeros(1).double()])
    model = sg.ScoreModel(NET, sde, "edm")
    start, z = 80 * normal(4, 2), normal(n, 4, 2, seed=1)
    x = start
    for k, (t, s) in enumerate(pairwise(sigma)):
        up = min(s, eta * (s**2 * (t**2 - s**2) / t**2) ** 0.5)
        down = (s**2 - up**2) ** 0.5
        x = x + (x - model(x, t).x0) / t * (down - t) + up * z[k]
    walk = walks.ancestral(sde, sigma[:-1], eta)
    out = sg.solve(model, start, solver=solver, walk=walk, denoise=True, noise=Replay(list(z)))
    close(out.x, x, 1e-10)
    assert out.nfe.tolist() == [n] * 4


def test_ancestral_euler_has_no_noise_above_all_of_it() -> None:
    """eta > 1: rho_up is at most rho_s, which is all the noise there is."""
    sde = sg.EDMSDE()
    times = sg.walks.karras(sde, 10)
    # From there on eta sqrt(1 - (rho_s / rho_t)^2) > 1, and the step falls to t_min.
    with pytest.warns(UserWarning, match="turns at t_min = 0.002 on 1 of 10 steps.*less noise"):
        walk = walks.ancestral(sde, times, eta=3.0)
    assert int((walk == sde.t_min).sum()) == 10
    assert climbs(walk) == 9


def test_ancestral_starts_at_pure_noise() -> None:
    """alpha = 0 at t = 1: rho is infinite there, and the walk is the same."""
    sde = sg.FlowSDE(T=1.0)
    model, x, z = sg.ScoreModel(NET, sde, "x0"), normal(4, 2), normal(5, 4, 2, seed=1)
    times = sg.walks.uniform(sde, 5, stop=0.1)
    walk = walks.ancestral(sde, times, eta=0.8)
    want = run(sg.DDIM(0.8), model, x, times, noise=Replay(list(z)))
    close(run(sg.DDIM(), model, x, walk, noise=Replay(list(z))), want)

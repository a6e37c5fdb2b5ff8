"""Walks that climb, DDPM's own times, and the published recipes made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from conftest import (
    EVERY,
    MIXTURE,
    SDES,
    Plain,
    Replay,
    Smooth,
    close,
    every_sde,
    normal,
    refused,
    run,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sdegen as sg
from sdegen import walks
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.noise.source import Noise
from sdegen.sampling import recipes
from sdegen.solvers.classical import RK4, Heun
from sdegen.solvers.equation import climb
from sdegen.walks import grids
from sdegen.walks.grids import GRIDS, Grid

NET = Smooth()
DDPM = sg.DiscreteVPSDE()


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


def seen(how: dict[str, Any], sde: sg.SDE, **more: Any) -> tuple[list[float], sg.Solution]:
    """The times at which a network is asked, and the solution."""
    at: list[float] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        at.append(float(t[0]))
        return 0.1 * x

    model = sg.ScoreModel(net, sde, "x0")
    return at, sg.solve(model, normal(2, 1), **{"seed": 0, **how, **more})


def at_rho(sde: sg.LinearSDE, rho: float) -> float:
    return float(sde.time(-torch.tensor(rho, dtype=torch.float64).log()))


def climbs(walk: Tensor) -> int:
    return int((walk.diff() > 0).sum())


# ------------------------------------------------------------------------ DDPM's own time steps


@pytest.mark.parametrize("n", [50, 1000])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("leading", {}),
        ("leading", {"steps_offset": 1}),
        ("trailing", {}),
        ("linspace", {}),
    ],
)
def test_the_network_is_asked_at_diffusers_time_steps(
    name: str, how: dict[str, int], n: int
) -> None:
    from diffusers import DDIMScheduler, DDPMScheduler

    sde = sg.DiscreteVPSDE(np.linspace(1e-4, 2e-2, n).tolist())
    grid = partial(GRIDS[name], offset=how["steps_offset"]) if how else name
    for K in (2, 3, 7, 10, 24, 48, 49):
        for scheduler in (DDIMScheduler, DDPMScheduler):
            published = scheduler(num_train_timesteps=n, timestep_spacing=name, **how)
            published.set_timesteps(K)
            at, out = seen({"solver": sg.DDIM(), "denoise": True}, sde, nfe=K, walk=grid)
            close(at, (published.timesteps + 1) / n, 1e-6)
            assert [round(n * t - 1) for t in at] == published.timesteps.tolist()
            assert out.nfe.tolist() == [K, K]


def test_every_number_of_time_steps_is_diffusers() -> None:
    from diffusers import DDIMScheduler

    for name in ("leading", "trailing", "linspace"):
        published = DDIMScheduler(timestep_spacing=name)
        for K in range(2, 1001, 13):
            published.set_timesteps(K)
            # Its own trailing spacing has a step too many, number -1, where arange overshoots.
            want = published.timesteps[:K]
            assert torch.equal((GRIDS[name](DDPM, K - 1) * 1000).round().long() - 1, want), K


def test_ddims_quadratic_steps() -> None:
    for K in (2, 5, 10, 20, 21, 50, 54, 80, 100, 1000):
        published = (np.linspace(0, np.sqrt(1000 * 0.8), K) ** 2).astype(int)
        got = (grids.ddim_quadratic(DDPM, K - 1) * 1000).round().long() - 1
        assert got.tolist() == sorted(set(published.tolist()), reverse=True)
    assert len(grids.ddim_quadratic(DDPM, 19)) == 20


@pytest.mark.parametrize("name", ["leading", "trailing", "linspace", "ddim_quadratic"])
def test_ddpm_grids_are_for_its_steps(name: str) -> None:
    for sde in SDES.values():
        with refused(
            f"{name} grid picks from the steps of a DiscreteVPSDE, and {type(sde).__name__}"
        ):
            GRIDS[name](sde, 5)
    assert GRIDS[name](DDPM, 999)[-1] == 1e-3
    with refused("picks 1001 times for 1000 steps.*at most 999 steps"):
        GRIDS[name](DDPM, 1000)
    with refused("steps >= 1, but steps = 0"):
        GRIDS[name](DDPM, 0)
    with refused(r"stays within \[t_min, T\]"):
        grids.leading(DDPM, 999, offset=1)


def test_ddim_is_diffusers() -> None:
    from diffusers import DDIMScheduler

    n, x = 10, normal(4, 2)
    for spacing in ("leading", "trailing"):
        scheduler = DDIMScheduler(
            beta_start=1e-4, beta_end=2e-2, clip_sample=False, timestep_spacing=spacing
        )
        beta = torch.tensor(DDPM.betas, dtype=torch.float64)
        scheduler.alphas_cumprod = (1 - beta).cumprod(0)
        scheduler.set_timesteps(n)
        y = x
        for i in scheduler.timesteps:
            eps = NET(y, (i / 100).double().expand(4))
            y = scheduler.step(eps, i, y).prev_sample
        model = sg.ScoreModel(lambda x, i: NET(x, i / 100), DDPM, "eps", time="1000t-1")
        out = sg.solve(model, x, **recipes.ddim(n, walk=spacing))
        close(out.x, y, 1e-5)
        assert out.nfe.tolist() == [n] * 4


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


CLIMBING: dict[str, walks.Climb] = {
    "ancestral": walks.ancestral,
    "ancestral_half": partial(walks.ancestral, eta=0.5),
    "ancestral_two": partial(walks.ancestral, eta=2.0),
    "churn": partial(walks.churn, S_churn=3.0),
    "churn_hop": partial(walks.churn, S_churn=3.0, S_min=0.1, hop=True),
    "restart": partial(walks.restart, intervals=[(0.1, 0.6, 2, 3), (0.03, 0.2, 1, 2)]),
    "repaint": partial(walks.repaint, jump_length=3, resamplings=3),
}
climbing = pytest.mark.parametrize("by", CLIMBING.values(), ids=CLIMBING)


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


# ---------------------------------------------------------------------------- churn and EDM


def D(x: Tensor, sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """EDM's denoiser of NET.  Karras et al. (2022), eq. 7 and table 1."""
    total = sigma**2 + sigma_data**2
    c_skip, c_out = sigma_data**2 / total, sigma * sigma_data / total**0.5
    F = NET(x / total**0.5, (sigma.log() / 4).expand(len(x)))
    return c_skip * x + c_out * F


def heun(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Karras et al. (2022), alg. 1, lines 4-8."""
    d = (x - D(x, t)) / t
    x_s = x + (s - t) * d
    return x_s if s == 0 else x + (s - t) * (d + (x_s - D(x_s, s)) / s) / 2


@pytest.mark.parametrize(
    "S",
    [
        {"S_churn": 40.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003},
        {"S_churn": 2.0, "S_noise": 1.01},
        {"S_churn": 2.0, "S_max": 1.0},
        {},
    ],
)
def test_edm_is_algorithm_2(S: dict[str, float]) -> None:
    """Every step by hand, the one to zero too; above T there is nowhere to climb to."""
    n = 12
    i = torch.arange(n, dtype=torch.float64)
    t = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    t = torch.cat([t, torch.zeros(1).double()])
    start, z = 80 * normal(4, 2), normal(n, 4, 2, seed=1)
    x, draws = start, iter(z)
    for t_i, t_next in pairwise(t):
        inside = S.get("S_min", 0) <= t_i <= S.get("S_max", math.inf)
        gamma = min(S.get("S_churn", 0) / n, math.sqrt(2) - 1) if inside else 0.0
        t_hat = (t_i + gamma * t_i).clamp(max=80.0)
        if t_hat > t_i:
            x = x + (t_hat**2 - t_i**2).sqrt() * S.get("S_noise", 1.0) * next(draws)
        x = heun(x, t_hat, t_next)
    noise = Replay(list(z))
    out = sg.solve(
        sg.ScoreModel(NET, sg.EDMSDE(), "edm"), start, **recipes.edm(n, noise=noise, **S)
    )
    close(out.x, x, 1e-12)
    assert len(list(noise.draws)) == len(list(draws))
    assert out.nfe.tolist() == [2 * n - 1] * 4


def test_edm_is_one_sampler_on_every_sde() -> None:
    """In rho all are one equation: the denoised ends agree where the range of rho does."""
    x, z, S = normal(4, 2), normal(8, 4, 2, seed=1), {"S_churn": 2.0, "S_max": 10.0}
    ends = []
    for sde in SDES.values():
        t_min, T = at_rho(sde, 0.05), at_rho(sde, 20.0)
        grid = partial(sg.walks.karras, start=T, stop=t_min)
        how = recipes.edm(8, noise=Replay(list(z)), **S)
        how["walk"] = partial(how["walk"], grid=grid)
        level = sde(T)
        model = exact_model(MIXTURE, sde)
        ends.append(sg.sample(model, level.alpha * 20 * x, **how))
    for end in ends[1:]:
        close(end, ends[0], 1e-7, 1e-8)


def test_churn_counts_its_steps() -> None:
    """gamma is S_churn over the steps taken, the hop among them."""
    sde, grid = sg.EDMSDE(), sg.walks.karras(sg.EDMSDE(), 10)
    for hop, n in ((False, 10), (True, 11)):
        walk = walks.churn(sde, grid, S_churn=1.1, hop=hop)
        gained = torch.tensor([float(s / t) for t, s in pairwise(walk) if s > t])
        close(gained, torch.full((n - 1,), 1 + 1.1 / n), 1e-6)
        assert float(walk[0]) == 80 and float(walk[1]) < 80
    much = walks.churn(sde, grid, S_churn=100.0, S_max=50.0)
    close(max(s / t for t, s in pairwise(much)), math.sqrt(2))
    assert torch.equal(walks.churn(sde, grid, S_churn=0.0), grid)


class Labelled(Noise):
    """Says what it was asked for: 1 a draw, 2 an area, plus 10 for some of the samples only."""

    path = True

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def __call__(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
        return torch.full_like(x, 1 + self.offset)

    def area(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
        return torch.full_like(x, 2 + self.offset)

    def rows(self, index: Tensor) -> Labelled:
        return Labelled(10.0)


def test_inflated_noise_is_its_source_in_everything_else() -> None:
    level, x = sg.VPSDE()(0.5), torch.zeros(1)
    loud = walks.Inflated(1.5, Labelled())
    assert loud.path and not walks.Inflated(1.5).path
    some = loud.rows(torch.tensor([0]))
    for noise, want in (
        (loud, (1.0, 2.0)),
        (some, (11.0, 12.0)),
        (some.stream("climb"), (16.5, 12.0)),
    ):
        assert (float(noise(x, level, level)), float(noise.area(x, level, level))) == want


def test_inflated_noise_is_that_of_climbs() -> None:
    level, x = sg.VPSDE()(0.5), normal(5, 3)
    plain, loud = sg.Seeded(7), walks.Inflated(1.5, sg.Seeded(7))
    for name in ("prior", "corrector", "climb"):
        factor = 1.5 if name == "climb" else 1.0
        for _ in range(2):
            z = plain.stream(name)(x, level, level)
            close(loud.stream(name)(x, level, level), factor * z, 0)
    close(loud(x, level, level), plain(x, level, level), 0)
    with refused("S_noise is a factor >= 0, but it is -1.0"):
        walks.Inflated(-1.0)


# --------------------------------------------------------------------------- restart and RePaint


def test_restart_visits_what_its_algorithm_does() -> None:
    """Xu et al. (2023), alg. 1, written out: which sigma the network sees, one Heun step's two."""

    def edm(high: float, low: float, n: int) -> np.ndarray:
        roots = np.linspace(high ** (1 / 7), low ** (1 / 7), n)
        return np.asarray(roots**7)

    n, intervals = 18, [(4, 1, 19.35, 40.79), (3, 2, 0.095, 0.30)]
    main = edm(80, 0.002, n)
    nearest = {int(abs(main - low).argmin()): (N, K, high) for N, K, low, high in intervals}
    want: list[float] = []
    for i in range(1, n):
        want += [main[i - 1], main[i]]
        if i in nearest:
            N, K, high = nearest[i]
            for t, s in list(pairwise(edm(high, main[i], N))) * K:
                want += [t, s]
    at, out = seen(recipes.restart(n, intervals), sg.EDMSDE())
    close(at, [*want, 0.002], 1e-9)
    assert out.nfe.tolist() == [len(want) + 1] * 2


@pytest.mark.parametrize(
    ("n", "intervals", "calls"),
    [
        (18, [(3, 2, 0.06, 0.30)], 43),
        (
            36,
            [
                (4, 1, 19.35, 40.79),
                (4, 1, 1.09, 1.92),
                (4, 5, 0.59, 1.09),
                (4, 5, 0.30, 0.59),
                (6, 6, 0.06, 0.30),
            ],
            203,
        ),
    ],
)
def test_restart_takes_the_calls_that_were_published(
    n: int, intervals: list[tuple[int, int, float, float]], calls: int
) -> None:
    """CIFAR-10's shortest and ImageNet 64's longest configuration."""
    _, out = seen(recipes.restart(n, intervals), sg.EDMSDE())
    assert out.nfe.tolist() == [calls] * 2


def test_restart_is_the_same_heun() -> None:
    """One interval by hand, S_noise included."""
    n, z = 8, normal(2, 4, 2, seed=1)
    sigma = sg.walks.karras(sg.EDMSDE(), n - 1)
    x = start = 80 * normal(4, 2)
    i = int((sigma - 0.06).abs().argmin())
    for t, s in pairwise(sigma[: i + 1]):
        x = heun(x, t, s)
    for k in range(2):
        again = sg.walks.karras(sg.EDMSDE(), 3, start=1.5, stop=float(sigma[i]))
        x = x + 1.1 * (again[0] ** 2 - again[-1] ** 2).sqrt() * z[k]
        for t, s in pairwise(again):
            x = heun(x, t, s)
    for t, s in pairwise([*sigma[i:], torch.zeros(()).double()]):
        x = heun(x, t, s)
    how = recipes.restart(n, [(4, 2, 0.06, 1.5)], S_noise=1.1, noise=Replay(list(z)))
    close(sg.sample(sg.ScoreModel(NET, sg.EDMSDE(), "edm"), start, **how), x, 1e-11)


@pytest.mark.parametrize(
    ("n", "j", "r"), [(250, 10, 10), (20, 3, 2), (25, 5, 4), (9, 8, 3), (7, 1, 2)]
)
def test_repaint_is_diffusers(n: int, j: int, r: int) -> None:
    from diffusers import RePaintScheduler

    published = RePaintScheduler()
    published.set_timesteps(n, jump_length=j, jump_n_sample=r)
    walk = walks.repaint(DDPM, grids.leading(DDPM, n - 1), j, r)
    unit, visited = 1000 // n, [round(float(walk[0]) * 1000) - 1]
    for t in (walk[1:] * 1000).round().long() - 1:
        # One climb here is j steps up there.
        here = visited[-1]
        visited += list(range(here + unit, int(t) + 1, unit)) if t > here else [int(t)]
    assert visited == published.timesteps.tolist()


def test_repaint_is_the_published_number_of_steps() -> None:
    at, out = seen(recipes.repaint(), DDPM)
    # 23 places to jump from, 9 times 10 steps each.
    assert out.nfe.tolist() == [250 + 9 * 10 * 24] * 2
    assert set(at) == set(grids.linspace(DDPM, 249).tolist())


# --------------------------------------------------------------------- from a partly noised image


@pytest.mark.parametrize("name", ["vp", "subvp", "cosine", "flow", "edm"])
def test_sampling_goes_on_from_a_partly_noised_image(name: str) -> None:
    """SDEdit, Meng et al. (2022): on Gaussian data x is an affine function of x0 and z, known."""
    sde, m, v = SDES[name], 0.4, 0.49
    model = exact_model(Gaussian([m], [v]), sde)
    x0, z = (
        torch.tensor([[1.5], [0.0], [1.5]]).double(),
        torch.tensor([[0.0], [0.0], [1.0]]).double(),
    )
    end = sde(sde.t_min)
    kept, spread = [], []
    for t in (at_rho(sde, 0.1), at_rho(sde, 0.7), at_rho(sde, 3.0), sde.T):
        level = sde(t)
        x_t, _ = sde.perturb(x0, torch.full((3,), t, dtype=torch.float64), z)
        x = sg.sample(model, x_t, solver=RK4("lam"), walk=sg.walks.log_snr(sde, 200, start=t))
        ratio = ((end.alpha**2 * v + end.sigma**2) / (level.alpha**2 * v + level.sigma**2)).sqrt()
        close(x, end.alpha * m + ratio * (x_t - level.alpha * m), 1e-6)
        kept.append(float(x[0] - x[1]) / 1.5)
        spread.append(float(x[2] - x[0]))
    assert all(a > b for a, b in pairwise(kept)) and kept[0] > 0.5 > 0.1 > kept[-1]
    distance = [(1 - k) ** 2 * v + s**2 for k, s in zip(kept, spread, strict=True)]
    assert all(a < b for a, b in pairwise(distance))


# -------------------------------------------------------------------------- use, settings, errors


@climbing
@pytest.mark.parametrize(
    "solver", [sg.DDIM(), Heun(), sg.DPMSolverPP(2)], ids=lambda s: type(s).__name__
)
def test_every_solver_takes_them_as_a_grid(solver: sg.Solver, by: walks.Climb) -> None:
    sde = sg.VPSDE()
    model, grid = exact_model(MIXTURE, sde), partial(walks.zigzag, grid=sg.walks.karras, by=by)
    how: dict[str, Any] = {"solver": solver, "seed": 3}
    x = sg.sample(model, (5, 2), steps=12, walk=grid, **how)
    close(x, sg.sample(model, (5, 2), walk=by(sde, sg.walks.karras(sde, 12)), **how), 0)
    close(x[:2], sg.sample(model, (2, 2), steps=12, walk=grid, **how), 1e-12)
    plain = sg.sample(model, (5, 2), steps=12, walk="karras", **how)
    assert float((x - plain).abs().min()) > 1e-6


@pytest.mark.parametrize("name", ["ancestral", "churn", "restart", "repaint"])
def test_settings_build_a_climbing_grid(name: str) -> None:
    from hydra import compose, initialize_config_module

    from sdegen.cli.main import store_groups
    from sdegen.runs.build import build

    store_groups()
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        for grid in ("uniform", "karras", "log_snr"):
            arguments = [f"walk={name}", f"walk@walk.grid={grid}", "run=x", "name=x"]
            for sde in (sg.VPSDE(), DDPM):
                walk = build(compose("sample", arguments).walk)(sde, 30)
                assert climbs(walk) > 1 and climbs(GRIDS[grid](sde, 30)) == 0
                assert set(GRIDS[grid](sde, 30).tolist()) <= set(walk.tolist())


@pytest.mark.parametrize("name", ["leading", "trailing", "linspace", "ddim_quadratic"])
def test_settings_build_ddpms_grids(name: str) -> None:
    from hydra import compose, initialize_config_module

    from sdegen.cli.main import store_groups
    from sdegen.runs.build import build

    store_groups()
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        grid: Grid = build(compose("sample", [f"walk={name}", "run=x", "name=x"]).walk)
    close(grid(DDPM, 9), GRIDS[name](DDPM, 9), 0)


class Drifting(sg.SDE):
    """No marginals: dx = dw."""

    T, t_min = 1.0, 1e-3

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.ones((), dtype=x.dtype)

    @property
    def prior(self) -> sg.Prior:
        return sg.Prior(1.0)


@climbing
def test_only_linear_sdes_climb(by: walks.Climb) -> None:
    with refused("needs alpha and sigma, but Drifting gives only drift and diffusion: leave"):
        by(Drifting(), sg.walks.uniform(Drifting(), 5))
    with refused("whose times fall; these climb already"):
        by(sg.VPSDE(), torch.tensor([1.0, 0.5, 0.6, 0.1]))


def restarting(*interval: float) -> Callable[[], Tensor]:
    given: Sequence[Any] = [interval]
    return lambda: walks.restart(sg.EDMSDE(), sg.walks.karras(sg.EDMSDE(), 17), given)


GRID = sg.walks.karras(sg.EDMSDE(), 17)
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "eta": (lambda: walks.ancestral(sg.EDMSDE(), GRID, -0.1), "eta >= 0, but eta = -0.1"),
    "eta is nan": (lambda: walks.ancestral(sg.EDMSDE(), GRID, math.nan), "but eta = nan"),
    "S_churn": (lambda: walks.churn(sg.EDMSDE(), GRID, -1.0), "S_churn >= 0, but S_churn = -1.0"),
    "above T": (restarting(0.06, 81.0, 1, 2), r"at most 80 = rho\(T\), but rho_max = 81"),
    "not up": (restarting(0.3, 0.06, 1, 2), "to a rho above it .* but rho_max = 0.06"),
    "nearest is above": (
        restarting(0.05, 0.059, 1, 2),
        "from rho = 0.0599.*, the walk's nearest to 0.05",
    ),
    "no K": (restarting(0.06, 0.3, 0, 2), "restart's K must be a whole number >= 1, but it is 0"),
    "no n": (restarting(0.06, 0.3, 1, 0), "steps >= 1, but steps = 0"),
    "three": (restarting(0.06, 0.3, 1), r"An interval is \(rho_min, rho_max, K, n\), but"),
    "jump": (
        lambda: walks.repaint(sg.EDMSDE(), GRID, 0),
        "jump_length must be a whole number >= 1",
    ),
    "resamplings": (lambda: walks.repaint(sg.EDMSDE(), GRID, 2, 0), "resamplings must be a whole"),
    "edm of one": (lambda: recipes.edm(1), "n >= 2 times, but n = 1"),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_walked_is_refused(wrong: Callable[[], Any], message: str) -> None:
    with refused(message):
        wrong()


@pytest.mark.parametrize(("nfe", "order"), [(1, 4), (11, 4), (12, 4), (39, 4), (40, 5), (100, 5)])
def test_what_is_recommended_keeps_to_its_calls(nfe: int, order: int) -> None:
    how = recipes.recommended(nfe)
    assert how["solver"].order == how["solver"].corrector == order
    assert how["solver"].euler_at_final == (nfe < 12)
    model = sg.ScoreModel(NET, sg.VPSDE())
    assert sg.solve(model, normal(2, 2), **how).nfe.tolist() == [nfe, nfe]
    with refused("nfe must be a whole number >= 1"):
        recipes.recommended(0)


def test_without_a_solver_the_recommended_one_is_taken() -> None:
    model, x = sg.ScoreModel(NET, sg.EDMSDE()), normal(3, 2)
    for nfe in (4, 20, 50):
        how = recipes.recommended(nfe)
        assert torch.equal(sg.sample(model, x, nfe=nfe), sg.sample(model, x, **how))
    solver = recipes.recommended(4)["solver"]
    assert torch.equal(sg.sample(model, x, steps=4), sg.sample(model, x, nfe=4))
    times = sg.walks.log_snr(sg.EDMSDE(), 4)
    own = sg.sample(model, x, solver=solver, walk=times)
    assert torch.equal(sg.sample(model, x, walk=times), own)
    assert torch.equal(sg.sample(model, x, walk="log_snr", nfe=4), own)
    assert sg.solve(model, x, nfe=5, denoise=True).nfe.tolist() == [5, 5, 5]
    for wrong in ({}, {"steps": 3, "nfe": 3}, {"walk": "karras"}):
        with refused("exactly one of steps and nfe"):
            sg.sample(model, x, **wrong)  # type: ignore[arg-type]
    for name in ("steps", "nfe"):
        for n in (2.5, "4", 0):
            with refused(f"{name} must be a whole number >= 1"):
                sg.sample(model, x, **{name: n})  # type: ignore[arg-type]


def test_the_usual_solver_needs_marginals() -> None:
    model = sg.ScoreModel(NET, Plain(), predicts="score")
    with refused("The usual solver needs alpha and sigma, but Plain gives only"):
        sg.sample(model, normal(2, 2), nfe=4)

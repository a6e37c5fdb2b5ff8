"""Walks that climb: the noise of a stochastic sampler, put into the walk of an ODE solver.

Going up is the forward SDE, which is exact; going down is any one-step solver's job. So DDIM(eta),
EDM's churn, Restart and RePaint are plain functions  (sde, times, ...) -> times  of the times of a
grid, whose own times they keep to the last bit:

    sg.sample(model, shape, solver=sg.DDIM(), walk=sg.ancestral(sde, sg.karras(sde, 20)))

and ``zigzag`` makes a grid of a grid and such a function. No walk leaves [t_min, T]: it goes no
further down than t_min and climbs no higher than T, and a climb of which nothing is left is none.
Each asks for a LinearSDE and for times that fall; ValueError otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, sqrt

from sdegen.checks import number, warn, whole
from sdegen.sde.process import SDE, LinearSDE, linear
from sdegen.walks.grids import Grid, karras
from sdegen.walks.walk import check_walk

Climb = Callable[[SDE, Tensor], Tensor]


ROUNDING = 1e-10
"""A climb whose share of the noise is smaller than this is a rounding error."""


def ancestral(sde: SDE, times: Tensor, eta: float = 1.0) -> Tensor:
    """Each step too far down, to rho_down, and back up:  rho_s^2 = rho_down^2 + rho_up^2.

    rho_up = min(rho_s, eta rho_s sqrt(1 - (rho_s / rho_t)^2)), rho = sigma / alpha. DDIM along it
    is DDIM(eta), and DDPM with the small variance at eta = 1; with any other solver it is
    k-diffusion's "ancestral". No network is called down there, but none is trained below t_min
    either: a step that would pass t_min turns there, with less noise, and a warning; one to t_min
    adds none. End the grid above t_min where eta must hold to the end.
    """
    sde, times = check_falling(sde, times, "ancestral")
    if not 0 <= number("eta", eta) < math.inf:
        raise ValueError(f"ancestral needs eta >= 0, but eta = {eta!r}.")
    rho = sde(times).rho
    t, s = rho[:-1], rho[1:]
    keep2 = ((1 - eta**2) + (eta * s / t) ** 2).clamp(0, 1)  # of the variance, on the way down
    down = time_at(sde, s * sqrt(keep2))
    lost = (rho_min(sde) / s) ** 2 - keep2 > 1e-3 * (1 - keep2)
    if short := int((lost & (times[1:] > sde.t_min)).sum()):
        warn(
            f"ancestral turns at t_min = {sde.t_min:g} on {short} of {len(s)} steps that would go "
            f"below it with eta = {eta:g}, and adds less noise than asked: end the grid earlier, "
            "or the SDE later (a smaller t_min)."
        )
    turns = (down < times[1:]) & (1 - keep2 > ROUNDING)
    after = {i: [down[i : i + 1]] for i in turns.nonzero().flatten().tolist()}
    return insert(times, after)


def churn(
    sde: SDE,
    times: Tensor,
    S_churn: float,
    S_min: float = 0.0,
    S_max: float = math.inf,
    hop: bool = False,
) -> Tensor:
    """Before each step from S_min <= rho <= S_max, up by the factor 1 + gamma in rho.

    gamma = min(S_churn / N, sqrt 2 - 1) of N steps, rho = sigma / alpha.  Karras et al. (2022),
    alg. 2.  hop: the walk is followed by ``denoise=True``, EDM's last step to sigma = 0: one
    of the N steps then, and churned like them, so that the walk ends on a climb.
    """
    sde, times = check_falling(sde, times, "churn")
    if not 0 <= number("S_churn", S_churn) < math.inf:
        raise ValueError(f"churn needs S_churn >= 0, but S_churn = {S_churn!r}.")
    n = len(times) - (not hop)
    gamma = min(S_churn / n, math.sqrt(2) - 1)
    rho = sde(times).rho
    up = time_at(sde, (1 + gamma) * rho)
    turns = (S_min <= rho) & (rho <= S_max) & (up > times) & (gamma > ROUNDING)
    after = {i: [up[i : i + 1]] for i in turns[:n].nonzero().flatten().tolist()}
    return insert(times, after)


def restart(
    sde: SDE,
    times: Tensor,
    intervals: Sequence[tuple[float, float, int, int]],
    grid: Grid = karras,
) -> Tensor:
    """On reaching rho_min, climb to rho_max and come down in n steps, K times.

    intervals: (rho_min, rho_max, K, n) each, in rho = sigma / alpha. rho_min is moved to the
    nearest of the walk's times.  grid: of the n steps.  Xu et al. (2023), alg. 1, where
    [N_Restart, K, t_min, t_max] is (t_min, t_max, K, N_Restart - 1).
    """
    sde, times = check_falling(sde, times, "restart")
    rho, top = sde(times).rho, float(sde(sde.T).rho)
    after: dict[int, list[Tensor]] = {}
    for interval in intervals:
        if len(interval) != 4:
            raise ValueError(f"An interval is (rho_min, rho_max, K, n), but this is {interval!r}.")
        rho_min, rho_max, K, n = interval
        whole("restart's K", K)
        i = int((rho - rho_min).abs().argmin())
        if not float(rho[i]) < rho_max <= top * (1 + 1e-6):
            raise ValueError(
                f"restart climbs from rho = {float(rho[i]):g}, the walk's nearest to {rho_min:g}, "
                f"to a rho above it and at most {top:g} = rho(T), but rho_max = {rho_max:g}."
            )
        start = float(time_at(sde, torch.tensor([rho_max], dtype=torch.float64)))
        again = grid(sde, n, start=start, stop=float(times[i]))  # type: ignore[call-arg]
        after.setdefault(i, []).extend([again] * K)
    return insert(times, after)


def repaint(sde: SDE, times: Tensor, jump_length: int = 10, resamplings: int = 10) -> Tensor:
    """After each jump_length steps back up by as many, resamplings - 1 times.

    Counted from the walk's end, and up in one climb.  Lugmayr et al. (2022), app. B.
    """
    _, times = check_falling(sde, times, "repaint")
    j, n = whole("repaint's jump_length", jump_length), len(times) - 1
    again = whole("repaint's resamplings", resamplings) - 1
    return insert(times, {i: [times[i - j : i + 1]] * again for i in range(n, j - 1, -j)})


def multistep(sde: SDE, times: Tensor) -> Tensor:
    """From each of the times but the last down to the last, and up to the next: n steps down.

    Multistep consistency sampling, Song et al. (2023b), alg. 1, along which ``Jump`` asks a
    consistency model nothing but what it was trained for.
    """
    _, times = check_falling(sde, times, "multistep")
    last = times[-1:]
    return torch.cat([torch.cat([t[None], last]) for t in times[:-1]])


def zigzag(sde: SDE, n: int, grid: Grid, by: Climb) -> Tensor:
    """A grid that climbs: by(sde, times) of the n steps of another grid."""
    return by(sde, grid(sde, n))


def check_falling(sde: SDE, times: Tensor, name: str) -> tuple[LinearSDE, Tensor]:
    """The SDE whose rho climbs are said in, and the times of a walk that does not climb yet."""
    sde = linear(sde, name, "leave the noise to the solver, as EulerMaruyama does")
    times = check_walk(sde, times)
    if not bool((times.diff() < 0).all()):
        raise ValueError(f"{name} makes a walk climb whose times fall; these climb already.")
    return sde.reference, times


def rho_min(sde: LinearSDE) -> float:
    """sigma / alpha at t_min."""
    return float(sde(sde.t_min).rho)


def time_at(sde: LinearSDE, rho: Tensor) -> Tensor:
    """The times (n,) at which sigma / alpha = rho, within [t_min, T]."""
    return sde.time(-rho.log()).clamp(sde.t_min, sde.T)


def insert(times: Tensor, after: Mapping[int, Sequence[Tensor]]) -> Tensor:
    """The times, with others put in behind some of them."""
    behind = [(times[i : i + 1], *after.get(i, ())) for i in range(len(times))]
    return torch.cat([part for parts in behind for part in parts])

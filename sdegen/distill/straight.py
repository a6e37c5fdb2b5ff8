"""The one picture of all few-step training:  y = x / (alpha + sigma),  dy/dtau = eps - x0.

On any linear SDE, with tau = sigma / (alpha + sigma), the probability flow is that of the straight
flow (1 - tau) x0 + tau eps: a step of any length is one mean of the velocity u = eps - x0, and
with it both predictions are known, x0 = y - tau u and eps = y + (1 - tau) u, at either end too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sdegen.model.denoiser import Denoiser
from sdegen.sde.level import Level, expand
from sdegen.sde.process import SDE, LinearSDE, has_coordinates, linear


def straightened(sde: SDE, who: str) -> LinearSDE:
    """The SDE as one whose flow can be straightened; ValueError for another."""
    sde = linear(sde, who, "train with dsm_loss")
    if has_coordinates(sde):
        raise ValueError(
            f"{who} needs one tau of each sample, but the levels of {type(sde).__name__} differ "
            "between coordinates."
        )
    return sde


def place(x: Tensor, level: Level) -> Tensor:
    """y = x / (alpha + sigma), (b, *)."""
    return expand(1 / (level.alpha + level.sigma), x) * x


def velocity(model: Denoiser, x: Tensor, level: Level) -> Tensor:
    """u = eps - x0 of states x (b, *) at a level: one network call."""
    u: Tensor = model(x, level).view(-1.0, 1.0)
    return u


def both(x: Tensor, level: Level, u: Tensor) -> tuple[Tensor, Tensor]:
    """x0 and eps (b, *) of states x at a level whose velocity is u."""
    y, tau = place(x, level), expand(level.tau, x)
    return y - tau * u, y + (1 - tau) * u


def moved(x: Tensor, t: Level, s: Level, u: Tensor) -> Tensor:
    """x_s = (alpha_s + sigma_s) (y_t + (tau_s - tau_t) u), (b, *)."""
    y = place(x, t) + expand(s.tau - t.tau, x) * u
    return expand(s.alpha + s.sigma, x) * y


@torch.no_grad()
def heun(teacher: Denoiser, x: Tensor, t: Level, s: Level, one: Tensor | None = None) -> Tensor:
    """x_s by the trapezoidal rule in tau, (b, *): two calls, finite at either end; one, where the
    velocity at t is known."""
    one = velocity(teacher, x, t) if one is None else one
    two = velocity(teacher, moved(x, t, s, one), s)
    return moved(x, t, s, (one + two) / 2)


def times_at(sde: LinearSDE, tau: Tensor) -> Tensor:
    """The times at which sigma / (alpha + sigma) = tau, of its shape, within [t_min, T]."""
    t = sde.time(torch.log1p(-tau) - tau.log()).clamp(sde.t_min, sde.T)
    first, last = ends(sde)
    return torch.where(tau >= first, sde.T, torch.where(tau <= last, sde.t_min, t))


def ends(sde: LinearSDE) -> tuple[float, float]:
    """tau at T and at t_min."""
    return float(sde(sde.T).tau), float(sde(sde.t_min).tau)


@torch.no_grad()
def mean_velocity(teacher: Denoiser, x: Tensor, levels: Sequence[Level]) -> Tensor:
    """The mean of u (b, *) over a teacher's DDIM steps from one level to the next.

    levels: k + 1 of times () or (b,), falling in tau.

        u = sum_j (tau_j - tau_{j+1}) u_j / (tau_0 - tau_k),  so that  moved(x, t, s, u)  is where
    the k steps end. The target of Salimans & Ho (2022), alg. 2, is the x0 of  both(...)  of it for
    k = 2, whose quotient cancels where steps are short; this is a mean.
    """
    total = torch.zeros_like(x)
    for t, s in pairwise(levels):
        u = velocity(teacher, x, t)
        total = total + expand(t.tau - s.tau, x) * u
        x = moved(x, t, s, u)
    return expand(1 / (levels[0].tau - levels[-1].tau), x) * total

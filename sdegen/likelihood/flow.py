"""The probability flow both ways: data to noise and back, and the space in between."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sdegen.likelihood.ground import (
    check_batch,
    check_data,
    level_at_t_min,
    states_at_t_min,
    warn_of_failures,
)
from sdegen.model.denoiser import Denoiser
from sdegen.sampling.plan import plan, spent
from sdegen.sde.level import Instant, Level, expand
from sdegen.sde.process import SDE
from sdegen.solvers import UniPC
from sdegen.solvers.equation import Reverse
from sdegen.solvers.solver import Solver, Tally, check, check_levels, say, walked
from sdegen.walks.grids import Grid
from sdegen.walks.walk import levels


def encode(
    model: Denoiser,
    x: Tensor,
    *,
    solver: Solver | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    walk: str | Grid | Tensor | Sequence[float] | None = None,
) -> Tensor:
    """Where the flow takes data x (b, *): x_T (b, *), which ``decode`` takes back.

    solver: any that follows the flow upward, default UniPC-3 (in 100 steps); DDIM() is DDIM
            inversion, Song, Meng & Ermon (2021), sec. 4.3. steps, nfe and walk as ``solve``'s,
            here run from t_min up to T; data is alpha x at t_min.

    float64 throughout and at the end, whatever x is, but for the network: so that there and back
    is as close as the solver takes it. With a score that is exact the encoding is the data's own,
    whatever the network: Song et al. (2021), sec. 4.3. A sample whose solve fails is NaN, and a
    warning names it. ValueError for a stochastic solver and for data that is not floating.
    """
    solver, steps = defaults(solver, steps, nfe, walk)
    with torch.no_grad():
        y = states_at_t_min(model, check_data(model, x), scaled=True)
        end, tallies, _ = follow(Reverse(model), y, solver, steps, nfe, walk, upward=True)
        z, status = final_states(end, tallies)
    warn_of_failures("encodings", status)
    return z


def decode(
    model: Denoiser,
    z: Tensor,
    *,
    solver: Solver | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    walk: str | Grid | Tensor | Sequence[float] | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Data (b, *) from encodings z (b, *), the way ``encode`` came, in float64 as there.

    temperature: z is multiplied by it first; below 1 it draws samples towards the mode.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be > 0, but it is {temperature!r}.")
    solver, steps = defaults(solver, steps, nfe, walk)
    with torch.no_grad():
        at = level_at_t_min(model.sde)
        start = temperature * check_batch("An encoding", z).to(model.device, torch.float64)
        x, tallies, _ = follow(Reverse(model), start, solver, steps, nfe, walk, upward=False)
        x, status = final_states(x / expand(at.alpha, x) if isinstance(at, Level) else x, tallies)
    warn_of_failures("decodings", status)
    return x


def slerp(a: Tensor, b: Tensor, w: float | Tensor) -> Tensor:
    """Between encodings a and b (n, *) along a great circle: a at w = 0, b at w = 1.

    w: a number, or one per sample (n,). Each pair's angle is its own; the length goes from one to
    the other's evenly, so that what is typical of noise stays so. Shoemake (1985). Of an encoding
    that is zero there is no direction: it takes the other's.
    """
    check_batch("An encoding", a), check_batch("An encoding", b)
    w = torch.as_tensor(w, dtype=a.dtype, device=a.device).reshape(-1, *[1] * (a.ndim - 1))
    long = [v.reshape(len(v), -1).norm(dim=1).reshape(-1, *[1] * (v.ndim - 1)) for v in (a, b)]
    unit = [v / n.where(n > 0, 1.0) for v, n in zip((a, b), long, strict=True)]
    a, b = (torch.where(n > 0, v, w) for n, v, w in zip(long, unit, reversed(unit), strict=True))
    both = a * b
    cos = both.reshape(len(both), -1).sum(1).reshape(-1, *[1] * (a.ndim - 1))
    angle = cos.clamp(-1, 1).arccos()
    sin = angle.sin()
    # Where the two point the same way, or opposite ways, there is no one circle: a straight line.
    straight = sin < 1e-6
    safe = sin.masked_fill(straight, 1.0)
    first = torch.where(straight, 1 - w, ((1 - w) * angle).sin() / safe)
    second = torch.where(straight, w, (w * angle).sin() / safe)
    return (first * a + second * b) * ((1 - w) * long[0] + w * long[1])


# ------------------------------------------------------------------------------------ both ways


def defaults(
    solver: Solver | None, steps: int | None, nfe: int | None, walk: object
) -> tuple[Solver, int | None]:
    """UniPC-3, in 100 steps unless something was said."""
    if (
        solver is None
        and steps is None
        and nfe is None
        and (walk is None or isinstance(walk, str))
    ):
        steps = 100
    return UniPC(3) if solver is None else solver, steps


def final_states(x: Tensor, tallies: Sequence[Tally]) -> tuple[Tensor, Tensor]:
    """Final states x (b, *), NaN where a solve failed, and how each ended, (b,)."""
    _, status = spent(x, tallies, 0, 0)
    return x.masked_fill((status != 0).reshape(-1, *[1] * (x.ndim - 1)), math.nan), status


def check_whole_way(sde: SDE, times: Tensor) -> Tensor:
    """The times of a walk; ValueError unless they fall all the way from T to t_min."""
    climbs = bool((times.diff() > 0).any())
    ends = times[[0, -1]] - times.new_tensor([sde.T, sde.t_min])
    if climbs or bool((ends.abs() > 1e-9 * sde.T).any()):
        how = "climbs" if climbs else f"goes from {float(times[0]):g} to {float(times[-1]):g}"
        raise ValueError(
            f"A walk along the flow falls all the way from T = {sde.T:g} to t_min = "
            f"{sde.t_min:g}; this one {how}."
        )
    return times


def follow(
    p: Reverse,
    x: Tensor,
    solver: Solver,
    steps: int | None,
    nfe: int | None,
    walk: str | Grid | Tensor | Sequence[float] | None,
    upward: bool,
) -> tuple[Tensor, list[Tally], Instant]:
    """States x (b, *) along the flow, up from t_min to T or down: the end, and what it took.

    The level is that of T. ValueError for what is no solver, one that adds noise, steps of one
    that chooses its own, and for a walk of part of the way.
    """
    if not isinstance(solver, Solver):
        raise ValueError(f"A solver is a Solver, such as UniPC(), but it is {solver!r}.")
    if not solver.traits.follows_flow or solver.eta != 0:
        why = f": it adds noise, eta = {say(solver.eta)}" if solver.eta != 0 else " both ways"
        raise ValueError(
            f"{solver} does not follow the probability flow{why}. Use an ODE solver, such as "
            "Euler(), Heun(), UniPC() or AdaptiveRK()."
        )
    if solver.traits.adaptive and steps is not None:
        raise ValueError(
            f"{solver} chooses its own steps, as its tolerances ask for: leave out steps, or give "
            "a solver of fixed ones, such as UniPC()."
        )
    check(solver, p)
    times = check_whole_way(p.sde, plan(p.sde, solver, steps, nfe, walk))
    stops = levels(p.sde, times)
    check_levels(solver, p, stops)
    path, tallies = stops[::-1] if upward else stops, []
    for step in walked(solver, p, x, path, upward=upward):
        x = step.x
        if step.tally is not None:
            tallies.append(step.tally)
    return x, tallies, stops[0]

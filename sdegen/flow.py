"""The probability flow both ways: data to noise and back, and the space in between."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sdegen.grids import Grid, levels
from sdegen.march import plan
from sdegen.reverse import Reverse
from sdegen.score import ScoreModel
from sdegen.sde import SDE, Instant, Level, expand
from sdegen.solvers import UniPC
from sdegen.solvers.solver import Solver, Tally, check, check_levels, walked


def encode(
    model: ScoreModel,
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
            here run from t_min up to T; data is alpha x at t_min. In float32 at least.

    With a score that is exact the encoding is the data's own, whatever the network: Song et al.
    (2021), sec. 4.3. ValueError for a stochastic solver and for data that is not floating.
    """
    solver, steps = defaults(solver, steps, nfe, walk)
    with torch.no_grad():
        y = start_of(model, x, scaled=True).to(torch.promote_types(x.dtype, torch.float32))
        return follow(Reverse(model), y, solver, steps, nfe, walk, upward=True)[0]


def decode(
    model: ScoreModel,
    z: Tensor,
    *,
    solver: Solver | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    walk: str | Grid | Tensor | Sequence[float] | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Data (b, *) from encodings z (b, *), the way ``encode`` came.

    temperature: z is multiplied by it first; below 1 it draws samples towards the mode.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, but it is {temperature!r}.")
    solver, steps = defaults(solver, steps, nfe, walk)
    with torch.no_grad():
        start = temperature * z.to(torch.promote_types(z.dtype, torch.float32))
        x = follow(Reverse(model), start, solver, steps, nfe, walk, upward=False)[0]
        at = bottom(model.sde)
        return x / expand(at.alpha, x) if isinstance(at, Level) else x


def slerp(a: Tensor, b: Tensor, w: float | Tensor) -> Tensor:
    """Between encodings a and b (n, *) along a great circle: a at w = 0, b at w = 1.

    w: a number, or one per sample (n,). Each pair's angle is its own; the length goes from one to
    the other's evenly, so that what is typical of noise stays so. Shoemake (1985).
    """
    w = torch.as_tensor(w, dtype=a.dtype, device=a.device).reshape(-1, *[1] * (a.ndim - 1))
    long = [v.reshape(len(v), -1).norm(dim=1).reshape(-1, *[1] * (a.ndim - 1)) for v in (a, b)]
    cos = (a * b).reshape(len(a), -1).sum(1).reshape(long[0].shape) / (long[0] * long[1])
    angle = cos.clamp(-1, 1).arccos()
    sin = angle.sin()
    # Where the two point the same way, or opposite ways, there is no one circle: a straight line.
    straight = sin < 1e-6
    safe = sin.masked_fill(straight, 1.0)
    first = torch.where(straight, 1 - w, ((1 - w) * angle).sin() / safe)
    second = torch.where(straight, w, (w * angle).sin() / safe)
    return (first * a / long[0] + second * b / long[1]) * ((1 - w) * long[0] + w * long[1])


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


def bottom(sde: SDE) -> Instant:
    """The level at t_min."""
    return sde(torch.tensor(sde.t_min, dtype=torch.float64))


def start_of(model: ScoreModel, x: Tensor, scaled: bool) -> Tensor:
    """Data x (b, *) as float64 states at t_min: alpha x, or x itself."""
    if not x.is_floating_point() or x.ndim < 1 or len(x) == 0:
        raise ValueError(
            f"Data is a floating-point tensor (b, *) with b >= 1, but it is {x.dtype} of shape "
            f"{tuple(x.shape)}; integer images: use bits_per_dim, or elbo with levels."
        )
    at, y = bottom(model.sde), x.to(model.device, torch.float64)
    return expand(at.alpha, y) * y if scaled and isinstance(at, Level) else y


def entire(sde: SDE, times: Tensor) -> Tensor:
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

    The level is that of T. ValueError for a solver that adds noise, and for a walk of part of the
    way.
    """
    if not solver.upward or (solver.eta != 0 and not solver.any_eta):
        raise ValueError(
            f"{solver} does not follow the probability flow both ways: use an ODE solver, such as "
            "UniPC() or AdaptiveRK()."
        )
    check(solver, p)
    if solver.adaptive and steps is None and nfe is None and walk is None:
        steps = 1
    times = entire(p.sde, plan(p.sde, solver, steps, nfe, walk))
    stops = levels(p.sde, times)
    check_levels(solver, p, stops)
    path, tallies = stops[::-1] if upward else stops, []
    for step in walked(solver, p, x, path, upward=upward):
        x = step.x
        if step.tally is not None:
            tallies.append(step.tally)
    return x, tallies, stops[0]

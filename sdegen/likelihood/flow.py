"""The probability flow both ways: data to noise and back, and the space in between."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdegen.model.denoiser import Denoiser
from sdegen.model.score import ScoreModel
from sdegen.sampling.plan import plan, spent
from sdegen.sde.level import NO_SIGNAL, Instant, Level, expand
from sdegen.sde.process import SDE
from sdegen.solvers import UniPC
from sdegen.solvers.equation import Reverse
from sdegen.solvers.solver import Solver, Status, Tally, check, check_levels, say, walked
from sdegen.walks.grids import Grid
from sdegen.walks.walk import levels


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
            here run from t_min up to T; data is alpha x at t_min.

    float64 throughout and at the end, whatever x is, but for the network: so that there and back
    is as close as the solver takes it. With a score that is exact the encoding is the data's own,
    whatever the network: Song et al. (2021), sec. 4.3. A sample whose solve fails is NaN, and a
    warning names it. ValueError for a stochastic solver and for data that is not floating.
    """
    solver, steps = defaults(solver, steps, nfe, walk)
    with torch.no_grad():
        y = start_of(model, x, scaled=True)
        end, tallies, _ = follow(Reverse(model), y, solver, steps, nfe, walk, upward=True)
        return arrived("encodings", end, tallies)


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
    """Data (b, *) from encodings z (b, *), the way ``encode`` came, in float64 as there.

    temperature: z is multiplied by it first; below 1 it draws samples towards the mode.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be > 0, but it is {temperature!r}.")
    solver, steps = defaults(solver, steps, nfe, walk)
    with torch.no_grad():
        at = bottom(model.sde)
        start = temperature * batch("An encoding", z).to(model.device, torch.float64)
        x, tallies, _ = follow(Reverse(model), start, solver, steps, nfe, walk, upward=False)
        return arrived(
            "decodings", x / expand(at.alpha, x) if isinstance(at, Level) else x, tallies
        )


def slerp(a: Tensor, b: Tensor, w: float | Tensor) -> Tensor:
    """Between encodings a and b (n, *) along a great circle: a at w = 0, b at w = 1.

    w: a number, or one per sample (n,). Each pair's angle is its own; the length goes from one to
    the other's evenly, so that what is typical of noise stays so. Shoemake (1985). Of an encoding
    that is zero there is no direction: it takes the other's.
    """
    batch("An encoding", a), batch("An encoding", b)
    w = torch.as_tensor(w, dtype=a.dtype, device=a.device).reshape(-1, *[1] * (a.ndim - 1))
    long = [v.reshape(len(v), -1).norm(dim=1).reshape(-1, *[1] * (v.ndim - 1)) for v in (a, b)]
    there = [v / n.where(n > 0, 1.0) for v, n in zip((a, b), long, strict=True)]
    a, b = (torch.where(n > 0, v, w) for n, v, w in zip(long, there, reversed(there), strict=True))
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


def bottom(sde: SDE) -> Instant:
    """The level at t_min; ValueError where no noise is left there."""
    at = sde(torch.tensor(sde.t_min, dtype=torch.float64))
    if isinstance(at, Level) and not bool(at.sigma > 0):
        raise ValueError(
            f"At t_min = {sde.t_min:g} no noise is left, and so no score: begin the SDE later, as "
            f"{type(sde).__name__}(t_min=1e-5) does."
        )
    return at


def carried(top: Level) -> Level:
    """The level at T; ValueError where nothing is left there of the data's density."""
    if float(top.lam.detach()) < NO_SIGNAL:
        raise ValueError(
            f"At t = {float(top.t):g} no signal is left of the data, whose density cannot be "
            "carried there: end the SDE earlier, as Flow(T=0.999) does."
        )
    return top


def batch(what: str, x: Any) -> Tensor:
    """x itself; ValueError unless it is a batch of floating-point numbers."""
    if not isinstance(x, Tensor):
        raise ValueError(
            f"{what} is a torch.Tensor (b, *), but it is of {type(x).__name__}: "
            "torch.as_tensor makes one."
        )
    if x.ndim < 1 or x.numel() == 0:
        raise ValueError(
            f"{what} is a batch (b, *) with b >= 1, but its shape is {tuple(x.shape)}."
        )
    if not x.is_floating_point():
        raise ValueError(
            f"{what} is of floating-point numbers, but it is {x.dtype}; integer images: use "
            "bits_per_dim, or elbo with levels."
        )
    return x


def within(model: Denoiser, x: Tensor) -> Tensor:
    """Data x (b, *) itself; ValueError where it leaves the model's ``data_range``, as NaN does
    not."""
    known = getattr(model, "data_range", None)
    if known is None:
        return x
    low, high = known
    more = 1e-6 * (high - low)  # of rounding
    out = ((x < low - more) | (x > high + more)).reshape(len(x), -1).any(1)
    if bool(out.any()):
        i = int(out.nonzero()[0])
        raise ValueError(
            f"The model was trained on data in [{low:g}, {high:g}], but sample {i} reaches "
            f"from {float(x[i].min()):g} to {float(x[i].max()):g}: scale it as the training "
            "data was."
        )
    return x


def start_of(model: Denoiser, x: Tensor, scaled: bool) -> Tensor:
    """Data x (b, *) as float64 states at t_min: alpha x, or x itself."""
    at, y = bottom(model.sde), within(model, batch("Data", x)).to(model.device, torch.float64)
    return expand(at.alpha, y) * y if scaled and isinstance(at, Level) else y


def arrived(what: str, x: Tensor, tallies: Sequence[Tally]) -> Tensor:
    """Final states x (b, *), NaN where a solve failed, with a warning."""
    _, status = spent(x, tallies, 0, 0)
    warn_of(what, status, stacklevel=4)
    return x.masked_fill((status != 0).reshape(-1, *[1] * (x.ndim - 1)), math.nan)


def failures(status: Tensor) -> list[int]:
    """The places of samples that failed, of values of ``Status`` (b,)."""
    places: list[int] = status.nonzero().flatten().tolist()
    return places


def warn_of(what: str, status: Tensor, stacklevel: int) -> None:
    """Name the samples that failed, and why, from values of ``Status`` (b,)."""
    if failed := failures(status):
        reasons = sorted({Status(each).name for each in status.tolist() if each})
        message = f"The {what} of samples {failed} are NaN: {', '.join(reasons)}."
        warnings.warn(message, stacklevel=stacklevel)


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
    times = entire(p.sde, plan(p.sde, solver, steps, nfe, walk))
    stops = levels(p.sde, times)
    check_levels(solver, p, stops)
    path, tallies = stops[::-1] if upward else stops, []
    for step in walked(solver, p, x, path, upward=upward):
        x = step.x
        if step.tally is not None:
            tallies.append(step.tally)
    return x, tallies, stops[0]

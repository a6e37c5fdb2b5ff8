"""The probability flow both ways: data to noise and back, and the space in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.checks import accepted
from sdegen.likelihood.ground import (
    check_batch,
    check_data,
    states_at,
    warn_of_failures,
)
from sdegen.model.denoiser import Denoiser
from sdegen.noise.source import Fresh
from sdegen.sampling.choice import chosen
from sdegen.sampling.plan import WAY, Plan, Way, calls_and_status
from sdegen.sde.level import NO_SIGNAL, Level, expand
from sdegen.sde.process import LinearSDE
from sdegen.solvers import Heun, UniPC
from sdegen.solvers.equation import Reverse
from sdegen.solvers.solver import Solver, Tally, asked_finite, no_value, say, walked
from sdegen.walks.walk import Walk

if TYPE_CHECKING:
    from typing_extensions import Unpack


def encode(
    model: Denoiser,
    x: Tensor,
    **how: Unpack[Way],
) -> Tensor:
    """Where the flow takes data x (b, *): x_T (b, *), which ``decode`` takes back.

    solver: any that follows the flow upward, default UniPC-3, or Heun in t where the SDE has no
            marginals (in 100 steps); DDIM() is DDIM inversion, Song, Meng & Ermon (2021), sec.
            4.3. steps, nfe and walk as in ``Way``, here run up from the walk's end to its start,
            from t_min to T by default; data is alpha x at its end. A walk of part of the way, as
            DDIM's own spacings are (``walks.leading``), gives x_t where it starts.

    float64 throughout and at the end, whatever x is, but for the network: so that there and back
    is as close as the solver takes it. With a score that is exact the encoding is the data's own,
    whatever the network: Song et al. (2021), sec. 4.3. A sample whose solve fails is NaN, and a
    warning names it. ValueError for a stochastic solver and for data that is not floating.
    """
    accepted("encode", how, WAY)
    with torch.no_grad():
        check_data(model, x)
        plan = flow_plan(model, x, how)
        check_ends(plan)
        y = states_at(model, x, plan.walk[-1])
        z, status = final_states(*along(plan, plan.equation, y, upward=True))
    warn_of_failures("encodings", status)
    return z


def decode(
    model: Denoiser,
    z: Tensor,
    *,
    temperature: float = 1.0,
    **how: Unpack[Way],
) -> Tensor:
    """Data (b, *) from encodings z (b, *), the way ``encode`` came, in float64 as there.

    temperature: z is multiplied by it first; below 1 it draws samples towards the mode.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be > 0, but it is {temperature!r}.")
    accepted("decode", how, WAY | {"temperature"})
    with torch.no_grad():
        start = temperature * check_batch("An encoding", z).to(model.device, torch.float64)
        plan = flow_plan(model, start, how)
        at = plan.walk[-1]
        x, tallies = along(plan, plan.equation, start, upward=False)
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


def final_states(x: Tensor, tallies: Sequence[Tally]) -> tuple[Tensor, Tensor]:
    """Final states x (b, *), NaN where a solve failed, and how each ended, (b,)."""
    _, status = calls_and_status(x, tallies, 0)
    return x.masked_fill((status != 0).reshape(-1, *[1] * (x.ndim - 1)), math.nan), status


def check_ends(plan: Plan) -> None:
    """Refuse the way up from a level without noise, or to one without signal, where a solver has
    no value to work with."""
    for at in (plan.walk[-1], plan.walk[0]):
        if not isinstance(at, Level) or bool(((at.sigma > 0) & (at.lam > NO_SIGNAL)).all()):
            continue
        if plan.solver.traits.needs_marginals or not asked_finite(plan.solver, plan.equation, at):
            raise ValueError(no_value(plan.solver, plan.equation, at))


def check_whole_way(walk: Walk) -> Walk:
    """A walk itself; ValueError unless it falls all the way from T to t_min."""
    sde, times = walk.sde, walk.times
    ends = times[[0, -1]] - times.new_tensor([sde.T, sde.t_min])
    if walk.climbs or bool((ends.abs() > 1e-9 * sde.T).any()):
        how = "climbs" if walk.climbs else f"goes from {float(times[0]):g} to {float(times[-1]):g}"
        raise ValueError(
            f"A walk along the flow falls all the way from T = {sde.T:g} to t_min = "
            f"{sde.t_min:g}; this one {how}."
        )
    return walk


def flow_plan(model: Denoiser, x: Tensor, how: Way, default: Solver | None = None) -> Plan:
    """The plan of the flow of states like x (b, *), for ``along`` to follow.

    default: the solver where none is given; if that is None too UniPC-3, or Heun in t where the
    SDE has no marginals, in 100 steps where nothing is said of them.

    ValueError for what is no solver, one that adds noise, steps of one that chooses its own, and
    for a walk that climbs.
    """
    steps, nfe, walk = how.get("steps"), how.get("nfe"), how.get("walk")
    asked = how.get("solver") or default
    if asked is None:
        asked = UniPC(3) if isinstance(model.sde, LinearSDE) else Heun()
        if steps is None and nfe is None and (walk is None or isinstance(walk, str)):
            steps = 100
    solver, walk, _ = chosen(model, tuple(x.shape), asked, steps, nfe, walk)
    check_flow(solver, steps)
    # A graph: the plain loop's steps, whose states may have gradients.
    plan = Plan.of(
        model, x, solver=solver, steps=steps, nfe=nfe, walk=walk, noise=Fresh(), graph=True
    )
    if plan.walk.climbs:
        raise ValueError("A walk along the flow falls at every step, but this one climbs.")
    return plan


def check_flow(solver: Solver, steps: int | None) -> None:
    """Refuse a solver that cannot follow the flow both ways, and steps of one without any."""
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


def along(plan: Plan, p: Reverse, x: Tensor, upward: bool) -> tuple[Tensor, list[Tally]]:
    """States x (b, *) of an equation along a plan's walk, up from t_min to T or down: the end.

    And what each step says that it took.
    """
    levels, tallies = plan.walk.levels, list[Tally]()
    for step in walked(plan.solver, p, x, levels[::-1] if upward else levels, upward=upward):
        x = step.x
        if step.tally is not None:
            tallies.append(step.tally)
    return x, tallies

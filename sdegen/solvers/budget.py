"""How far a budget goes: from steps, network calls or times to the walk that a solver takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from inspect import signature
from itertools import pairwise

import torch
from torch import Tensor

from sdegen.checks import fixed, number, one_of, optional, whole
from sdegen.sde.process import SDE, LinearSDE
from sdegen.solvers.solver import Solver, may_arrive, noiseless
from sdegen.walks.grids import GRIDS, Grid, WalkLike, as_times, gridded
from sdegen.walks.walk import Walk

MOST = 10_000_000
"""Steps of a walk, whose levels are all made beforehand."""


def walk_for(
    solver: Solver,
    sde: SDE,
    *,
    steps: int | None = None,
    nfe: int | None = None,
    walk: WalkLike | None = None,
    spare: int = 0,
    t: float | None = None,
) -> Walk:
    """The walk that so many steps, or network calls, of a solver are, or that was given as times.

    walk:  default log_snr where the SDE has marginals, uniform otherwise, unless the solver comes
           with one.
    spare: network calls that are set aside, as for a last one that denoises.
    t:     the time that it begins at, default T.

    ValueError for a budget that is too small, or that is given twice or not at all; a solver that
    chooses its own steps needs none.
    """
    for name, count in (("steps", steps), ("nfe", nfe)):
        optional(whole, name, count)
        if count is not None and count > MOST:
            raise ValueError(f"{name} = {count:g} is more than the {MOST:,} that a walk may have.")
    walk = as_times(walk)
    if solver.traits.own_walk is not None:
        return check_start(own_walk(solver, sde, steps, nfe, walk, spare), t)
    if isinstance(walk, Tensor | Sequence) and not isinstance(walk, str):
        if steps is not None or nfe is not None:
            said = {"steps": steps, "nfe": nfe}
            typed = " and ".join(f"{key} = {n}" for key, n in said.items() if n is not None)
            raise ValueError(
                f"A walk given as times has its own number of steps: leave out {typed}."
            )
        return check_start(timed(sde, walk), t)
    make = grid_of(sde, walk)
    if t is not None:
        make = begun_at(sde, make, t)
    if (steps is None) == (nfe is None):
        if steps is not None or not solver.traits.adaptive:
            raise ValueError(
                f"Give exactly one of steps and nfe, but steps = {steps} and nfe = {nfe}."
            )
        steps = 1
    if steps is not None:
        return gridded(sde, make, steps)
    assert nfe is not None
    return within(solver, sde, make, nfe, spare)


def own_walk(
    solver: Solver,
    sde: SDE,
    steps: int | None,
    nfe: int | None,
    walk: WalkLike | None,
    spare: int,
) -> Walk:
    """The walk that a solver comes with; ValueError where another is asked for."""
    assert solver.traits.own_walk is not None
    n = len(solver.traits.own_walk) - 1
    if spare and solver.traits.own_levels:
        raise ValueError(
            f"{type(solver).__name__} walks its own walk, and its network was never trained where "
            "that ends, which denoise=True would ask it at: leave it out."
        )
    calls = solver.calls(n) + spare
    if walk is not None or steps not in (None, n) or nfe not in (None, calls):
        raise ValueError(
            f"{type(solver).__name__} comes with its own walk of {n} steps and {calls} "
            "network calls: leave out walk, steps and nfe."
        )
    return Walk(sde, torch.tensor(solver.traits.own_walk, dtype=torch.float64))


def timed(sde: SDE, walk: Tensor | Sequence[float] | Walk) -> Walk:
    """The walk of times; one already made, if its levels are bound to be the same today."""
    if not isinstance(walk, Walk):
        return Walk(sde, walk)  # type: ignore[arg-type]
    return walk if fixed(sde) and walk.sde == sde else Walk(sde, walk.times)


def check_start(walk: Walk, t: float | None) -> Walk:
    """A walk itself; ValueError where it does not begin at the time that states are said to be."""
    first = float(walk.times[0])
    if t is not None and abs(first - t) > 1e-6 * walk.sde.T:
        raise ValueError(
            f"The states are said to be at t = {t:g}, but the walk begins at {first:g}: give one "
            "that begins there, or a grid, which then does."
        )
    return walk


def begun_at(sde: SDE, make: Grid, t: float) -> Grid:
    """A grid that begins at a time up to T; ValueError where it cannot, or nothing lies below."""
    if not sde.t_min < number("t", t) <= sde.T:
        raise ValueError(
            f"States are at a time t_min < t <= T, ({sde.t_min:g}, {sde.T:g}] of "
            f"{type(sde).__name__}, but t = {t:g}."
        )
    if "start" not in signature(make).parameters:
        name = getattr(make, "__name__", repr(make))
        raise ValueError(
            f"The grid {name} takes no start, so that it cannot begin at t = {t:g}: use one that "
            "does, as log_snr and uniform do, or give the times themselves."
        )
    return partial(make, start=t)  # type: ignore[call-arg]


def grid_of(sde: SDE, walk: str | Grid | None) -> Grid:
    """A grid by its name, or itself; by default the SDE's usual one."""
    if walk is None:
        walk = "log_snr" if isinstance(sde, LinearSDE) else "uniform"
    if isinstance(walk, str):
        grid: Grid = one_of(walk, "walk", GRIDS)
        return grid
    if not callable(walk):
        raise ValueError(
            "A walk is a grid's name, a grid (sde, n) -> times, or the times (n + 1,) themselves, "
            f"but it is {walk!r}."
        )
    return walk


def within(solver: Solver, sde: SDE, make: Grid, nfe: int, spare: int) -> Walk:
    """The longest walk of a grid that keeps to so many network calls."""
    name = type(solver).__name__
    if solver.traits.adaptive:
        raise ValueError(f"{name} spends what its tolerances ask for: it takes no nfe.")
    steps = next((n for n in range(nfe, 0, -1) if solver.calls(n) + spare <= nfe), 0)
    if steps < 1:
        raise ValueError(
            f"{name} needs at least {solver.calls(1) + spare} network calls, but nfe = {nfe}."
        )
    walk = gridded(sde, make, steps)
    # A walk that climbs comes down oftener than its grid has steps.
    while calls_along(solver, walk) + spare > nfe:
        steps -= 1
        if steps < 1:
            raise ValueError(f"No number of steps of this walk keeps to nfe = {nfe}: give steps.")
        walk = gridded(sde, make, steps)
    return walk


def calls_along(solver: Solver, walk: Walk) -> int:
    """Network calls of a solver of fixed steps along a walk.

    Nothing is remembered over a climb, so that each way down starts as the first does; and a step
    to where there is no noise is one call, whatever the others are.
    """
    times = walk.times.tolist()
    low = min(times)
    arrives = may_arrive(solver) and bool(noiseless([walk.sde(walk.times.min())]))
    calls = run = 0
    for t, s in pairwise([*times, math.inf]):
        if s < t and not (arrives and s == low):
            run += 1
            continue
        calls += (solver.calls(run) if run else 0) + (s < t)
        run = 0
    return calls

"""The loop from noise to data along a walk: ``march`` is it, ``solve`` and ``sample`` call it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.brownian import Brownian
from sdegen.grids import GRIDS, Grid, check_walk, levels
from sdegen.noise import Fresh, Noise, Seeded
from sdegen.reverse import Eta, Reverse, climb
from sdegen.score import ScoreModel, one_of
from sdegen.sde import SDE, Instant, Level, LinearSDE
from sdegen.solvers.solver import Solver, Status, Tally, check, check_levels


class State(NamedTuple):
    """Where a march is: the level, the states (b, *) there, and what was spent if it varies."""

    level: Instant
    x: Tensor
    tally: Tally | None = None


class Path(NamedTuple):
    """The states on the way: times (k,), states (k, b, *), from noise to data."""

    t: Tensor
    x: Tensor


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solve returns.

    x:      samples (b, *)
    nfe:    network calls spent on each sample, (b,) int64, counted where the network is called
    status: how each sample ended, (b,) int8 on x's device, values of ``Status``; a sample that
            did not reach the end is NaN
    path:   the states on the way if they were asked for
    """

    x: Tensor
    nfe: Tensor
    status: Tensor
    path: Path | None = None


@torch.no_grad()
def march(solver: Solver, p: Reverse, x: Tensor, walk: Sequence[Instant]) -> Iterator[State]:
    """Step x (b, *) from each level of the walk to the next, yielding every state reached.

    Down is the solver's job; up, where a walk climbs, is the SDE's own forward step. The loop is
    the caller's: saving, stopping, timing and progress are a plain ``for`` around it. It reads
    nothing back from the device.
    """
    check(solver, p)
    check_levels(solver, p, walk)
    stops = list(pairwise(walk))
    times = torch.stack([level.t for level in walk]).reshape(len(walk), -1)[:, 0].tolist()
    ups = [s > t for t, s in pairwise(times)]
    memory = None
    for q, (t, s), up in zip(p.each(len(stops)), stops, ups, strict=True):
        if up:
            x, memory, tally = climb(q, x, t, s), None, None  # type: ignore[arg-type]
        else:
            x, memory, tally = solver.step(q, x, t, s, memory)
        yield State(s, x, tally)


@torch.no_grad()
def solve(
    model: ScoreModel,
    start: Sequence[int] | Tensor,
    *,
    solver: Solver,
    steps: int | None = None,
    nfe: int | None = None,
    walk: str | Grid | Tensor | Sequence[float] | None = None,
    eta: Eta | None = None,
    seed: int | Sequence[int] | None = None,
    noise: Noise | None = None,
    denoise: bool = False,
    path: bool = False,
) -> Solution:
    """Integrate the reverse equation of a score model from noise to data.

    start:   a shape (b, *) to draw from the SDE's prior, or the states x_T (b, *) to start from.
    steps:   solver steps; or ``nfe``: as many steps as that many network calls allow.
    walk:    a grid by name ("log_snr", "karras", "uniform", "quadratic"), a grid function
             (sde, n) -> times, or the times themselves (n + 1,), which may climb (walks.py).
             Default: log_snr where the SDE has marginals, uniform otherwise.
    eta:     0 for the probability-flow ODE, 1 for Song et al.'s reverse SDE, a function of lam or
             one number per step; default the solver's.
    seed:    an int (sample i has stream (seed, i)) or one int per sample; or ``noise``, a source.
             Neither: torch's own generator.
    denoise: end at E[x0 | x] of the last state, for one more network call (Tweedie's formula).
    path:    keep every state.

    ValueError, before anything runs, for a combination that cannot be solved.
    """
    sde = model.sde
    eta = solver.eta if eta is None else eta
    p = Reverse(model, eta, source(seed, noise, solver, sde))
    check(solver, p)
    if denoise and not isinstance(sde, LinearSDE):
        raise ValueError(f"denoise needs alpha and sigma, which {type(sde).__name__} has not.")
    times = plan(sde, solver, steps, nfe, walk, spare=int(denoise))
    stops = levels(sde, times)
    x = begin(p, start, stops[0])
    before, t, states = model.nfe, [stops[0].t], [x]
    calls = torch.zeros(len(x), dtype=torch.int64)
    status = torch.zeros(len(x), dtype=torch.int8, device=x.device)
    for level, moved, tally in march(solver, p, x, stops):
        x = moved
        calls += model.nfe - before if tally is None else tally.nfe
        before = model.nfe
        if tally is not None:
            status = torch.maximum(status, tally.status)
        if path:
            t.append(level.t)
            states.append(x)
    if denoise:
        x = model(x, stops[-1]).x0
        calls += 1
        t.append(stops[-1].t)
        states.append(x)
    sick = ~x.isfinite().reshape(len(x), -1).all(1)
    status = torch.where((status == 0) & sick, int(Status.NONFINITE), status).to(torch.int8)
    kept = Path(torch.stack(t), torch.stack(states)) if path else None
    return Solution(x, calls, status, kept)


def sample(
    model: ScoreModel, start: Sequence[int] | Tensor, *, solver: Solver, **how: Any
) -> Tensor:
    """The samples (b, *) of ``solve``, whose arguments these are."""
    return solve(model, start, solver=solver, **how).x


def source(
    seed: int | Sequence[int] | None, noise: Noise | None, solver: Solver, sde: SDE
) -> Noise:
    """The noise source that a seed or a source names; one path where the solver needs one."""
    if seed is not None and noise is not None:
        raise ValueError("Give a seed or a noise source, not both.")
    if noise is not None:
        return noise
    if solver.path:
        drawn = int(torch.randint(2**63 - 1, ()))
        return Brownian(drawn if seed is None else seed, sde.T)
    return Fresh() if seed is None else Seeded(seed)


def plan(
    sde: SDE,
    solver: Solver,
    steps: int | None,
    nfe: int | None,
    walk: str | Grid | Tensor | Sequence[float] | None,
    spare: int = 0,
) -> Tensor:
    """The times of the walk that ``solve``'s arguments describe, ``spare`` calls set aside."""
    if isinstance(walk, Tensor) or (isinstance(walk, Sequence) and not isinstance(walk, str)):
        if steps is not None or nfe is not None:
            raise ValueError("A walk given as times has its own number of steps: leave out steps.")
        return check_walk(sde, torch.as_tensor(walk, dtype=torch.float64))
    if (steps is None) == (nfe is None):
        if steps is not None or not solver.adaptive:
            raise ValueError(
                f"Give exactly one of steps and nfe, but steps = {steps} and nfe = {nfe}."
            )
        steps = 1
    if nfe is not None:
        if solver.adaptive:
            raise ValueError(
                f"{type(solver).__name__} spends what its tolerances ask for: it takes no nfe."
            )
        steps = next((n for n in range(nfe, 0, -1) if solver.calls(n) + spare <= nfe), 0)
        if steps < 1:
            raise ValueError(
                f"{type(solver).__name__} needs at least {solver.calls(1) + spare} network calls, "
                f"but nfe = {nfe}."
            )
    assert steps is not None
    default = "log_snr" if isinstance(sde, LinearSDE) else "uniform"
    grid = default if walk is None else walk
    make: Grid = one_of(grid, "walk", GRIDS) if isinstance(grid, str) else grid
    times = check_walk(sde, make(sde, steps))
    # A walk that climbs comes down oftener than its grid has steps.
    while nfe is not None and solver.calls(int((times.diff() < 0).sum())) + spare > nfe:
        steps -= 1
        if steps < 1:
            raise ValueError(f"No number of steps of this walk keeps to nfe = {nfe}: give steps.")
        times = check_walk(sde, make(sde, steps))
    return times


def begin(p: Reverse, start: Sequence[int] | Tensor, top: Instant) -> Tensor:
    """The states (b, *) to start from: those given, or draws from the prior.

    Below T the prior of a linear SDE is scaled as sigma is: a VE walk from a smaller sigma starts
    from that sigma.
    """
    if isinstance(start, Tensor):
        if not start.is_floating_point() or start.ndim < 1 or len(start) == 0:
            raise ValueError(
                "x_T must be a floating-point tensor (b, *) with b >= 1, but it is "
                f"{start.dtype} of shape {tuple(start.shape)}."
            )
        return start
    shape = tuple(start)
    if not shape or not all(isinstance(n, Integral) and n >= 1 for n in shape):
        raise ValueError(f"A shape (b, *) has positive whole numbers, but it is {shape!r}.")
    dtype = p.model.dtype or torch.get_default_dtype()
    like = torch.empty(
        shape, device=p.model.device, dtype=torch.promote_types(dtype, torch.float32)
    )
    x = p.sde.prior.sample(p.noise.stream("prior")(like, top, top))
    if isinstance(p.sde, LinearSDE) and isinstance(top, Level):
        x = x * (top.sigma / p.sde(p.sde.T).sigma)
    return x

"""The loop from noise to data along a walk: ``march`` is it, ``solve`` and ``sample`` call it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.model.score import ScoreModel
from sdegen.noise.source import Noise
from sdegen.programs.remembered import programmed
from sdegen.sampling.plan import begin, plan, settled, source, spent
from sdegen.sde.level import Instant
from sdegen.sde.process import linear
from sdegen.solvers.equation import Eta, Reverse
from sdegen.solvers.solver import Solver, Tally, check, check_levels, check_path, walked
from sdegen.walks.grids import Grid
from sdegen.walks.walk import levels


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
    check_path(p, torch.stack([level.t for level in walk]).reshape(len(walk), -1)[:, 0].tolist())
    for s, step in zip(walk[1:], walked(solver, p, x, walk), strict=True):
        yield State(s, step.x, step.tally)


@torch.no_grad()
def solve(
    model: ScoreModel,
    start: Sequence[int] | Tensor,
    *,
    solver: Solver | str | None = None,
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
    solver:  a Solver; default what ``recipes.recommended`` says for so many network calls, on its
             walk; or "auto", which probes some for this model and this nfe, and prints which
             one it took and why; its probes are not counted in the solution's nfe.
    steps:   solver steps; or ``nfe``: as many steps as that many network calls allow.
    walk:    a grid by name ("log_snr", "karras", "uniform", "quadratic"), a grid function
             (sde, n) -> times, or the times themselves (n + 1,), which may climb.
             Default: log_snr where the SDE has marginals, uniform otherwise, unless the solver
             comes with one.
    eta:     0 for the probability-flow ODE, 1 for Song et al.'s reverse SDE, a function of lam or
             one number per step; default the solver's.
    seed:    an int (sample i has stream (seed, i)) or one int per sample; or ``noise``, a source.
             Neither: torch's own generator.
    denoise: end at E[x0 | x] of the last state, for one more network call (Tweedie's formula).
    path:    keep every state.

    A solver whose steps are linear runs as its program (programs/), any other step by step.
    ValueError, before anything runs, for a combination that cannot be solved.
    """
    solver, walk = settled(solver, model, start, steps, nfe, walk, denoise)
    before, made = model.nfe, source(seed, noise, solver, model.sde)
    journey = travel(model, start, solver, steps, nfe, walk, eta, made, denoise)
    t, states, tallies = list[Tensor](), list[Tensor](), list[Tally]()
    for level, x, tally in journey:
        if tally is not None:
            tallies.append(tally)
        if path:
            t.append(level.t)
            states.append(x.clone())
    kept = Path(torch.stack(t), torch.stack(states)) if path else None
    return Solution(x, *spent(x, tallies, model.nfe - before, int(denoise)), kept)


@torch.no_grad()
def sample(
    model: ScoreModel,
    start: Sequence[int] | Tensor,
    *,
    solver: Solver | str | None = None,
    steps: int | None = None,
    nfe: int | None = None,
    walk: str | Grid | Tensor | Sequence[float] | None = None,
    eta: Eta | None = None,
    seed: int | Sequence[int] | None = None,
    noise: Noise | None = None,
    denoise: bool = False,
) -> Tensor:
    """The samples (b, *) of ``solve``, whose arguments these are, and nothing else."""
    solver, walk = settled(solver, model, start, steps, nfe, walk, denoise)
    made = source(seed, noise, solver, model.sde)
    for _, x, _ in travel(model, start, solver, steps, nfe, walk, eta, made, denoise):  # noqa: B007
        pass
    return x


def travel(
    model: ScoreModel,
    start: Sequence[int] | Tensor,
    solver: Solver,
    steps: int | None,
    nfe: int | None,
    walk: str | Grid | Tensor | Sequence[float] | None,
    eta: Eta | None,
    noise: Noise,
    denoise: bool,
) -> Iterator[State]:
    """The states that ``solve``'s arguments lead through, the start among them.

    Each is overwritten on the way to the next where the solver runs as a program. For a caller who
    has switched gradients off: a generator that does so itself pays for it at every step.
    """
    sde = model.sde
    p = Reverse(model, solver.eta if eta is None else eta, noise)
    check(solver, p)
    if denoise:
        linear(sde, "denoise", "leave it out")
    times = plan(sde, solver, steps, nfe, walk, spare=int(denoise))
    check_path(p, times.tolist())
    program = programmed(solver, model, p.eta, times)
    stops = levels(sde, times) if program is None else program.walk
    x = begin(p, start, stops[0])
    yield State(stops[0], x)
    states: Iterable[State] = (
        march(solver, p, x, stops)
        if program is None
        else map(State, stops[1:], program.execute(model, x, noise))
    )
    for state in states:
        yield state
        x = state.x
    if denoise:
        yield State(stops[-1], model(x, stops[-1]).x0)

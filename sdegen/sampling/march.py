"""The loop from noise to data along a walk: ``march``, and ``solve`` and ``sample`` of a Plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sdegen.checks import accepted, uncallable, warn
from sdegen.model.denoiser import Denoiser
from sdegen.model.network import version
from sdegen.sampling.gradients import Checkpointed, allowed, with_graph
from sdegen.sampling.plan import HOW, How, Plan, begin, calls_and_status
from sdegen.sampling.watch import Watch
from sdegen.sde.level import Instant
from sdegen.solvers.equation import Reverse
from sdegen.solvers.solver import (
    Solver,
    Status,
    Step,
    Tally,
    check,
    check_levels,
    check_path,
    walked,
)
from sdegen.walks.walk import Walk

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
            did not reach the end is NaN; NOISY where the walk ends above t_min
    path:   the states on the way if they were asked for
    solver, walk: those given, or those that were chosen
    choice: what a Chooser said, which ``print`` shows: "auto" says why; None without one
    """

    x: Tensor
    nfe: Tensor
    status: Tensor
    path: Path | None = None
    solver: Solver | None = None
    walk: Walk | None = None
    choice: Any = None


@torch.no_grad()
def march(solver: Solver, p: Reverse, x: Tensor, walk: Sequence[Instant]) -> Iterator[State]:
    """Step x (b, *) from each level of the walk to the next, yielding every state reached.

    walk: a ``Walk``, or levels.  Down is the solver's job; up, where a walk climbs, is the SDE's
    own forward step. The loop is the caller's: saving, stopping, timing and progress are a plain
    ``for`` around it. It reads nothing back from the device. A state may be written into, as by
    ``state.x.clamp_(-1, 1)``: the next step begins where it is then, and a solver that remembers
    earlier ones forgets them, as at the walk's start. A write by NumPy or through ``.data``
    is not seen.
    """
    listed = isinstance(walk, Sequence) and all(isinstance(level, Instant) for level in walk)
    if not listed or not walk:
        found = "it has none" if listed else f"it is of {type(walk).__name__}"
        raise ValueError(
            f"march takes a Walk, or a list of levels, not times, but {found}: give "
            "sg.walks.levels(model.sde, times)."
        )
    check(solver, p)
    check_levels(solver, p, walk)
    check_path(p, torch.stack([level.t for level in walk]).reshape(len(walk), -1)[:, 0].tolist())
    for s, step in zip(walk[1:], walked(solver, p, x, walk, counted), strict=True):
        yield State(s, step.x, step.tally)


def counted(step: Step) -> Step:
    """A step whose state counts who writes into it, which none made under inference_mode does."""
    if not step.x.is_inference():
        return step
    with torch.inference_mode(False):
        return step._replace(x=step.x.clone())


def solve(
    model: Denoiser,
    start: Sequence[int] | Tensor,
    *,
    path: bool = False,
    watch: Watch | None = None,
    **how: Unpack[How],
) -> Solution:
    """Integrate the reverse equation of a score model from noise to data.

    start:   a shape (b, *) to draw from the SDE's prior, or the states x_T (b, *) to start from.
    t:       the time at which those states are, default T: a walk that is a grid begins there, one
             of times has to. Meng et al. (2022) perturb an image to t.
    solver:  a Solver, a Chooser, or the name of one ("dpmpp", "auto", which probes some for this
             model and this nfe); default "recommended". A chooser's own calls are not counted.
    steps:   solver steps; or ``nfe``: as many steps as that many network calls allow.
    walk:    a grid by name ("log_snr", "karras", "uniform", "quadratic"), a grid function
             (sde, n) -> times, the times themselves (n + 1,), which may climb, or a ``Walk``.
             Default: log_snr where the SDE has marginals, uniform otherwise, unless the solver
             comes with one.
    eta:     0 for the probability-flow ODE, 1 for Song et al.'s reverse SDE, a function of lam or
             one number per step; default the solver's.
    seed:    an int (sample i has stream (seed, i)) or one int per sample; or ``noise``, a source.
             Neither: torch's own generator.
    denoise: end at E[x0 | x] of the last state, for one more network call (Tweedie's formula).
    path:    keep every state.
    watch:   called after every step as watch(step, of how many, states), as ``progress()`` is.
             Without reading a state it waits for no device; of a program's states, which later
             steps write over, clone what is to be kept.
    graph:   True keeps the graph of gradients, from the samples back to start, conditions and
             parameters, whatever mode is on outside; "checkpoint" keeps only the steps' ends and
             runs a step again for its gradients. Otherwise samples have none.

    ``How`` is the type of all but start, path and watch. A solver whose steps are linear runs as
    its program (programs/), any other, and every graph, step by step.
    ValueError, before anything runs, for a combination that cannot be solved; TypeError for an
    argument that there is not.
    """
    accepted("solve", how, HOW | {"path", "watch"})
    with torch.set_grad_enabled(allowed(how.get("graph"))):
        plan = Plan.of(model, start, **how)
        before, together = model.nfe, 0
        t, states, tallies = list[Tensor](), list[Tensor](), list[Tally]()
        for level, x, tally in trajectory(plan, start, watch):
            if tally is None:
                together += model.nfe - before
            else:
                tallies.append(tally)
            before = model.nfe
            if path:
                t.append(level.t)
                states.append(x.clone())
        kept = Path(torch.stack(t), torch.stack(states)) if path else None
        x = with_graph(x) if plan.graph else x
        calls, status = calls_and_status(x, tallies, together)
        if plan.noisy:
            status = status.masked_fill(status == 0, int(Status.NOISY))
    return Solution(x, calls, status, kept, plan.solver, plan.walk, plan.choice)


def sample(
    model: Denoiser,
    start: Sequence[int] | Tensor,
    *,
    watch: Watch | None = None,
    **how: Unpack[How],
) -> Tensor:
    """The samples (b, *) of ``solve``, whose arguments these are, and nothing else.

    A warning where a grid ends above t_min and nothing denoises; times given say where they end.
    """
    accepted("sample", how, HOW | {"watch"})
    with torch.set_grad_enabled(allowed(how.get("graph"))):
        plan = Plan.of(model, start, **how)
        if plan.noisy and callable(how.get("walk")):
            warn(
                f"This grid ends at t = {plan.walk.last:g}, above t_min = "
                f"{model.sde.t_min:g}: samples have the noise of that level. Give denoise=True."
            )
        if plan.program is not None and watch is None:
            return ended(plan, begin(plan.equation, start, plan.levels[0]))
        for _, x, _ in trajectory(plan, start, watch):  # noqa: B007
            pass
    return with_graph(x) if plan.graph else x


def ended(plan: Plan, x: Tensor) -> Tensor:
    """Where a plan's program takes states x (b, *), with nothing done on the way."""
    p, program = plan.equation, plan.program
    assert program is not None
    end = x
    for end in program.execute(p.model, x, p.noise):  # noqa: B007
        pass
    return p.model(end, plan.levels[-1]).x0 if plan.denoise else end


def trajectory(
    plan: Plan, start: Sequence[int] | Tensor, watch: Watch | None = None
) -> Iterator[State]:
    """The states on the way of a plan, from a shape or states x_T (b, *), the start among them.

    Each is overwritten on the way to the next where the solver runs as a program. For a caller who
    has switched gradients off or on: a generator that does so itself pays for it at every step.
    """
    check_watch(watch)
    model, levels = plan.equation.model, plan.levels
    x = begin(plan.equation, start, levels[0])
    yield State(levels[0], x)
    for i, state in enumerate(stepped(plan, x, levels, watch is None), 1):
        if watch is not None:
            look(watch, i, plan.steps, state.x)
        yield state
        x = state.x
    if plan.denoise:
        x = model(x, levels[-1]).x0
        if watch is not None:
            look(watch, plan.steps, plan.steps, x)
        yield State(levels[-1], x)


def check_watch(watch: Watch | None) -> None:
    """ValueError for what cannot be called as a watch is."""
    if watch is None:
        return
    wrong = uncallable(watch, 1, 1, None) if callable(watch) else "it is no function"
    if wrong:
        raise ValueError(
            "watch is called as watch(step, of, states), as sg.progress() is, but it is "
            f"{watch!r:.60}: {wrong}."
        )


def look(watch: Watch, step: int, of: int, x: Tensor) -> None:
    """Call a watch; ValueError if it wrote into the states, which a program would half undo."""
    before = version(x)
    watch(step, of, x)
    if version(x) != before:
        raise ValueError(
            "watch looks on and writes nothing, but it wrote into the states: write into those of "
            "sg.march, or make a model that does what is wanted."
        )


def stepped(plan: Plan, x: Tensor, levels: Sequence[Instant], alone: bool) -> Iterator[State]:
    """The ends of a plan's steps from states x (b, *): its program's, or one by one; ``alone``
    where nobody looks on."""
    p, solver = plan.equation, plan.solver
    if plan.program is not None:
        yield from map(State, levels[1:], plan.program.execute(p.model, x, p.noise, alone))
        return
    stepper: Any = Checkpointed(solver) if plan.graph == "checkpoint" else solver
    for s, step in zip(levels[1:], walked(stepper, p, x, levels), strict=True):
        yield State(s, step.x, step.tally)

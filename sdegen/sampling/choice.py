"""Which solver, on which walk: what was given, or what a chooser says for a model and a budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from sdegen.checks import whole
from sdegen.guidance.wrapped import jumps, strength_of
from sdegen.model.denoiser import Denoiser
from sdegen.sampling.recipes import recommended
from sdegen.sde.process import linear
from sdegen.solvers.blended import Blended
from sdegen.solvers.registry import named, register
from sdegen.solvers.solver import Solver, check_solver
from sdegen.walks.grids import WalkLike


@runtime_checkable
class Chooser(Protocol):
    """What finds a solver and its walk: ``solver=`` takes one wherever it takes a solver.

    choose(model, shape, nfe): the pair (solver, walk) for states of a shape (b, *) and so many
    network calls on each. A walk is what ``solve`` takes as one, None for the solver's usual.
    What is returned is kept as ``Solution.choice``; it may be more than a tuple, and say why.
    """

    def choose(self, model: Denoiser, shape: tuple[int, ...], nfe: int) -> Iterable[Any]:
        """The solver and the walk."""


@dataclass(frozen=True)
class Recommended:
    """``recipes.recommended``, which looks at the budget and at how strongly the model is guided:
    taken where no solver is given. It is one solver for the whole batch: of scales for each sample
    the largest counts, so that the choice, not a step, depends on the batch around a sample.

    Its solvers call the network once a step, so that it also knows what to do with ``steps``, or
    on a walk of yours.  ValueError for an SDE without marginals.
    """

    def choose(self, model: Denoiser, shape: tuple[int, ...], nfe: int) -> tuple[Solver, WalkLike]:
        """The solver and the walk."""
        linear(model.sde, "The usual solver", "give one, such as Heun() or EulerMaruyama()")
        how = recommended(nfe, strength_of(model), jumps(model))
        return how["solver"], how["walk"]


register("recommended", Recommended)


@dataclass(frozen=True)
class BlendedChoice:
    """``Blended`` as ``Recommended`` would set it: four values, from 40 calls on five, below 12 an
    Euler's last step, on the eased walk. Where it gains and where it loses: docs/benchmarks.md.

    It was made for models as they are, and amplifies what guidance adds: for a guided model
    ValueError, as for an SDE without marginals.
    """

    def choose(self, model: Denoiser, shape: tuple[int, ...], nfe: int) -> tuple[Solver, WalkLike]:
        """The solver and the walk."""
        linear(model.sde, "The blend of predictions", "use Heun() or EulerMaruyama()")
        if (strength := strength_of(model)) > 1 or jumps(model):
            raise ValueError(
                f"The blend of predictions is for models that are not guided, but this one is, of "
                f"strength {strength:g}: leave solver out, which takes what is recommended for it."
            )
        k = 4 if nfe < 40 else 5
        return Blended(k, corrector=k, euler_at_final=nfe < 12), "eased"


register("blended", BlendedChoice)


def resolved(solver: Solver | Chooser | str | None) -> Solver | Chooser:
    """A solver or a chooser, by its name or itself; by default what is recommended."""
    if solver is None:
        return Recommended()
    if isinstance(solver, str):
        known: Solver | Chooser = named(solver)
        return known
    if isinstance(solver, Solver):  # first, for to be asked whether one is a protocol takes long
        return solver
    if isinstance(solver, type) or not isinstance(solver, Chooser):
        check_solver(solver)
    return solver


def chosen(
    model: Denoiser,
    shape: tuple[int, ...],
    solver: Solver | Chooser | str | None,
    steps: int | None = None,
    nfe: int | None = None,
    walk: WalkLike | None = None,
    spare: int = 0,
    t: float | None = None,
) -> tuple[Solver, WalkLike | None, Any]:
    """The solver and the walk, given or chosen, and what the chooser said (None without one).

    spare: network calls of the budget that are no solver's.  t: where the walk is to begin, which
    no chooser of walks is told.  ValueError for a chooser that is not
    given a budget, or whose answer is none.
    """
    chooser = resolved(solver)
    if isinstance(chooser, Solver):
        return chooser, walk, None
    if isinstance(chooser, Recommended):
        budget = once_a_step(steps, nfe, walk, spare)
    elif nfe is None or any(each is not None for each in (steps, walk, t)):
        name = f'"{solver}"' if isinstance(solver, str) else type(chooser).__name__
        raise ValueError(
            f"{name} finds a solver and a walk for a budget: give nfe alone, no steps, walk or t."
        )
    else:
        budget = whole("nfe, less what denoise takes,", nfe - spare, 1)
    said = chooser.choose(model, shape, budget)
    found, own = pair(chooser, said)
    return found, own if walk is None else walk, said


def once_a_step(steps: int | None, nfe: int | None, walk: WalkLike | None, spare: int) -> int:
    """The budget of a solver that calls the network once a step, however it was said."""
    if (steps is None) == (nfe is None) and (walk is None or isinstance(walk, str)):
        raise ValueError(f"Give exactly one of steps and nfe, but steps = {steps}, nfe = {nfe}.")
    for name, n in (("steps", steps), ("nfe", nfe)):
        if n is not None:
            whole(name, n, 1)
    timed = len(walk) - 1 if isinstance(walk, Tensor | Sequence) else 0
    return max(1, nfe - spare if nfe is not None else steps or timed)


def pair(chooser: Chooser, said: Any) -> tuple[Solver, WalkLike | None]:
    """A chooser's answer; ValueError where it is not a solver and a walk."""
    try:
        solver, walk = said
    except (TypeError, ValueError):
        solver = walk = None
    if not isinstance(solver, Solver):
        raise ValueError(
            f"{type(chooser).__name__}.choose returned {said!r}: return (solver, walk), a Solver, "
            "such as DDIM(), and a grid's name, a grid, times, or None."
        )
    return solver, walk

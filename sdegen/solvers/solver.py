"""What every solver is: a frozen value whose ``step`` takes a state from level t to level s."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from enum import IntEnum
from functools import partial
from itertools import pairwise
from operator import lt
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.model.denoiser import refuse_flow_only
from sdegen.model.network import version
from sdegen.model.prediction import LinearPrediction, predicted, prediction_name
from sdegen.sde.level import NO_SIGNAL, Instant, Level
from sdegen.sde.process import check_given, has_coordinates, linear
from sdegen.solvers.equation import Eta, Reverse, arrive, climb
from sdegen.solvers.traits import Traits


class Status(IntEnum):
    """How a sample ended."""

    OK = 0
    NONFINITE = 1
    """A NaN or an infinite value turned up."""
    BUDGET = 2
    """The network calls allowed were spent before the end."""
    STALLED = 3
    """The tolerance asked for steps too small to take."""
    NOISY = 4
    """The walk ended above t_min, and nothing denoised: a state on the way, not a sample."""


def arrived(status: Tensor) -> Tensor:
    """True for each sample (b,) that reached the walk's end, at t_min or above it."""
    return (status == int(Status.OK)) | (status == int(Status.NOISY))


class Tally(NamedTuple):
    """What a solver that chooses its own steps says of each sample.

    nfe: network calls spent on it, (b,) int64.  status: values of ``Status``, (b,) int8.
    """

    nfe: Tensor
    status: Tensor


class Step(NamedTuple):
    """Where a step ended, what the next one may need to know, and what was spent if it varies."""

    x: Tensor
    memory: Any = None
    tally: Tally | None = None


class Preset(NamedTuple):
    """A published sampler that is a setting of a class: its arguments, and where it is defined."""

    settings: Mapping[str, Any]
    source: str


REPLACED = {
    *("order", "flow", "weak", "strong", "evals", "any_eta", "marginals", "adaptive", "path"),
    *("nonlinear", "own_times", "upward", "pure_noise"),
}
"""What solvers said of themselves, one attribute each, before there were ``Traits``."""


class Solver(ABC):
    """Takes x from level t down to level s.  State is passed, never kept.

    A subclass is a frozen dataclass that states its ``traits`` and has a ``step``. Every class is
    abstract or final: what two solvers share is a function, or an abstract class between.
    """

    presets: ClassVar[Mapping[str, Preset]] = {}
    """The published samplers that it is, by the names they have in configurations and tables."""

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """What it is: ``traits = Traits(order=2)``, or a property where it follows settings."""

    @property
    def eta(self) -> Eta:
        """The eta of the reverse equation that it solves unless told otherwise.

        A class may set another, or take it as a setting.
        """
        return 0.0

    def __init_subclass__(cls) -> None:
        """Refuse the class attributes that ``traits`` took the place of."""
        super().__init_subclass__()
        stated = vars(cls).keys() - vars(cls).get("__annotations__", {}).keys()
        if (old := sorted(stated & REPLACED)) and cls.traits is Solver.traits:
            raise TypeError(
                f"{cls.__name__} sets {', '.join(old)}, but a solver says what it is in one "
                "value: traits = sg.Traits(order=...). See docs/add-a-solver.md."
            )

    def calls(self, steps: int) -> int:
        """Network calls that so many steps take."""
        return steps * self.traits.calls + self.traits.calls_to_start

    def __str__(self) -> str:
        """The class, and what differs from its defaults."""
        known: Iterable[Field[Any]] = fields(self) if is_dataclass(self) else ()
        said = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in known
            if getattr(self, each.name) != each.default
        ]
        return f"{type(self).__name__}({', '.join(said)})"

    def check(self, p: Reverse) -> None:  # noqa: B027
        """Refuse an equation that this very solver was not made for."""

    @abstractmethod
    def step(self, p: Reverse, x: Tensor, t: Any, s: Any, memory: Any = None) -> Step:
        """From state x (b, *) at level t to level s."""


def walked(
    solver: Solver,
    p: Reverse,
    x: Tensor,
    walk: Sequence[Instant],
    keep: Callable[[Step], Step] = lambda step: step,
    upward: bool = False,
) -> Iterator[Step]:
    """Every step of a walk, the next made from what ``keep`` returns of the one before.

    Down is the solver's job; up, where a walk climbs, is the SDE's own forward step, unless the
    solver follows the flow ``upward``. To a level without noise every exponential step comes to
    the same, see ``arrive``. Who writes into a state that was yielded changes the walk: the next
    step begins there, with no memory of others.
    """
    stops = list(pairwise(walk))
    times = torch.stack([level.t for level in walk]).reshape(len(walk), -1)[:, 0].tolist()
    clean, memory = noiseless(walk) if may_arrive(solver) else (), None
    for i, (q, (t, s), (a, b)) in enumerate(
        zip(p.each(len(stops)), stops, pairwise(times), strict=True)
    ):
        if b > a and not upward:
            step = Step(climb(q, x, t, s))  # type: ignore[arg-type]
        elif b < a and i + 1 in clean:
            step = Step(arrive(q, x, t, s))  # type: ignore[arg-type]
        else:
            step = solver.step(q, x, t, s, memory)
        step = keep(step)
        before = version(step.x)
        yield step
        x, memory = step.x, step.memory
        if version(x) != before:  # what is remembered led elsewhere
            memory = None


def may_arrive(solver: Solver) -> bool:
    """Whether a step of it to a level without noise is ``arrive``, which takes one call."""
    traits = solver.traits
    return traits.needs_marginals and not (traits.adaptive or traits.arrives)


def noiseless(walk: Sequence[Instant]) -> frozenset[int]:
    """Which levels have no noise, looked at all together."""
    sigmas = [level.sigma.max() for level in walk if isinstance(level, Level)]
    least = torch.stack(sigmas).tolist() if len(sigmas) == len(walk) else []
    return frozenset(i for i, sigma in enumerate(least) if sigma == 0)


def check_solver(solver: Any) -> None:
    """Refuse what is no solver, in the words of what it is instead, if it has any."""
    if isinstance(solver, type) or not isinstance(solver, Solver):
        hint = f" (did you mean {solver.__name__}()?)" if isinstance(solver, type) else ""
        raise ValueError(
            getattr(solver, "no_solver", "")
            or "A solver is a Solver, such as UniPC(), a Chooser, or the name of one, such as "
            f'"dpmpp" or "auto", but it is {solver!r}{hint}.'
        )


def check(solver: Solver, p: Reverse) -> None:
    """Refuse an equation that the solver cannot integrate, with the reason and the remedy."""
    check_solver(solver)
    name, traits = type(solver).__name__, solver.traits
    solver.check(p)
    check_given(p.sde)
    if traits.needs_marginals:
        instead = "use a drift-based solver, such as EulerMaruyama or Heun, or make it a LinearSDE"
        linear(p.sde, name, instead)
    if not (traits.any_eta or p.eta == solver.eta):
        raise ValueError(
            f"{name} integrates the equation with eta = {say(solver.eta)}, but eta = "
            f"{say(p.eta)} was asked for. Leave eta out, or use EulerMaruyama, DPMSolverPP or "
            "DDIM(eta=...)."
        )
    if traits.needs_path and p.noisy and not p.noise.path:
        raise ValueError(
            f"{name} may take a step again with another length, so its noise must be one path: "
            f"use seed= or noise=Brownian(seed), not {type(p.noise).__name__}."
        )


def say(eta: Eta) -> str:
    """An eta in a sentence."""
    return f"{eta:g}" if isinstance(eta, float | int) else f"{eta!r}"


def check_path(p: Reverse, times: Sequence[float]) -> None:
    """Refuse a walk that comes by the same times twice, or by later ones than it has, where the
    noise is one path; and one that climbs where the model knows nothing of what independent noise
    makes of data."""
    climbs = any(map(lt, times, times[1:]))
    if climbs:
        refuse_flow_only(p.model, "A walk that climbs")
    if p.noisy and p.noise.path and climbs:
        raise ValueError(
            "This walk climbs, and so walks the same times twice, where a Brownian path has the "
            "same noise again: use seed= or noise=Seeded(seed) with a solver of fixed steps, or "
            "eta = 0."
        )
    if p.noisy and (beyond := max(times)) > p.noise.end * (1 + 1e-9):
        raise ValueError(
            f"This Brownian path runs on [0, {p.noise.end:g}], but the walk comes by t = "
            f"{beyond:g}: give Brownian(seed, sde.T)."
        )


def check_levels(solver: Solver, p: Reverse, walk: Sequence[Instant]) -> None:
    """Refuse a walk with a level at which what the solver works with has no value.

    Of a solver whose steps are linear the program says the rest, see programs/.
    """
    check_own_walk(solver, walk)
    known = [level for level in walk if isinstance(level, Level)]
    if not known:
        return
    traits = solver.traits
    signal = torch.stack([level.lam.min() for level in known]).tolist()
    for i, (lam, level) in enumerate(zip(signal, known, strict=True)):
        if lam >= NO_SIGNAL:
            continue
        infinite = i > 0 if traits.needs_marginals else not bool(level.g2.isfinite().all())
        if infinite and (traits.needs_marginals or p.noisy):
            raise ValueError(no_value(solver, p, level))
    if has_coordinates(p.sde):
        check_coordinates(solver, known)
    elif not traits.why_not_linear:
        return
    looks_at_its_end = traits.adaptive or traits.calls > 1
    if has_coordinates(p.sde) and traits.needs_marginals and not traits.adaptive:
        looks_at_its_end = False  # the last step arrives there, and asks nothing
    for level in (known[0], known[-1]) if looks_at_its_end else known[:1]:
        if bool(level.lam.isinf().any()) and not asked_finite(solver, p, level):
            raise ValueError(no_value(solver, p, level))


def check_own_walk(solver: Solver, walk: Sequence[Instant]) -> None:
    """Refuse another walk than the one that a solver comes with, if it does."""
    if (own := solver.traits.own_walk) is None:
        return
    times = [float(t) for level in walk for t in level.t.detach().reshape(-1).unique()]
    # A rounding apart, as of times that were kept in float32.
    if len(times) != len(own) or not all(map(partial(math.isclose, rel_tol=1e-6), times, own)):
        raise ValueError(
            f"{type(solver).__name__} comes with its own walk of {len(own) - 1} steps, from t = "
            f"{own[0]:g} to {own[-1]:g}, but this one has {len(walk) - 1}, from "
            f"{times[0]:g} to {times[-1]:g}: give sg.walks.levels(sde, solver.traits.own_walk), "
            "or another solver."
        )


def refuse_own_walk(solver: Solver, what: str) -> None:
    """ValueError for a solver with a walk of its own as a part of something else."""
    if solver.traits.own_walk is not None:
        name = type(solver).__name__
        raise ValueError(
            f"{what} cannot be made of {name}, which comes with its own walk and was made for "
            f"those steps alone: use {name} by itself, or another solver here, as DDIM()."
        )


def check_coordinates(solver: Solver, walk: Sequence[Level]) -> None:
    """Refuse levels where some coordinates have no noise and others have, and, to a solver that
    works with alpha and sigma, those where some have no signal: what a program would say."""
    for level in walk if solver.traits.needs_marginals else ():
        silent, clean = (bool((c == 0).any()) for c in (level.alpha, level.sigma))
        if silent or (clean and bool((level.sigma > 0).any())):
            what = "no signal in some coordinate" if silent else "noise in some coordinates alone"
            raise ValueError(
                f"{type(solver).__name__} works with alpha and sigma of each coordinate, but at t "
                f"= {float(level.t.max()):g} there is {what}: walk to where all have some, or use "
                "a solver in t, as Heun or EulerMaruyama."
            )


def any_state(level: Level) -> Tensor:
    """States that a level goes with, of ones."""
    if level.alpha.ndim > 1:
        return torch.ones_like(level.alpha + level.sigma)
    return torch.ones_like(level.t).reshape(-1, 1)


def asked_finite(solver: Solver, p: Reverse, level: Level) -> bool:
    """Whether a finite output makes what a solver asks for at a level finite."""
    if solver.traits.needs_marginals and solver.traits.adaptive:
        return False  # it measures its steps in lam
    state = any_state(level)
    said: LinearPrediction = predicted(p.sde, p.model.target, state, state / 2, level)
    asked = said.x0 if solver.traits.needs_marginals else said.drift(p.eta_at(level))
    return bool(asked.isfinite().all())


def no_value(solver: Solver, p: Reverse, level: Level) -> str:
    """A sentence: where a solver has no value to work with, and what does have one."""
    sde, t = type(p.sde).__name__, float(level.t.max())
    says = f"a network that predicts {prediction_name(p.model.target)}"
    if bool((level.lam < NO_SIGNAL).any()):
        state = any_state(level)
        x0 = predicted(p.sde, p.model.target, state, state / 2, level).x0
        # The remedy must not be another way to the same place.
        steep = bool(level.d_alpha.isinf().any())  # the velocity says nothing of x0 there
        known = "x0 or v" if steep else "x0, v or the velocity"
        others = (
            "use DDIM or DPMSolverPP, which can start there"
            if bool(x0.isfinite().all())
            else f"use a network that predicts {known}, with DDIM or DPMSolverPP"
        )
        return (
            f"{type(solver).__name__} with {says} has no value at t = {t:g}, where {sde} has no "
            f"signal left: end the SDE earlier, as FlowSDE(T=0.999) does, or {others}."
        )
    return (
        f"{type(solver).__name__} with {says} has no value at t = {t:g}, where {sde} has no "
        "noise: end the walk above it, at a t_min > 0, or use DDIM or DPMSolverPP, which ask "
        "nothing of the network there."
    )

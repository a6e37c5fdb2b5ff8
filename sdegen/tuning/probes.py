"""Which solver, on which walk: the recommended one, or what a dozen probes find better."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import whole
from sdegen.model.denoiser import Denoiser, cost_of
from sdegen.noise.source import Seeded
from sdegen.sampling.march import sample
from sdegen.sampling.plan import begin, calls_of
from sdegen.sampling.recipes import recommended
from sdegen.sde.process import linear
from sdegen.solvers import DEIS, DPMSolverPP, Multistep, UniPC
from sdegen.solvers.equation import Reverse
from sdegen.solvers.registry import register
from sdegen.solvers.solver import Solver

FINE = UniPC(3)
"""The solver of references, of order 4."""

CANDIDATES: tuple[Solver, ...] = (
    Multistep(2, corrector=3, clock="wide"),
    UniPC(2),
    DPMSolverPP(2),
    DEIS(3),
    Multistep(3, prediction="F"),
)
"""What is held against the recommended solver on its own walk: fewer values, other predictions."""
SEEDS = 32
WALKS = ("log_snr", "karras", "uniform", "quadratic")
"""What is held against the recommended walk, with the best solver on it."""
FINE_STEPS = 8
"""Of a reference, for each network call of a solve."""


@dataclass(frozen=True)
class Probe:
    """A solver on a walk, and the median of its samples' errors."""

    solver: Solver
    walk: str
    error: float

    def __str__(self) -> str:
        return f"{self.solver} on {self.walk}"


@dataclass(frozen=True)
class Choice:
    """The best of the probes for a model and a budget; all of them, best first.

    As a pair it is the best solver and its walk.
    """

    nfe: int
    seeds: int
    probes: tuple[Probe, ...]

    @property
    def solver(self) -> Solver:
        """The chosen one."""
        return self.probes[0].solver

    @property
    def walk(self) -> str:
        """Its walk."""
        return self.probes[0].walk

    def __iter__(self) -> Iterator[Any]:
        return iter((self.solver, self.walk))

    def __str__(self) -> str:
        """What was picked, and why."""
        best, *others = self.probes
        said = (
            f"auto: {best} at {self.nfe} calls. Its median error against a fine solution is "
            f"{best.error:.3g} on {self.seeds} seeds"
        )
        if not others:
            return f"{said}, the only one that could be probed."
        return (
            f"{said}; next is {others[0]} with {others[0].error:.3g}, and the worst of "
            f"{len(self.probes)} probes {others[-1].error:.3g}."
        )


def choose(
    model: Denoiser,
    shape: Sequence[int],
    *,
    nfe: int,
    seeds: int = SEEDS,
    fine: int | None = None,
    seed: int = 0,
) -> Choice:
    """Probe what is recommended and what may be better: other solvers, then other walks.

    The search starts from ``recipes.recommended`` and leaves it for what its probes say is better:
    first deterministic solvers of several predictions on its walk, then the best of them on the
    standard walks. Each is run from the same draws of the prior (``seeds`` samples of ``shape``
    (*), without the batch) and compared with UniPC-3 on ``fine`` equal steps of lam, default
    8 nfe. All together that is at most 20 times the network calls of one solve of so many samples.

    Conditions that a model was given are (seeds, *), or the same for all samples. ValueError for
    an SDE without marginals, fewer than 8 seeds, a budget that no solver can keep to, and a model
    that returns NaN.
    """
    check_model(model, seeds)
    x = starts(model, shape, seeds, seed)
    calls = calls_of(model, whole("nfe", nfe))
    steps = FINE_STEPS * calls if fine is None else fine
    return compared(model, x, reference(model, x, steps), calls)


@dataclass(frozen=True)
class Auto:
    """``choose`` as a Chooser, solver="auto": the recommended one, or what probes better.

    seeds, fine, seed: see ``choose``, whose ``Choice`` says why, as ``Solution.choice``. It costs
    at most 20 solves of ``seeds`` samples.
    """

    seeds: int = SEEDS
    fine: int | None = None
    seed: int = 0

    def choose(self, model: Denoiser, shape: tuple[int, ...], nfe: int) -> Choice:
        """For states (b, *) whose conditions, if any, are the model's own (b, *)."""
        b = shape[0]
        probed = model.take(torch.arange(self.seeds) % b)
        budget = nfe * cost_of(model)
        return choose(
            probed, shape[1:], nfe=budget, seeds=self.seeds, fine=self.fine, seed=self.seed
        )


register("auto", Auto)


def compared(model: Denoiser, x: Tensor, exact: Tensor, nfe: int) -> Choice:
    """The recommended solver, the candidates on its walk, and the best of all on other walks.

    nfe: calls of the model, whose cost may be several evaluations.  From starts x (b, *), beside
    the exact ends (b, *).
    """
    how, probes = recommended(nfe), list[Probe]()

    def probe(solver: Solver, walk: str) -> None:
        try:
            end = sample(model, x, solver=solver, nfe=nfe * cost_of(model), walk=walk)
        except ValueError:  # a solver that cannot take this walk
            return
        error = float(errors(end, exact).median())
        if error == error:
            probes.append(Probe(solver, walk, error))

    for solver in (how["solver"], *CANDIDATES):
        probe(solver, how["walk"])
    for walk in WALKS if probes else ():
        probe(min(probes, key=error_of).solver, walk)
    if not probes:
        raise ValueError(
            f"No solver of the flow takes {nfe} network calls on {model.sde}: choose one by hand."
        )
    return Choice(nfe, len(x), tuple(sorted(probes, key=error_of)))


def error_of(probe: Probe) -> float:
    """Its median error."""
    return probe.error


def check_model(model: Denoiser, seeds: int, least: int = 8) -> None:
    """Refuse what cannot be probed."""
    linear(model.sde, "Comparing solvers", "choose a drift-based one by hand")
    if seeds < least:
        raise ValueError(
            f"{seeds} seeds are too few to tell solvers apart: give at least {least}."
        )


def starts(model: Denoiser, shape: Sequence[int], n: int, seed: int, first: int = 0) -> Tensor:
    """n draws of the prior (n, *), seeded, in float64."""
    if not isinstance(shape, Iterable):
        raise ValueError(f"The shape of one sample (*) is a tuple, as (3, 32, 32), not {shape!r}.")
    p = Reverse(model, 0.0, Seeded(seed, first))
    return begin(p, (n, *shape), model.sde(torch.tensor(model.sde.T))).double()


def reference(model: Denoiser, x: Tensor, fine: int) -> Tensor:
    """Where the exact flow takes x (b, *), nearly; ValueError if it is not finite."""
    end = sample(model, x, solver=FINE, steps=fine)
    sick = int((~end.reshape(len(x), -1).isfinite().all(1)).sum())
    if sick:
        raise ValueError(
            f"The fine solution is NaN or infinite for {sick} of {len(x)} seeds: the model itself "
            "returns such values."
        )
    return end


def errors(x: Tensor, exact: Tensor) -> Tensor:
    """Root mean square over each sample's coordinates, (b,)."""
    return (x - exact).square().reshape(len(x), -1).mean(1).sqrt()

"""Which solver, on which walk: a handful of probes against a fine solution tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.model.denoiser import Denoiser
from sdegen.noise.source import Seeded
from sdegen.sampling.march import sample
from sdegen.sampling.plan import begin
from sdegen.sde.process import linear
from sdegen.solvers import DDIM, DEIS, IPNDM, DPMSolverPP, Heun, Multistep, Singlestep, UniPC
from sdegen.solvers.equation import Reverse
from sdegen.solvers.registry import register
from sdegen.solvers.solver import Solver

FINE = UniPC(3)
"""The solver of references, of order 4."""

CANDIDATES: tuple[Solver, ...] = (
    DDIM(),
    DPMSolverPP(2),
    DPMSolverPP(3),
    UniPC(2),
    UniPC(3),
    UniPC(2, prediction="eps"),
    Multistep(2, prediction="F"),
    Multistep(3, prediction="F"),
    Multistep(3, prediction="eps"),
    DEIS(3),
    IPNDM(4),
    Heun(),
    Heun("rho"),
    Singlestep(2),
)
SEEDS = 32
WALKS = ("log_snr", "karras", "uniform", "quadratic")


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
        best, second, last = self.probes[0], self.probes[1], self.probes[-1]
        return (
            f"auto: {best} at {self.nfe} calls. Its median error against a fine solution is "
            f"{best.error:.3g} on {self.seeds} seeds; next is {second} with {second.error:.3g}, "
            f"and the worst of {len(self.probes)} probes {last.error:.3g}."
        )


def choose(
    model: Denoiser,
    shape: Sequence[int],
    *,
    nfe: int,
    seeds: int = SEEDS,
    fine: int = 100,
    seed: int = 0,
) -> Choice:
    """Probe deterministic solvers of several predictions on the standard walks.

    Each is run from the same draws of the prior (``seeds`` samples of ``shape`` (*), without the
    batch) and compared with UniPC-3 on ``fine`` equal steps of lam. Conditions that a model was
    given are (seeds, *), or the same for all samples. ValueError for an SDE without marginals,
    fewer than 8 seeds, a budget that no solver can keep to, and a model that returns NaN.
    """
    check_model(model, seeds)
    x = starts(model, shape, seeds, seed)
    return compared(model, x, reference(model, x, fine), nfe)


@dataclass(frozen=True)
class Auto:
    """``choose`` as a Chooser, solver="auto": deterministic solvers are probed, the best is taken.

    seeds, fine, seed: see ``choose``, whose ``Choice`` says why, as ``Solution.choice``.
    """

    seeds: int = SEEDS
    fine: int = 100
    seed: int = 0

    def choose(self, model: Denoiser, shape: tuple[int, ...], nfe: int) -> Choice:
        """For states (b, *) whose conditions, if any, are the model's own (b, *)."""
        b = shape[0]
        probed = model.take(torch.arange(self.seeds) % b)
        return choose(probed, shape[1:], nfe=nfe, seeds=self.seeds, fine=self.fine, seed=self.seed)


register("auto", Auto)


def compared(model: Denoiser, x: Tensor, exact: Tensor, nfe: int) -> Choice:
    """The candidates from starts x (b, *) beside the exact ends (b, *)."""
    probes = []
    for solver in CANDIDATES:
        for walk in WALKS:
            try:
                end = sample(model, x, solver=solver, nfe=nfe, walk=walk)
            except ValueError:  # a solver that needs more calls, or cannot take this walk
                continue
            error = float(errors(end, exact).median())
            if error == error:
                probes.append(Probe(solver, walk, error))
    if len(probes) < 2:
        raise ValueError(f"No solver keeps to nfe = {nfe}: give at least 1 network call.")
    return Choice(nfe, len(x), tuple(sorted(probes, key=lambda probe: probe.error)))


def check_model(model: Denoiser, seeds: int, least: int = 8) -> None:
    """Refuse what cannot be probed."""
    linear(model.sde, "Comparing solvers", "choose a drift-based one by hand")
    if seeds < least:
        raise ValueError(
            f"{seeds} seeds are too few to tell solvers apart: give at least {least}."
        )


def starts(model: Denoiser, shape: Sequence[int], n: int, seed: int, first: int = 0) -> Tensor:
    """n draws of the prior (n, *), seeded, in float64."""
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

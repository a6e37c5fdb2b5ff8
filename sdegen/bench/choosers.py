"""Solvers that are chosen for the budget they are given: by tuning, or by a rule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdegen.bench.problems import Problem
from sdegen.sampling.recipes import recommended
from sdegen.sde.process import LinearSDE
from sdegen.solvers.solver import Solver
from sdegen.solvers.traits import Traits
from sdegen.tuning.fitting import tune


@dataclass(frozen=True)
class TunedHere:
    """``tune`` at every point, on seeds that share nothing with the starts it is then tried on.

    coefficients: the weights too, or the walk alone.  numbers: values in all that it is tuned on,
    of at least 64 seeds.
    """

    coefficients: bool = True
    iterations: int = 80
    numbers: int = 800
    traits, eta = Traits(order=0), 0.0

    def choose(self, problem: Problem, sde: LinearSDE, nfe: int) -> tuple[Solver, None]:
        """The tuned solver, which has its own walk."""
        tuned = tune(
            problem.model(sde),
            nfe=nfe,
            shape=problem.shape,
            coefficients=self.coefficients,
            seeds=max(64, self.numbers // math.prod(problem.shape)),
            iterations=self.iterations,
            fine=100,
            seed=1000,
        )
        return tuned, None


@dataclass(frozen=True)
class Recommended:
    """``recipes.recommended``, which looks at the budget alone."""

    traits, eta = Traits(order=0), 0.0

    def choose(self, problem: Problem, sde: LinearSDE, nfe: int) -> tuple[Solver, str]:
        """The solver and its walk."""
        how = recommended(nfe)
        return how["solver"], how["walk"]

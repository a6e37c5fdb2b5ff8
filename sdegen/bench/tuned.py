"""A solver that is tuned to the problem it meets, for the budget it is given."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdegen.bench.problems import Problem
from sdegen.sde import LinearSDE
from sdegen.tuned import Tuned
from sdegen.tuning import tune


@dataclass(frozen=True)
class TunedHere:
    """``tune`` at every point, on seeds that share nothing with the starts it is then tried on.

    coefficients: the weights too, or the walk alone.  numbers: values in all that it is tuned on,
    of at least 64 seeds.
    """

    coefficients: bool = True
    iterations: int = 80
    numbers: int = 800
    adaptive, eta = False, 0.0

    def fit(self, problem: Problem, sde: LinearSDE, nfe: int | None) -> Tuned:
        """The tuned solver.  ValueError without a budget of network calls."""
        if nfe is None:
            raise ValueError("A solver is tuned for a number of network calls: give nfe.")
        return tune(
            problem.model(sde),
            nfe=nfe,
            shape=problem.shape,
            coefficients=self.coefficients,
            seeds=max(64, self.numbers // math.prod(problem.shape)),
            iterations=self.iterations,
            fine=100,
            seed=1000,
        )

"""Solvers that are tuned for every budget they are given."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sdegen.model.denoiser import Denoiser
from sdegen.solvers.solver import Solver
from sdegen.tuning.fitting import tune


@dataclass(frozen=True)
class TunedHere:
    """``tune`` at every point, on seeds that share nothing with the starts it is then tried on.

    A Chooser.  coefficients: the weights too, or the walk alone.  numbers: values in all that it
    is tuned on, of at least 64 seeds.
    """

    coefficients: bool = True
    iterations: int = 80
    numbers: int = 800

    def choose(self, model: Denoiser, shape: tuple[int, ...], nfe: int) -> tuple[Solver, None]:
        """The tuned solver, which has its own walk."""
        tuned = tune(
            model,
            nfe=nfe,
            shape=shape[1:],
            coefficients=self.coefficients,
            seeds=max(64, self.numbers // math.prod(shape[1:])),
            iterations=self.iterations,
            fine=100,
            seed=1000,
        )
        return tuned, None

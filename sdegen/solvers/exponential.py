"""Exponential integrators: exact in everything but the change of x0 over a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, exp, expm1, sqrt

from sdegen.reverse import Reverse
from sdegen.sde import Level
from sdegen.solvers.solver import Solver, Step


@dataclass(frozen=True)
class DPMSolverPP(Solver):
    """DPM-Solver++(1) and (2M), for every eta.  Lu et al. (2022b), alg. 2; eta = 1: SDE-2M.

    With h = lam_s - lam_t the reverse equation's own integral, x0 frozen over the step:

    x_s = sigma_s/sigma_t e^{-eta^2 h} x + alpha_s (1 - e^{-(1+eta^2) h}) x0
          + sigma_s sqrt(1 - e^{-2 eta^2 h}) z

    Order 2 uses x0 extrapolated to the step's middle from the last two; its first step has only
    one and is of order 1.
    """

    order: int = 2
    any_eta, marginals = True, True

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ValueError(f"DPMSolverPP has order 1 or 2, but order = {self.order!r}.")

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step; memory is the last level and its x0."""
        h, x0, eta2 = s.lam - t.lam, p.model(x, t).x0, p.eta**2
        guess = x0
        if self.order == 2 and memory is not None:
            r, x0_r = memory
            guess = x0 + h / (t.lam - r.lam) / 2 * (x0 - x0_r)
        x_s = -s.alpha * expm1(-(1 + eta2) * h) * guess
        if p.eta == 0:
            return Step(s.sigma / t.sigma * x + x_s, (t, x0))
        z = s.sigma * sqrt(-expm1(-2 * eta2 * h)) * p.noise(x, t, s)
        return Step(s.sigma / t.sigma * exp(-eta2 * h) * x + x_s + z, (t, x0))

"""Classical Runge-Kutta methods on the probability-flow ODE, in the SDE's own time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from sdegen.reverse import Reverse
from sdegen.sde import Instant
from sdegen.solvers.solver import Solver, Step


class RungeKutta(Solver):
    """k_i = drift(x + dt sum_j a_ij k_j, t + c_i dt);  x_s = x + dt sum_i b_i k_i."""

    c: ClassVar[tuple[float, ...]]
    a: ClassVar[tuple[tuple[float, ...], ...]]
    b: ClassVar[tuple[float, ...]]

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """One step of the tableau."""
        dt = s.t - t.t
        k: list[Tensor] = []
        for c, row in zip(self.c, self.a, strict=True):
            level = t if c == 0 else s if c == 1 else p.sde(t.t + c * dt)
            k.append(p.drift(x + combine(row, k, dt), level))
        return Step(x + combine(self.b, k, dt))


def combine(weights: tuple[float, ...], k: list[Tensor], dt: Tensor) -> Tensor | float:
    """dt sum_i w_i k_i."""
    return sum((w * dt * k_i for w, k_i in zip(weights, k, strict=True) if w), start=0.0)


@dataclass(frozen=True)
class Euler(RungeKutta):
    """x + drift dt, the straight line."""

    order = 1
    c, a, b = (0.0,), ((),), (1.0,)


@dataclass(frozen=True)
class Heun(RungeKutta):
    """The trapezoidal rule.  On the EDM process: Karras et al. (2022), alg. 1."""

    order, evals = 2, 2
    c, a, b = (0.0, 1.0), ((), (1.0,)), (1 / 2, 1 / 2)


@dataclass(frozen=True)
class RK4(RungeKutta):
    """Kutta's fourth-order method (1901)."""

    order, evals = 4, 4
    c = (0.0, 1 / 2, 1 / 2, 1.0)
    a = ((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0))
    b = (1 / 6, 1 / 3, 1 / 3, 1 / 6)

"""What every solver is: a frozen value whose ``step`` takes a state from level t to level s."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from sdegen.reverse import Reverse
from sdegen.sde import LinearSDE


class Step(NamedTuple):
    """Where a step ended, and what the next one may need to know."""

    x: Tensor
    memory: Any = None


class Solver(ABC):
    """Takes x from level t down to level s.  State is passed, never kept.

    A subclass is a frozen dataclass that says what it is; the tests hold it to its word.
    """

    order: int
    """Of convergence: of the flow where eta = 0, weak otherwise; 0 claims none."""
    evals: int = 1
    """Network calls per step; 0 where the solver decides that on the way."""
    eta: float = 0.0
    """The eta of the reverse equation that it solves unless told otherwise."""
    any_eta: ClassVar[bool] = False
    """True when it solves the reverse equation for every eta."""
    marginals: ClassVar[bool] = False
    """True when it needs alpha and sigma, that is a LinearSDE."""
    adaptive: ClassVar[bool] = False
    """True when it chooses its own steps between the levels of the walk."""

    @abstractmethod
    def step(self, p: Reverse, x: Tensor, t: Any, s: Any, memory: Any = None) -> Step:
        """From state x (b, *) at level t to level s."""


def check(solver: Solver, p: Reverse) -> None:
    """Refuse an equation that the solver cannot integrate, with the reason and the remedy."""
    name, sde = type(solver).__name__, type(p.sde).__name__
    if solver.marginals and not isinstance(p.sde, LinearSDE):
        raise ValueError(
            f"{name} works in alpha and sigma, but {sde} gives only drift and diffusion. "
            "Use a drift-based solver such as EulerMaruyama or Heun, or make it a LinearSDE."
        )
    if p.eta != solver.eta and not solver.any_eta:
        raise ValueError(
            f"{name} integrates the equation with eta = {solver.eta:g}, but eta = {p.eta:g} was "
            "asked for. Leave eta out, or use EulerMaruyama, DPMSolverPP or DDIM(eta=...)."
        )

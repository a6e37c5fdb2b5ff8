"""Splitting: a model and its guidance stepped in turn.  Wizadwongsa & Suwajanakorn (2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from sdegen.checks import whole
from sdegen.sde.level import NO_SIGNAL, Level, expand
from sdegen.solvers.deis import IPNDM
from sdegen.solvers.equation import Reverse
from sdegen.solvers.multistep import LinearMultistep
from sdegen.solvers.singlestep import ExponentialRK
from sdegen.solvers.solver import Solver, Step
from sdegen.solvers.stochastic import DDIM
from sdegen.solvers.traits import Traits


@dataclass(frozen=True)
class Split(Solver):
    """A guided model's flow as two: that of its base, and the guidance.  In y = x / alpha,

    dy / drho = eps_base(y, rho) + k(y, rho),   k = eps - eps_base

    of a model that says both, as ``CFG`` (base: the conditional one) and ``Guided`` do.

    inner: steps the base: a multistep method without a corrector, DDIM, or a singlestep one. What
           it remembers are values of the base alone.
    order: 1, Lie and Trotter (their LTSP): the base's step, then Euler's of k at its end.
           2, Strang (STSP): half of k, the base, half of k.

    Euler's half-steps of k would be of order 1. Here k is asked once a step, at
    x_s + alpha_s (drho / 2) k_before, where the step is going to end, and is what the next one
    begins with: order 2 for an inner one-step method of order 2. A multistep method's values lie
    on the path of both flows, and its extrapolation counts a part of k twice: order 1 with it.

    A step asks the base as often as inner does, and both models once more: with CFG and a
    multistep method three evaluations, and two for the first k. ``nfe=`` counts every kick as a
    whole call of the guided model, and so stays below the budget.
    ValueError for a model without guidance of its own, an inner that it cannot step with, and a
    walk that begins without signal: there rho is infinite, and so is the integral of k over rho.
    """

    inner: Solver = IPNDM()  # noqa: RUF009
    order: int = 2
    presets: ClassVar = {}  # made for guided models alone, where catalogues hold what takes all

    def __post_init__(self) -> None:
        whole("Split's order", self.order, 1, 2)
        multistep = isinstance(self.inner, LinearMultistep) and not self.inner.corrector
        fine = multistep or isinstance(self.inner, ExponentialRK | DDIM)
        if not fine or self.inner.eta != 0:
            raise ValueError(
                f"Split steps the base by a multistep method without a corrector, by DDIM() or by "
                f"a singlestep one, along the flow (eta = 0), but inner is {self.inner!r}: use "
                "IPNDM(), DPMSolverPP(2) or DPMSolverPPSinglestep(2)."
            )

    @property
    def traits(self) -> Traits:
        """Of order 2 where nothing is remembered."""
        inner = self.inner.traits
        order = 1 if isinstance(self.inner, LinearMultistep) else min(self.order, inner.order)
        return Traits(
            order=order,
            calls=inner.calls + 1,
            calls_to_start=self.order - 1,
            needs_marginals=True,
            why_not_linear="it asks a model and its guidance apart",
        )

    def check(self, p: Reverse) -> None:
        """Refuse a model that is not made of a base and its guidance."""
        if not hasattr(p.model, "kick"):
            raise ValueError(
                f"Split steps a model and its guidance in turn, but {type(p.model).__name__} has "
                f"no guidance of its own: give CFG(...) or Guided(...), or use {self.inner}."
            )

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step; memory is inner's, and k at t."""
        if bool((t.lam < NO_SIGNAL).any()):
            raise ValueError(
                f"Split steps in sigma / alpha, which is infinite at t = {float(t.t.max()):g}, "
                f"where {type(p.sde).__name__} has no signal left: begin below it, as "
                "FlowSDE(T=0.999) does."
            )
        model: Any = p.model
        base = replace(p, model=model.base)
        known, k = memory if memory is not None else (None, None)
        drho = s.rho - t.rho
        if self.order == 1:
            x, known, _ = self.inner.step(base, x, t, s, known)
            return Step(x + expand(s.alpha * drho, x) * model.kick(x, s), (known, None))
        if k is None:
            k = model.kick(x, t)
        x = x + expand(t.alpha * drho / 2, x) * k
        x, known, _ = self.inner.step(base, x, t, s, known)
        half = expand(s.alpha * drho / 2, x)
        k = model.kick(x + half * k, s)
        return Step(x + half * k, (known, k))

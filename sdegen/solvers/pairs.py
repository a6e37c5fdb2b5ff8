"""Pairs of methods, one better than the other by an order: what adaptive solving measures with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from sdegen.checks import one_of
from sdegen.sde.level import Instant, Level
from sdegen.sde.process import LinearSDE
from sdegen.solvers.adaptive import Adaptive, Attempt, Known, check_control
from sdegen.solvers.classical import RK3, RK5, Heun, Tableau, add_slopes, stages
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import Clock, NoiseForm, advance, lagrange, middle
from sdegen.solvers.singlestep import between
from sdegen.solvers.solver import Preset
from sdegen.solvers.stochastic import heun_pair
from sdegen.solvers.traits import Traits, own_steps


class Embedded(NamedTuple):
    """A Runge-Kutta method and the weights of its companion of one order less.

    One weight more than the method has stages belongs to the slope at the step's end, with which
    the next step begins.
    """

    method: Tableau
    low: tuple[float, ...]


PAIRS = {
    "heun_euler": Embedded(Heun.tableau, (1.0, 0.0)),
    "bosh3": Embedded(RK3.tableau, (7 / 24, 1 / 4, 1 / 3, 1 / 8)),
    "dopri5": Embedded(
        RK5.tableau,
        (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40),
    ),
}
"""Bogacki & Shampine (1989); Dormand & Prince (1980)."""


@dataclass(frozen=True)
class AdaptiveRK(Adaptive):
    """Embedded Runge-Kutta pairs on the probability flow, in "t", "lam" or "rho".

    method: "heun_euler" 2(1), "bosh3" 3(2), "dopri5" 5(4). The better of both is kept. In "t" it
    works on any SDE. See ``Adaptive`` for the rest.
    """

    method: Literal["heun_euler", "bosh3", "dopri5"] = "dopri5"
    clock: Clock = "t"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 10_000
    per_sample: bool = True
    presets: ClassVar = {
        "adaptive_dopri5": Preset(
            {}, "Dormand & Prince (1980) in t; Song et al. (2021), sec. 4.3"
        ),
        "adaptive_dopri5_lam": Preset({"clock": "lam"}, "Dormand & Prince (1980) in lam"),
        "adaptive_bosh3": Preset({"method": "bosh3", "clock": "lam"}, "Bogacki & Shampine (1989)"),
        "adaptive_heun": Preset({"method": "heun_euler", "clock": "lam"}, "Heun-Euler 2(1)"),
    }

    def __post_init__(self) -> None:
        check_control(self)
        one_of(self.method, "pair", PAIRS)
        if self.clock not in ("t", "lam", "rho"):
            raise ValueError(f"clock must be 't', 'lam' or 'rho', but it is {self.clock!r}.")

    @property
    def traits(self) -> Traits:
        """The order of the pair's better member; alpha and sigma for every clock but the SDE's."""
        return own_steps(PAIRS[self.method].method.order, needs_marginals=self.clock != "t")

    @property
    def stages(self) -> int:
        """Weights of the companion."""
        return len(PAIRS[self.method].low)

    def size(self, largest: Tensor) -> Tensor:
        """atol + rtol |x|."""
        return self.atol + self.rtol * largest

    def attempt(
        self, p: Reverse, x: Tensor, t: Instant, s: Instant, known: Known | None
    ) -> Attempt:
        """The method's step; its error is the difference to the companion's."""
        pair, clock = PAIRS[self.method], self.clock
        order, c, a, b = pair.method
        if len(pair.low) > len(b):
            c, a, b = (*c, 1.0), (*a, b), (*b, 0.0)
        k = stages(p, clock, x, t, s, c, a, None if known is None else known[0])
        difference = tuple(high - low for high, low in zip(b, pair.low, strict=True))
        error = add_slopes(p, clock, torch.zeros_like(x), t, s, s, k, difference)
        known_after = (k[-1],) if len(b) > len(pair.method.b) else None
        return Attempt(add_slopes(p, clock, x, t, s, s, k, b), error, (k[0],), known_after, order)


@dataclass(frozen=True)
class AdaptiveDPM(Adaptive):
    """DPM-Solver-12 and -23, steps measured in lam.  Lu et al. (2022a), app. C.

    order 2 compares DPM-Solver-2 with -1, order 3 DPM-Solver-3 with -2 at r = 1/3; the better is
    kept. An error is measured by max(atol, rtol |x|) as there.
    """

    order: int = 3
    rtol: float = 0.05
    atol: float = 0.0078
    max_nfe: int = 10_000
    per_sample: bool = True
    clock = "lam"
    presets: ClassVar = {
        "dpm_12": Preset({"order": 2}, "DPM-Solver-12, Lu et al. (2022a), app. C"),
        "dpm_23": Preset({}, "DPM-Solver-23, Lu et al. (2022a), app. C"),
    }

    def __post_init__(self) -> None:
        check_control(self)
        if self.order not in (2, 3):
            raise ValueError(f"AdaptiveDPM has order 2 or 3, but order = {self.order!r}.")

    @property
    def traits(self) -> Traits:
        """Of the pair's better member."""
        return own_steps(self.order, needs_marginals=True)

    @property
    def stages(self) -> int:
        """As many as the order."""
        return self.order

    def size(self, largest: Tensor) -> Tensor:
        """max(atol, rtol |x|)."""
        return (self.rtol * largest).clamp(min=self.atol)

    def attempt(
        self, p: Reverse, x: Tensor, t: Instant, s: Instant, known: Known | None
    ) -> Attempt:
        """Both members share their evaluations."""
        assert isinstance(p.sde, LinearSDE) and isinstance(t, Level) and isinstance(s, Level)
        form, sde = NoiseForm(), p.sde
        eps = p.model(x, t).eps if known is None else known[0]
        a = between(sde, t, s, 1 / self.order, "logSNR")
        x_a = advance(p, form, x, t, a, [form.total(p, t, a)], [eps])
        eps_a = p.model(x_a, a).eps
        second = advance(p, form, x, t, s, middle(p, form, a, t, s), [eps, eps_a])
        if self.order == 2:
            low = advance(p, form, x, t, s, [form.total(p, t, s)], [eps])
            return Attempt(second, second - low, (eps,), None, self.order)
        b = between(sde, t, s, 2 / 3, "logSNR")
        x_b = advance(p, form, x, t, b, lagrange(p, form, [t, a], t, b), [eps, eps_a])
        eps_b = p.model(x_b, b).eps
        third = advance(p, form, x, t, s, lagrange(p, form, [t, b], t, s), [eps, eps_b])
        return Attempt(third, third - second, (eps,), None, self.order)


@dataclass(frozen=True)
class GottaGoFast(Adaptive):
    """Adaptive stochastic Heun on any SDE.  Jolicoeur-Martineau et al. (2021), alg. 1.

    The error is the difference of Euler-Maruyama and the stochastic trapezoidal rule, which is
    kept. A rejected step is tried again on the same Brownian path, where the paper draws anew and
    so favours small increments: the noise must be a path, which ``seed=`` makes of itself.
    """

    rtol: float = 0.02
    atol: float = 0.0078
    max_nfe: int = 10_000
    per_sample: bool = True
    clock = "t"
    stages, eta = 2, 1.0
    traits = own_steps(order=2, any_eta=True, needs_path=True)
    presets: ClassVar = {
        "gotta_go_fast": Preset({}, "Gotta Go Fast, Jolicoeur-Martineau et al. (2021), alg. 1")
    }

    def __post_init__(self) -> None:
        check_control(self)

    def size(self, largest: Tensor) -> Tensor:
        """max(atol, rtol |x|)."""
        return (self.rtol * largest).clamp(min=self.atol)

    def attempt(
        self, p: Reverse, x: Tensor, t: Instant, s: Instant, known: Known | None
    ) -> Attempt:
        """One step of stochastic Heun; the error's order is the paper's exponent, r = 0.9."""
        drift = p.drift(x, t) if known is None else known[0]
        once, mean = heun_pair(p, x, t, s, drift)
        return Attempt(mean, mean - once, (drift,), None, 1 / 0.9)

"""Classical Runge-Kutta methods on the probability-flow ODE, in a clock of your choice."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.sde.level import Instant, Level, expand, spread
from sdegen.sde.process import LinearSDE, has_coordinates, on_reference
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import Clock
from sdegen.solvers.solver import Preset, Solver, Step
from sdegen.solvers.traits import Traits


def clock_reading(p: Reverse, clock: Clock, level: Instant) -> Tensor:
    """What a clock shows at a level: one for all coordinates, the reference's if they differ."""
    value: Tensor = getattr(level if clock == "t" else on_reference(p.sde, level), clock)
    return value


def pace(p: Reverse, clock: Clock, level: Level) -> Tensor:
    """How fast a coordinate's own lam or rho goes beside the reference's, in which it is solved:
    by  d lam = -g^2 / (2 sigma^2) dt  and  d rho = -rho d lam."""
    mine, its = level, on_reference(p.sde, level)
    ratio = (mine.g2 / mine.sigma**2) / spread(its.g2 / its.sigma**2, mine.lam.ndim)
    return ratio if clock == "lam" else ratio * mine.rho / spread(its.rho, mine.lam.ndim)


def within_step(time: Tensor, t: Instant, s: Instant) -> Tensor:
    """A time, never outside the step from t to s."""
    return time.clamp(torch.minimum(t.t, s.t), torch.maximum(t.t, s.t))


def level_at(p: Reverse, clock: Clock, u: Tensor) -> Instant:
    """The level at which a clock shows u."""
    if clock == "t":
        return p.sde(u)
    assert isinstance(p.sde, LinearSDE)
    return p.sde(p.sde.reference.time(u if clock == "lam" else -u.log()))


def slope(p: Reverse, clock: Clock, x: Tensor, level: Instant) -> Tensor:
    """dy/dt of y = x; dy/d rho = eps of y = x / alpha; or, of y = x / n, n^2 = alpha^2 + sigma^2,

    dy/d lam = alpha sigma / n^3 (sigma x0 - alpha eps), which has no linear part left. Where
    coordinates differ, lam and rho are the reference's, see ``pace``.
    """
    if clock == "t":
        return p.drift(x, level)
    assert isinstance(level, Level)
    own = pace(p, clock, level) if has_coordinates(p.sde) else 1.0
    if clock == "rho":
        return p.model(x, level).view(0.0, own)
    alpha, sigma = level.alpha, level.sigma
    c = own * alpha * sigma / (alpha**2 + sigma**2) ** 1.5
    return p.model(x, level).view(c * sigma, -c * alpha)


def clock_scale(clock: Clock, level: Instant) -> Tensor | float:
    """What x is divided by in that clock."""
    if clock == "t" or not isinstance(level, Level):
        return 1.0
    return level.alpha if clock == "rho" else (level.alpha**2 + level.sigma**2).sqrt()


class Tableau(NamedTuple):
    """Butcher's coefficients of an explicit method, and the order they give it."""

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


class RungeKutta(Solver):
    """k_i = slope(y + h sum_j a_ij k_j, u + c_i h);  y_s = y + h sum_i b_i k_i.

    clock: "t", the SDE's own time, on any SDE; or "lam" or "rho" of a linear one, in which every
    linear SDE has the same flow (see ``slope``). "rho" is Karras et al.'s (2022) sigma.
    """

    clock: Clock

    @property
    @abstractmethod
    def tableau(self) -> Tableau:
        """The method."""

    def __post_init__(self) -> None:
        if self.clock not in ("t", "lam", "rho"):
            raise ValueError(f"clock must be 't', 'lam' or 'rho', but it is {self.clock!r}.")

    @property
    def traits(self) -> Traits:
        """One network call a stage; alpha and sigma for every clock but the SDE's own."""
        order, calls = self.tableau.order, len(self.tableau.b)
        return Traits(order=order, calls=calls, needs_marginals=self.clock != "t")

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """One step of the tableau."""
        c, a, b = self.tableau[1:]
        k = stages(p, self.clock, x, t, s, c, a)
        return Step(add_slopes(p, self.clock, x, t, s, s, k, b))


def stages(
    p: Reverse,
    clock: Clock,
    x: Tensor,
    t: Instant,
    s: Instant,
    c: Sequence[float],
    a: Sequence[Sequence[float]],
    first: Tensor | None = None,
) -> list[Tensor]:
    """Every k_i, (b, *); ``first`` is k_1 where it is known already."""
    u = clock_reading(p, clock, t)
    h = clock_reading(p, clock, s) - u
    k = [slope(p, clock, x, t) if first is None else first]
    for c_i, row in zip(c[1:], a[1:], strict=True):
        m = s if c_i == 1 else level_at(p, clock, u + c_i * h)
        k.append(slope(p, clock, add_slopes(p, clock, x, t, m, s, k, row), m))
    return k


def add_slopes(
    p: Reverse,
    clock: Clock,
    x: Tensor,
    t: Instant,
    m: Instant,
    s: Instant,
    k: Sequence[Tensor],
    weights: Sequence[float],
) -> Tensor:
    """x at level m after h sum_i w_i k_i, where h is the step from t to s."""
    h = clock_reading(p, clock, s) - clock_reading(p, clock, t)
    y = expand(1 / clock_scale(clock, t), x) * x
    for w, k_i in zip(weights, k, strict=True):
        if w:
            y = y + expand(w * h, x) * k_i
    moved: Tensor = expand(clock_scale(clock, m), x) * y
    return moved


@dataclass(frozen=True)
class Euler(RungeKutta):
    """y + slope h, the straight line."""

    clock: Clock = "t"
    tableau = Tableau(1, (0.0,), ((),), (1.0,))
    presets: ClassVar = {"euler": Preset({}, "Euler's method on Song et al. (2021), eq. 13")}


@dataclass(frozen=True)
class Heun(RungeKutta):
    """The trapezoidal rule.  With clock "rho": Karras et al. (2022), alg. 1, on any linear SDE."""

    clock: Clock = "t"
    tableau = Tableau(2, (0.0, 1.0), ((), (1.0,)), (1 / 2, 1 / 2))
    presets: ClassVar = {
        "heun": Preset({}, "trapezoidal rule in t"),
        "edm_heun": Preset({"clock": "rho"}, "Karras et al. (2022), alg. 1"),
    }


@dataclass(frozen=True)
class RK3(RungeKutta):
    """Bogacki and Shampine's third-order method (1989)."""

    clock: Clock = "t"
    tableau = Tableau(
        order=3,
        c=(0.0, 1 / 2, 3 / 4),
        a=((), (1 / 2,), (0.0, 3 / 4)),
        b=(2 / 9, 1 / 3, 4 / 9),
    )
    presets: ClassVar = {"rk3": Preset({}, "Bogacki & Shampine (1989)")}


@dataclass(frozen=True)
class RK4(RungeKutta):
    """Kutta's fourth-order method (1901)."""

    clock: Clock = "t"
    tableau = Tableau(
        order=4,
        c=(0.0, 1 / 2, 1 / 2, 1.0),
        a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
        b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    )
    presets: ClassVar = {
        "rk4": Preset({}, "Kutta (1901), in t"),
        "rk4_lam": Preset({"clock": "lam"}, "Kutta (1901), in lam"),
    }


@dataclass(frozen=True)
class RK5(RungeKutta):
    """Dormand and Prince's fifth-order method (1980)."""

    clock: Clock = "t"
    tableau = Tableau(
        order=5,
        c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
        a=(
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    )
    presets: ClassVar = {"rk5": Preset({}, "Dormand & Prince (1980)")}

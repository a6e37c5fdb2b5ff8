"""A stabilised Runge-Kutta method inside each step, which asks a polynomial for the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sdegen.checks import one_of, whole
from sdegen.model.prediction import LinearPrediction
from sdegen.sde.level import NO_SIGNAL, Level, expand, spread
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import NoiseForm, StraightForm
from sdegen.solvers.solver import Preset, Solver, Step
from sdegen.solvers.traits import Traits


class Clocked(ABC):
    """The flow in a clock u, of y = x / scale:  dy/du = pull y + push Q,  Q a prediction."""

    @abstractmethod
    def clock(self, level: Level) -> Tensor:
        """u at a level."""

    @abstractmethod
    def scale(self, level: Level) -> Tensor:
        """What x is divided by."""

    @abstractmethod
    def view(self, prediction: LinearPrediction) -> Tensor:
        """Q, (b, *)."""

    @abstractmethod
    def rates(self, sde: Any, t: Level, u: Tensor) -> tuple[Tensor, Tensor]:
        """pull and push where the clock shows u, (stages, *)."""


class Straightened(Clocked):
    """dy/dtau = eps - x0,  y = x / (alpha + sigma), tau = sigma / (alpha + sigma)."""

    def clock(self, level: Level) -> Tensor:
        """tau."""
        return level.tau

    def scale(self, level: Level) -> Tensor:
        """alpha + sigma."""
        return level.alpha + level.sigma

    def view(self, prediction: LinearPrediction) -> Tensor:
        """eps - x0."""
        return StraightForm().view(prediction)

    def rates(self, sde: Any, t: Level, u: Tensor) -> tuple[Tensor, Tensor]:
        """0 and 1."""
        return torch.zeros_like(u), torch.ones_like(u)


class Noisy(Clocked):
    """dx/dt = f x + g^2 / (2 sigma) eps, in the SDE's own time."""

    def clock(self, level: Level) -> Tensor:
        """t."""
        return spread(level.t, level.alpha.ndim)

    def scale(self, level: Level) -> Tensor:
        """1."""
        return torch.ones_like(level.alpha)

    def view(self, prediction: LinearPrediction) -> Tensor:
        """eps."""
        return NoiseForm().view(prediction)

    def rates(self, sde: Any, t: Level, u: Tensor) -> tuple[Tensor, Tensor]:
        """f and g^2 / (2 sigma)."""
        at = sde(u.reshape(len(u), -1)[:, : t.t.numel()].reshape(-1))
        shape = len(u), *t.alpha.shape
        return at.f.reshape(shape), (at.g2 / (2 * at.sigma)).reshape(shape)


EQUATIONS: dict[str, Clocked] = {"straight": Straightened(), "eps": Noisy()}


@dataclass(frozen=True)
class STORK(Solver):
    """Stabilised Taylor orthogonal Runge-Kutta, of second order.  Tan et al. (2025), STORK-2.

    A step is one of the method of Runge, Kutta and Gegenbauer with many ``stages``, RKG2 of
    Skaras et al. (2021), stable as far as h |df/dx| = (stages + 4)(stages - 1) / 3. The first
    stage alone calls the network; at the others the polynomial through its last values stands for
    it, a Taylor polynomial by differences: of "straight", eps - x0 in tau, which a straight flow's
    own network says; or of "eps" in the SDE's t.

    A polynomial does not see what x does to the network, whatever the stages are stable for. So
    "straight" is a quadrature of order 2, for whose three values
    ``Multistep(3, prediction="straight", clock="tau")`` has the exact integral and order 3; "eps"
    is ``DEIS``, its integral by a method of order 2.

    order:  values that the polynomial goes through, one above the paper's derivative order.
    published: the stages' places as in the authors' code, (j^2 + j - 2) / (n^2 + n - 2) of the
            step, those of RKL2. With RKG2's weights, (j^2 + 3 j - 4) / (n^2 + 3 n - 4) is right;
            with the former the order is 1.

    Theirs halves the first step, for a call more: here that is another walk. STORK-4 needs no
    stages: those of a method of fourth order, ROCK4's or any, integrate a polynomial of degree 3
    exactly where they see no state, so that on "straight" it is that ``Multistep`` to rounding,
    and on "eps" ``DEIS`` up to h^5 a step.

    ValueError for "eps" on an SDE that ends without signal.
    """

    order: int = 3
    stages: int = 50
    prediction: Literal["straight", "eps"] = "straight"
    published: bool = False
    presets: ClassVar = {"stork": Preset({}, "STORK-2 on eps - x0, Tan et al. (2025)")}

    def __post_init__(self) -> None:
        whole("STORK's order", self.order, 1)
        whole("STORK's stages", self.stages, 2)
        one_of(self.prediction, "prediction", EQUATIONS)

    @property
    def traits(self) -> Traits:
        """Of order 2 at most, of 1 with the published places."""
        return Traits(order=1 if self.published else min(self.order, 2), needs_marginals=True)

    def check(self, p: Reverse) -> None:
        """Refuse eps where its drift is infinite."""
        sde: Any = p.sde
        if self.prediction == "eps" and bool((sde(sde.T).lam < NO_SIGNAL).any()):
            raise ValueError(
                f"STORK on eps has no value at t = {sde.T:g}, where {type(sde).__name__} has no "
                "signal left: take prediction='straight', or end the SDE earlier, as "
                "FlowSDE(T=0.999) does."
            )

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One call; memory is the last levels and values."""
        of = EQUATIONS[self.prediction]
        past = [(t, of.view(p.model(x, t))), *(memory or ())][: self.order]
        first, h = of.clock(t), of.clock(s) - of.clock(t)
        u = first + self.places().reshape(-1, *[1] * h.ndim) * h
        pull, push = of.rates(p.sde, t, u)
        basis = lagrange_at(torch.stack([of.clock(node) for node, _ in past]), u)
        carry, *weights = gegenbauer(h, pull, push.unsqueeze(1) * basis)
        x_s = expand(of.scale(s) / of.scale(t) * carry, x) * x
        for w, (_, q) in zip(weights, past, strict=True):
            x_s = x_s + expand(of.scale(s) * w, x) * q
        return Step(x_s, past)

    def places(self) -> Tensor:
        """Where in a step each stage's derivative is taken, (stages,)."""
        n, more = self.stages, 1 if self.published else 3
        j = torch.arange(n, dtype=torch.float64)
        place = (j**2 + more * j - 1 - more) / (n**2 + more * n - 1 - more)
        place[0], place[1] = 0.0, 4 / (3 * (n**2 + n - 2)) if self.published else pace(n)
        return place


def lagrange_at(knots: Tensor, u: Tensor) -> Tensor:
    """Lagrange's polynomials of knots (k, *) at u (n, *): (n, k, *)."""
    found = []
    for i, knot in enumerate(knots):
        others = [(u - other) / (knot - other) for j, other in enumerate(knots) if j != i]
        found.append(torch.stack([torch.ones_like(u), *others]).prod(0))
    return torch.stack(found, 1)


def gegenbauer(h: Tensor, pull: Tensor, push: Tensor) -> Tensor:
    """RKG2's step of  dy/du = pull y + push Q  over h, as the weights (1 + k, *) of y and Q.

    pull (n, *) and push (n, k, *) are those at its n stages.  Skaras et al. (2021).
    """
    n = len(pull)
    begin = torch.cat([torch.ones_like(pull[:1]), torch.zeros_like(push[0])])

    def slope(j: int, y: Tensor) -> Tensor:
        return pull[j] * y + torch.cat([torch.zeros_like(pull[:1]), push[j]])

    start = slope(0, begin)
    before, now = begin, begin + pace(n) * h * start
    for j in range(2, n + 1):
        mu, nu = (2 * j + 1) / j * b(j) / b(j - 1), -(j + 1) / j * b(j) / b(j - 2)
        change = slope(j - 1, now) - (1 - j * (j + 1) / 2 * b(j - 1)) * start
        before, now = (
            now,
            mu * (now + pace(n) * h * change) + nu * before + (1 - mu - nu) * begin,
        )
    return now


def pace(n: int) -> float:
    """The first of n stages' part of the step."""
    return 6 / ((n + 4) * (n - 1))


def b(j: int) -> float:
    """What Gegenbauer's polynomial of degree j is multiplied by in the j-th stage's."""
    if j < 2:
        return (1.0, 1 / 3)[j]
    return 4 * (j - 1) * (j + 4) / (3 * j * (j + 1) * (j + 2) * (j + 3))

"""First-order solvers of the reverse SDE: Song et al.'s predictors and DDPM's ancestral step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, expm1, sqrt

from sdegen.reverse import Reverse, renoise
from sdegen.sde import Instant, Level
from sdegen.solvers.solver import Solver, Step


@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """x + drift dt + eta g sqrt|dt| z, on any SDE.  Song et al. (2021), app. G."""

    order, eta, any_eta = 1, 1.0, True

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """One step, with the dt really taken in both terms."""
        return Step(x + p.drift(x, t) * (s.t - t.t) + p.shock(x, t, s))


@dataclass(frozen=True)
class ReverseDiffusion(Solver):
    """The forward kernel's own discretisation, reversed.  Song et al. (2021), eqs. 46-47.

    With x_t = a x_s + b z the kernel from s up to t, the step down is

    (2 - a) x + (1 + eta^2)/2 b^2 score + eta b z

    For VP, a^2 = 1 - beta_i and b^2 = beta_i; for VE, a = 1 and b^2 = sigma_i^2 - sigma_{i-1}^2.
    """

    order, eta, any_eta, marginals = 1, 1.0, True, True

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step."""
        a = t.alpha / s.alpha
        b2 = t.sigma**2 - (a * s.sigma) ** 2
        eta = p.eta_at(t)
        x_s = (2 - a) * x + (1 + eta**2) / 2 * b2 * p.model(x, t).score
        return Step(x_s + eta * sqrt(b2) * p.noise(x, t, s) if p.noisy else x_s)


@dataclass(frozen=True)
class Ancestral(Solver):
    """The Gaussian posterior of x_s given x_t and x0.  Ho et al. (2020), eqs. 7 and 11.

    variance: "small" is the posterior's own (beta-tilde), "large" that of the forward kernel from
    s up to t (beta). Song et al. (2021), app. F: large is their ancestral predictor for VP, small
    the one for VE.
    """

    variance: Literal["small", "large"] = "small"
    order, eta, marginals, pure_noise = 1, 1.0, True, True

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large"):
            raise ValueError(f"variance must be 'small' or 'large', but it is {self.variance!r}.")

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step."""
        keep = (t.alpha * s.sigma) / (s.alpha * t.sigma)
        var = t.sigma**2 - (t.alpha / s.alpha * s.sigma) ** 2
        if self.variance == "small":
            var = var * (s.sigma / t.sigma) ** 2
        return Step(renoise(p.model(x, t), s, keep, p.noise(x, t, s), sqrt(var)))


@dataclass(frozen=True)
class DDIM(Solver):
    """Song, Meng & Ermon (2021), eq. 12, on every linear SDE.

    eta = 0 is deterministic (DPM-Solver-1, exponential Euler), eta = 1 is DDPM with the small
    variance. The noise kept over a step h in lambda is  keep^2 = 1 - eta^2 (1 - e^{-2h}).
    """

    eta: float = 0.0
    order, marginals, pure_noise = 1, True, True

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ValueError(f"DDIM's eta lies in [0, 1], but it is {self.eta!r}.")

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step."""
        if self.eta == 0:
            return Step(renoise(p.model(x, t), s, 1.0, 0.0))
        fresh = self.eta**2 * -expm1(2 * (t.lam - s.lam))
        z = p.noise(x, t, s)
        return Step(renoise(p.model(x, t), s, sqrt(1 - fresh), z, s.sigma * sqrt(fresh)))

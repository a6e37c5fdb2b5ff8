"""Correctors stay at a level and mix; predictor-corrector puts them between the steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, sqrt, where

from sdegen.reverse import Eta, Reverse
from sdegen.sde import Level
from sdegen.solvers.solver import Solver, Step
from sdegen.solvers.stochastic import ReverseDiffusion


def norm(v: Tensor) -> Tensor:
    """The Euclidean norm of each sample of v (b, *), shape (b, 1, ...)."""
    return v.reshape(len(v), -1).norm(dim=1).reshape(-1, *[1] * (v.ndim - 1))


@dataclass(frozen=True)
class Langevin(Solver):
    """Annealed Langevin dynamics at level s, its step set by a signal-to-noise ratio.

    x + e score + sqrt(2 e) z,  e = 2 a (snr |z| / |score|)^2,  a = (alpha_t / alpha_s)^2: the
    1 - beta_i of the step just taken for VP, 1 for VE.  Song et al. (2021), algs. 4 and 5. Norms
    are those of each sample, so that samples do not depend on their neighbours. A sample whose
    score is exactly zero stays where it is.
    """

    snr: float = 0.16
    order, eta, marginals = 0, 1.0, True

    def __post_init__(self) -> None:
        if not self.snr > 0:
            raise ValueError(f"Langevin needs snr > 0, but snr = {self.snr!r}.")

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One Langevin step at level s."""
        score, z = p.model(x, s).score, p.noise.stream("corrector")(x, s, s)
        a = (t.alpha / s.alpha) ** 2
        length = norm(score)
        e = where(length > 0, 2 * a * (self.snr * norm(z) / length) ** 2, 0.0)
        return Step(x + e * score + sqrt(2 * e) * z)


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """A predictor's step to level s, then n corrections there.  Song et al. (2021), alg. 1.

    The corrector's bias does not vanish with the step, so no order is claimed.
    """

    predictor: Solver = field(default_factory=ReverseDiffusion)
    corrector: Solver = field(default_factory=Langevin)
    n: int = 1
    order = 0

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"PredictorCorrector needs n >= 0 corrections, but n = {self.n}.")
        if self.predictor.adaptive:
            raise ValueError(
                f"{type(self.predictor).__name__} chooses its own steps, so there is no step to "
                "correct after: use a fixed-step predictor."
            )

    @property
    def eta(self) -> Eta:  # type: ignore[override]
        """The predictor's."""
        return self.predictor.eta

    @property
    def any_eta(self) -> bool:  # type: ignore[override]
        """The predictor's."""
        return self.predictor.any_eta

    @property
    def marginals(self) -> bool:  # type: ignore[override]
        """Needed if either part needs them."""
        return self.predictor.marginals or self.corrector.marginals

    @property
    def evals(self) -> int:  # type: ignore[override]
        """Of one prediction and n corrections."""
        return self.predictor.evals + self.n * self.corrector.evals

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """Predict, then correct."""
        x, memory, _ = self.predictor.step(p, x, t, s, memory)
        for _ in range(self.n):
            x = self.corrector.step(p, x, t, s).x
        return Step(x, memory)

"""Correctors stay at a level and mix; predictor-corrector puts them between the steps."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, sqrt, where

from sdegen.sde.level import Instant, Level, expand
from sdegen.solvers.equation import Eta, Reverse
from sdegen.solvers.solver import Preset, Solver, Step
from sdegen.solvers.stochastic import ReverseDiffusion
from sdegen.solvers.traits import Traits


def norm(v: Tensor) -> Tensor:
    """The Euclidean norm of each sample of v (b, *), shape (b, 1, ...)."""
    return v.reshape(len(v), -1).norm(dim=1).reshape(-1, *[1] * (v.ndim - 1))


class Corrector(Solver):
    """Moves samples at one level towards that level's law:  x + e score + sqrt(2 e) z.

    As a solver of its own it stays at the step's end. Its noise is the source's stream
    "corrector". ``a`` in a step size is (alpha_t / alpha_s)^2 of the step from t to s, the
    1 - beta_i of DDPM; 1 for VE, and where the SDE has no alpha.
    """

    eta = 1.0

    @abstractmethod
    def size(self, score: Tensor, z: Tensor, at: Instant, a: Tensor | float) -> Tensor:
        """The step size e, broadcasting against the state."""

    def stay(self, p: Reverse, x: Tensor, at: Instant, t: Instant, s: Instant) -> Tensor:
        """One Langevin step at a level, in a step from t to s; none where there is no noise."""
        if isinstance(at, Level) and not bool(at.sigma.any()):
            return x
        score, z = p.model(x, at).score, p.noise.stream("corrector")(x, at, at)
        a = (t.alpha / s.alpha) ** 2 if isinstance(t, Level) and isinstance(s, Level) else 1.0
        e = self.size(score, z, at, expand(a, x))
        return x + e * score + sqrt(2 * e) * z

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """One Langevin step at level s."""
        return Step(self.stay(p, x, s, t, s))


@dataclass(frozen=True)
class Langevin(Corrector):
    """Langevin dynamics whose step is set by a signal-to-noise ratio.

    e = 2 a (snr |z| / |score|)^2.  Song et al. (2021), algs. 4 and 5.  norms: of each "sample", so
    that samples do not depend on their neighbours, or means over the "batch", as in the authors'
    code. A sample whose score is exactly zero stays where it is.
    """

    snr: float = 0.16
    norms: Literal["sample", "batch"] = "sample"
    traits = Traits(
        order=0,
        weak=0,
        strong=0,
        follows_flow=False,
        why_not_linear="the length of its step follows the norms of score and noise",
    )
    presets: ClassVar = {"langevin": Preset({}, "Song et al. (2021), algs. 4 and 5")}

    def __post_init__(self) -> None:
        if not self.snr > 0:
            raise ValueError(f"Langevin needs snr > 0, but snr = {self.snr!r}.")
        if self.norms not in ("sample", "batch"):
            raise ValueError(f"norms must be 'sample' or 'batch', but it is {self.norms!r}.")

    def size(self, score: Tensor, z: Tensor, at: Instant, a: Tensor | float) -> Tensor:
        """2 a (snr |z| / |score|)^2."""
        noise, length = norm(z), norm(score)
        if self.norms == "batch":
            noise, length = noise.mean(), length.mean()
        return where(length > 0, 2 * a * (self.snr * noise / length) ** 2, 0.0)


@dataclass(frozen=True)
class AnnealedLangevin(Corrector):
    """Langevin dynamics whose step follows the level's noise:  e = 2 a (snr sigma)^2.

    Song & Ermon (2019), alg. 1; "ald" in the code of Song et al. (2021).
    """

    snr: float = 0.16
    traits = Traits(order=0, weak=0, strong=0, needs_marginals=True, follows_flow=False)
    presets: ClassVar = {"annealed_langevin": Preset({}, "Song & Ermon (2019), alg. 1")}

    def __post_init__(self) -> None:
        if not self.snr > 0:
            raise ValueError(f"AnnealedLangevin needs snr > 0, but snr = {self.snr!r}.")

    def size(self, score: Tensor, z: Tensor, at: Instant, a: Tensor | float) -> Tensor:
        """2 a (snr sigma)^2."""
        assert isinstance(at, Level)
        return 2 * a * expand((self.snr * at.sigma) ** 2, z)  # type: ignore[return-value]


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """A predictor's step and n corrections.  Song et al. (2021), alg. 1.

    when: "after" predicting, at the new level, as in the paper; "before", at the old one, as in
    its code. The corrector's bias does not vanish with the step, so no order is claimed.
    """

    predictor: Solver = field(default_factory=ReverseDiffusion)
    corrector: Corrector = field(default_factory=Langevin)
    n: int = 1
    when: Literal["after", "before"] = "after"
    presets: ClassVar = {
        "predictor_corrector": Preset({}, "Song et al. (2021), alg. 1"),
        "corrector_predictor": Preset({"when": "before"}, "Song et al. (2021), its code"),
    }

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"PredictorCorrector needs n >= 0 corrections, but n = {self.n}.")
        if self.when not in ("after", "before"):
            raise ValueError(f"when must be 'after' or 'before', but it is {self.when!r}.")
        if not isinstance(self.corrector, Corrector):
            raise ValueError(
                f"A corrector stays at a level, as Langevin does, but {self.corrector!r} does not."
            )
        if getattr(self.predictor, "corrector", 0):
            raise ValueError(
                f"{type(self.predictor).__name__} corrects its own steps from where they began, "
                "which would undo a Langevin correction: use a predictor without a corrector."
            )
        if self.predictor.traits.adaptive:
            raise ValueError(
                f"{type(self.predictor).__name__} chooses its own steps, so there is no step to "
                "correct after: use a fixed-step predictor."
            )

    @property
    def eta(self) -> Eta:
        """The predictor's."""
        return self.predictor.eta

    @property
    def traits(self) -> Traits:
        """The predictor's, with n corrections a step; no order is left."""
        first, then = self.predictor.traits, self.corrector.traits
        return Traits(
            order=0,
            weak=0,
            strong=0,
            calls=first.calls + self.n * then.calls,
            calls_to_start=first.calls_to_start,
            any_eta=first.any_eta,
            needs_marginals=first.needs_marginals or then.needs_marginals,
            needs_path=first.needs_path,
            follows_flow=False,
            why_not_linear=first.why_not_linear or (then.why_not_linear if self.n else ""),
        )

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """Predict, then correct; or the other way round."""
        if self.when == "before":
            for _ in range(self.n):
                x = self.corrector.stay(p, x, t, t, s)
        x, memory, _ = self.predictor.step(p, x, t, s, memory)
        if self.when == "after":
            for _ in range(self.n):
                x = self.corrector.stay(p, x, s, t, s)
        return Step(x, memory)

"""Correctors stay at a level and mix; predictor-corrector puts them between the steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, where

from sdegen.checks import whole
from sdegen.model.denoiser import refuse_flow_only
from sdegen.sde.level import Instant, Level, expand, with_marginals
from sdegen.sde.process import linear
from sdegen.solvers.equation import Eta, Reverse
from sdegen.solvers.solver import Preset, Solver, Step, check_solver, refuse_own_walk
from sdegen.solvers.stochastic import ReverseDiffusion
from sdegen.solvers.traits import Traits

ALONE = (
    "Langevin() corrects at a level and goes nowhere by itself: use "
    "PredictorCorrector(corrector=Langevin()), or AnnealedLangevin(), which samples by Langevin "
    "steps alone."
)


def norm(v: Tensor) -> Tensor:
    """The Euclidean norm of each sample of v (b, *), shape (b, 1, ...)."""
    return v.reshape(len(v), -1).norm(dim=1).reshape(-1, *[1] * (v.ndim - 1))


class Corrector(ABC):
    """Moves samples at one level towards that level's law:  x + e score + sqrt(2 e) z.

    It is no solver: it goes nowhere. Its noise is the source's stream "corrector".
    """

    no_solver: ClassVar[str] = ALONE
    """What whoever takes it for one is told."""

    @property
    def needs_marginals(self) -> bool:
        """True when it needs alpha and sigma, that is a LinearSDE."""
        return False

    @property
    def why_not_linear(self) -> str:
        """Why its step is not linear in state, score and noise; "" where it is."""
        return ""

    @abstractmethod
    def size(self, score: Tensor, z: Tensor, at: Instant, a: Tensor | float) -> Tensor | float:
        """The step size e of score and noise (b, *) at a level, broadcasting against both."""

    def stay(self, p: Reverse, x: Tensor, at: Instant, a: Tensor | float = 1.0) -> Tensor:
        """One Langevin step of states x (b, *) at a level: one network call.  Of no length where
        there is no noise.

        a: (alpha_t / alpha_s)^2 of the step from t to s that is corrected, the 1 - beta_i of DDPM.
        """
        score, z = p.model(x, at).score, p.noise.stream("corrector")(x, at, at)
        e = self.size(score, z, at, expand(a, x))
        moved = x + e * score + (2 * e) ** 0.5 * z
        if not self.why_not_linear or not isinstance(at, Level):
            return moved  # by the level e is 0 there, and no score is asked: see ``walked``
        noisy = torch.as_tensor(expand(at.sigma > 0, x)).bool()
        return torch.where(noisy.to(x.device), moved, x)


@dataclass(frozen=True)
class Langevin(Corrector):
    """Langevin dynamics whose step is set by a signal-to-noise ratio:  e = 2 a (snr r)^2.

    Song et al. (2021), algs. 4 and 5, where r = |z| / |score|.

    norms: "level", r = sigma: the least that the ratio of the expectations can be, for
           score = -E[eps | x] / sigma, and so E|score|^2 <= d / sigma^2 by Jensen, E|z|^2 = d. It
           is the level's alone, stable for snr < 1 on data of any dimension.
           "sample", the norms of each sample: heavy-tailed in few dimensions, where a score
           may vanish and the step is then as long as it likes. "batch", their means over the
           batch, as in the authors' code: samples depend on their neighbours.
    snr:   default 0.16 with norms, as in the authors' code, and 0.3 with the level, whose r is
           the shorter one.

    By norms a sample whose score is exactly zero stays where it is. ValueError for an snr that is
    not positive, and "level" at the level of an SDE without alpha and sigma.
    """

    snr: float | None = None
    norms: Literal["level", "sample", "batch"] = "level"

    def __post_init__(self) -> None:
        if self.snr is not None and not self.snr > 0:
            raise ValueError(f"Langevin needs snr > 0, but snr = {self.snr!r}.")
        if self.norms not in ("level", "sample", "batch"):
            raise ValueError(
                f"norms must be 'level', 'sample' or 'batch', but it is {self.norms!r}."
            )

    @property
    def needs_marginals(self) -> bool:
        """For the level's sigma."""
        return self.norms == "level"

    @property
    def why_not_linear(self) -> str:
        """The norms."""
        if self.norms == "level":
            return ""
        return "the length of its step follows the norms of score and noise"

    def size(self, score: Tensor, z: Tensor, at: Instant, a: Tensor | float) -> Tensor | float:
        """2 a (snr r)^2."""
        if self.norms == "level":
            snr = 0.3 if self.snr is None else self.snr
            return 2 * a * expand((snr * with_marginals(at).sigma) ** 2, z)
        snr = 0.16 if self.snr is None else self.snr
        noise, length = norm(z), norm(score)
        if self.norms == "batch":
            noise, length = noise.mean(), length.mean()
        return where(length > 0, 2 * a * (snr * noise / length) ** 2, 0.0)


@dataclass(frozen=True)
class AnnealedLangevin(Solver):
    """Langevin dynamics alone, at one level after another.  Song & Ermon (2019), alg. 1.

    At every level of the walk after the first n steps  x + e score + sqrt(2 e) z  with
    e = 2 (snr sigma)^2. From one level to the next the state keeps its x / alpha, in which the
    algorithm, written for alpha = 1, is the same on every SDE.

    It needs fine walks: on Gaussian data the variance lags behind the level's by about
    dlog sigma / (2 n snr^2), where dlog sigma is the distance of two levels, and a level's own law
    is off by e / (2 var). On 100 levels of log_snr and data of std 0.36 the std is 1.2 % (VP) to
    1.8 % (sub-VP) too large, on 25 levels 5 to 8 %. snr < 1 is stable; above 0.5 the noise that is
    left at the end grows, its variance by 1 / (1 - snr^2).
    """

    snr: float = 0.5
    n: int = 10
    eta = 1.0
    presets: ClassVar = {"annealed_langevin": Preset({}, "Song & Ermon (2019), alg. 1")}

    def __post_init__(self) -> None:
        whole("AnnealedLangevin's n", self.n)
        if not self.snr > 0:
            raise ValueError(f"AnnealedLangevin needs snr > 0, but snr = {self.snr!r}.")

    @property
    def traits(self) -> Traits:
        """n network calls a level; no order."""
        return Traits(
            order=0, weak=0, strong=0, calls=self.n, needs_marginals=True, follows_flow=False
        )

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """From t to s in x / alpha, and n Langevin steps there."""
        x, langevin = expand(s.alpha / t.alpha, x) * x, Langevin(self.snr)
        for _ in range(self.n):
            x = langevin.stay(p, x, s)
        return Step(x)


@dataclass(frozen=True)
class PredictorCorrector(Solver):
    """A predictor's step and n corrections.  Song et al. (2021), alg. 1.

    when: "after" predicting, at the new level, as in the paper; "before", at the old one, as in
    its code. The corrector's bias does not vanish with the step, so no order is claimed.
    Langevin's steps follow the level by default; ``song_pc`` has the authors' norms.
    """

    predictor: Solver = field(default_factory=ReverseDiffusion)
    corrector: Corrector = field(default_factory=Langevin)
    n: int = 1
    when: Literal["after", "before"] = "after"
    presets: ClassVar = {
        "predictor_corrector": Preset({}, "Song et al. (2021), alg. 1, the step by the level"),
        "corrector_predictor": Preset({"when": "before"}, "the same, as in its code: before"),
        "song_pc": Preset(
            {"corrector": Langevin(norms="batch")}, "Song et al. (2021), algs. 1, 4 and 5"
        ),
    }

    def __post_init__(self) -> None:
        if self.n < 0:
            raise ValueError(f"PredictorCorrector needs n >= 0 corrections, but n = {self.n}.")
        if self.when not in ("after", "before"):
            raise ValueError(f"when must be 'after' or 'before', but it is {self.when!r}.")
        if not isinstance(self.corrector, Corrector):
            raise ValueError(
                "A corrector stays at a level, as Langevin() does, but "
                f"{self.corrector!r} does not."
            )
        check_solver(self.predictor)
        refuse_own_walk(self.predictor, "PredictorCorrector")
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
        first, then = self.predictor.traits, self.corrector
        return Traits(
            order=0,
            weak=0,
            strong=0,
            calls=first.calls + self.n,
            calls_to_start=first.calls_to_start,
            any_eta=first.any_eta,
            needs_marginals=first.needs_marginals or (self.n > 0 and then.needs_marginals),
            needs_path=first.needs_path,
            follows_flow=False,
            why_not_linear=first.why_not_linear or (then.why_not_linear if self.n else ""),
        )

    def check(self, p: Reverse) -> None:
        """Refuse a corrector that asks for more than the SDE gives."""
        self.predictor.check(p)
        if self.n:
            refuse_flow_only(p.model, f"{self.corrector}")
        if self.n and self.corrector.needs_marginals:
            instead = 'use PredictorCorrector(EulerMaruyama(), Langevin(norms="batch"))'
            linear(p.sde, f"{self.corrector}", instead)

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """Predict, then correct; or the other way round."""
        a = (t.alpha / s.alpha) ** 2 if isinstance(t, Level) and isinstance(s, Level) else 1.0
        if self.when == "before":
            for _ in range(self.n):
                x = self.corrector.stay(p, x, t, a)
        x, memory, _ = self.predictor.step(p, x, t, s, memory)
        if self.when == "after":
            for _ in range(self.n):
                x = self.corrector.stay(p, x, s, a)
        return Step(x, memory)

"""Forward processes: what turns data into noise, and everything that is known about it.

A linear SDE  dx = f(t) x dt + g(t) dw  has Gaussian marginals  x_t = alpha x0 + sigma z,  and its
two curves alpha(t), sigma(t) determine everything else:

    f = d log alpha / dt      g^2 = d sigma^2 / dt - 2 f sigma^2      lam = log(alpha / sigma)

Time runs from data (t_min) to noise (T).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, sqrt

from sdegen.sde.level import Instant, Level, expand, float64_time


@dataclass(frozen=True)
class Prior:
    """The noise that sampling starts from: N(0, std^2 I).  ``std`` broadcasts against a state."""

    std: float | Tensor = 1.0

    def sample(self, z: Tensor) -> Tensor:
        """Standard normal draws z (b, *) turned into draws from the prior."""
        return self.std * z

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of each sample of x (b, *), shape (b,)."""
        std = torch.as_tensor(self.std, dtype=x.dtype, device=x.device).expand_as(x)
        return (
            torch.distributions.Normal(0.0, std, validate_args=False)
            .log_prob(x)
            .reshape(len(x), -1)
            .sum(1)
        )


class SDE(ABC):
    """Any forward process  dx = drift(x, t) dt + diffusion(x, t) dw  on t in [t_min, T].

    Write ``drift``, ``diffusion`` and ``prior`` and every drift-based solver samples from it;
    write ``perturb`` too and a score model can be trained on it. Times are tensors of shape ()
    or (b,), states are (b, *). The diffusion must not depend on the state's value (additive
    noise, as in every process of the field): then Anderson's reverse drift needs no divergence.
    """

    T: float
    t_min: float
    matrix: ClassVar[bool] = False
    """True when ``diffusion`` returns matrices (..., d, m) acting on a state's last axis."""

    @abstractmethod
    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """The deterministic part, of x's shape (b, *)."""

    @abstractmethod
    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        """The factor of dw: broadcasts against x, or (..., d, m) where ``matrix`` is True."""

    @property
    @abstractmethod
    def prior(self) -> Prior:
        """The law of x at time T."""

    def __call__(self, t: Tensor | float) -> Instant:
        """What is known at time t, () or (b,)."""
        return Instant(float64_time(t))

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data x0 (b, *) at times t (b,): (x_t, score of x_t given x0), from normal draws z."""
        raise ValueError(
            f"{type(self).__name__} has no transition kernel in closed form: define "
            "perturb(x0, t, z) -> (x_t, score of x_t given x0) on it to train a score model."
        )


class LinearSDE(SDE):
    """dx = f(t) x dt + g(t) dw, given by its marginals.  Called at a time it gives the Level."""

    @abstractmethod
    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t, () or (b,); float64."""

    @abstractmethod
    def time(self, lam: Tensor) -> Tensor:
        """The time at which log(alpha / sigma) = lam."""

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """f(t) x."""
        return expand(self(t).f, x) * x

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        """g(t), () or (b, 1, ...)."""
        return torch.as_tensor(expand(sqrt(self(t).g2), x))

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x_t = alpha x0 + sigma z, whose score given x0 is -z / sigma.  z: by default, drawn."""
        level, z = self(t), torch.randn_like(x0) if z is None else z
        return self.mix(x0, level, z), -z / expand(level.sigma, x0)

    def mix(self, x0: Tensor, level: Level, z: Tensor) -> Tensor:
        """alpha x0 + sigma z at a level already made."""
        return expand(level.alpha, x0) * x0 + expand(level.sigma, x0) * z


def linear(sde: SDE, who: str, instead: str) -> LinearSDE:
    """The SDE as one with marginals; ValueError that says who needs them, and what to do instead.

    who: what stands at the head of the sentence.  instead: what follows its colon.
    """
    if not isinstance(sde, LinearSDE):
        raise ValueError(
            f"{who} needs alpha and sigma, but {type(sde).__name__} gives only drift and "
            f"diffusion: {instead}."
        )
    return sde


def check_interval(sde: SDE, longest: float = math.inf) -> None:
    """Refuse times that are not 0 <= t_min < T <= longest."""
    if not 0 <= sde.t_min < sde.T <= longest:
        raise ValueError(
            f"{type(sde).__name__} runs on 0 <= t_min < T <= {longest:g}, "
            f"but t_min = {sde.t_min:g} and T = {sde.T:g}."
        )


def check_order(sde: SDE, low: str, high: str) -> None:
    """Refuse parameters that are not 0 < low <= high."""
    a, b = getattr(sde, low), getattr(sde, high)
    if not 0 < a <= b < math.inf:
        raise ValueError(
            f"{type(sde).__name__} needs 0 < {low} <= {high}, "
            f"but {low} = {a:g} and {high} = {b:g}."
        )

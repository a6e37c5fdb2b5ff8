"""Forward processes: what turns data into noise, and everything that is known about it.

A linear SDE  dx = f(t) x dt + g(t) dw  has Gaussian marginals  x_t = alpha x0 + sigma z,  and its
two curves alpha(t), sigma(t) determine everything else:

    f = d log alpha / dt      g^2 = d sigma^2 / dt - 2 f sigma^2      lam = log(alpha / sigma)

Time runs from data (t_min) to noise (T).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, exp, expm1, log, sqrt
from torch.nn.functional import softplus

NO_SIGNAL = -25.0
"""Below this log(alpha / sigma) a state holds no trace of x0: alpha counts as zero."""


def expand(c: Tensor | float, x: Tensor) -> Tensor | float:
    """A coefficient, () or (b,), made ready to multiply a state x (b, *).

    A 0-d float64 tensor stays as it is: it neither promotes a float32 state nor synchronises a
    device. A per-sample coefficient becomes (b, 1, ...) in the state's dtype.
    """
    if not isinstance(c, Tensor) or c.ndim == 0:
        return c
    return c.to(x).reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True, eq=False)
class Instant:
    """All that any SDE knows at one time: the time itself, () or (b,)."""

    t: Tensor

    def unbind(self) -> list[Instant]:
        """A level of many times (n,) as n levels of one time () each."""
        columns = [getattr(self, field.name).unbind() for field in fields(self)]
        return [type(self)(*row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True, eq=False)
class Level(Instant):
    """All that a linear SDE knows at one time: tensors of the time's shape, () or (b,).

    alpha, sigma: x_t = alpha x0 + sigma z.   d_alpha, d_var: d alpha / dt and d sigma^2 / dt.
    (The slope of sigma^2 is kept, not that of sigma: it stays finite where sigma leaves zero.)
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_var: Tensor

    @cached_property
    def lam(self) -> Tensor:
        """Half the log signal-to-noise ratio, log(alpha / sigma)."""
        return log(self.alpha) - log(self.sigma)

    @cached_property
    def rho(self) -> Tensor:
        """Noise beside unit signal, sigma / alpha: the sigma of Karras et al. (2022)."""
        return self.sigma / self.alpha

    @cached_property
    def tau(self) -> Tensor:
        """sigma / (alpha + sigma): the time of the straight flow (1 - tau) x0 + tau eps."""
        return self.sigma / (self.alpha + self.sigma)

    @cached_property
    def d_sigma(self) -> Tensor:
        """d sigma / dt."""
        return self.d_var / (2 * self.sigma)

    @cached_property
    def f(self) -> Tensor:
        """Linear drift, d log alpha / dt."""
        return self.d_alpha / self.alpha

    @cached_property
    def g2(self) -> Tensor:
        """Squared diffusion, d sigma^2 / dt - 2 f sigma^2."""
        return self.d_var - 2 * self.f * self.sigma**2


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
        return Instant(clock(t))

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data x0 (b, *) at times t (b,): (x_t, score of x_t given x0), from normal draws z."""
        raise ValueError(
            f"{type(self).__name__} has no transition kernel in closed form: define "
            "perturb(x0, t, z) -> (x_t, score of x_t given x0) on it to train a score model."
        )


def clock(t: Tensor | float) -> Tensor:
    """A time in float64, where levels are decided: float32 is 9 % off in sigma at t = 1e-6."""
    return torch.as_tensor(t, dtype=torch.float64)


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


@dataclass(frozen=True)
class LinearBetaSDE(LinearSDE):
    """beta(t) = beta_min + t (beta_max - beta_min), the clock that VP and sub-VP share."""

    beta_min: float = 0.1
    beta_max: float = 20.0
    T: float = 1.0
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        check_interval(self)
        check_order(self, "beta_min", "beta_max")

    @property
    def prior(self) -> Prior:
        """N(0, I)."""
        return Prior(1.0)

    def beta(self, t: Tensor) -> Tensor:
        """The noise rate at time t."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Tensor) -> Tensor:
        """-1/2 INT_0^t beta.  Song et al. (2021), eq. 33."""
        return -(t**2) * (self.beta_max - self.beta_min) / 4 - t * self.beta_min / 2

    def time_of(self, log_alpha: Tensor) -> Tensor:
        """The time at which log alpha has the given value: the root without cancellation."""
        slope = self.beta_max - self.beta_min
        return -4 * log_alpha / (self.beta_min + sqrt(self.beta_min**2 - 4 * slope * log_alpha))


@dataclass(frozen=True)
class VPSDE(LinearBetaSDE):
    """dx = -beta/2 x dt + sqrt(beta) dw.  Song et al. (2021), eqs. 11 and 32-33.

    alpha = exp(-1/2 INT beta), sigma^2 = 1 - alpha^2: the continuous limit of DDPM.
    """

    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t."""
        t = clock(t)
        log_alpha, beta = self.log_alpha(t), self.beta(t)
        alpha = exp(log_alpha)
        return Level(t, alpha, sqrt(-expm1(2 * log_alpha)), -beta / 2 * alpha, beta * alpha**2)

    def time(self, lam: Tensor) -> Tensor:
        """alpha^2 = sigmoid(2 lam)."""
        return self.time_of(-softplus(-2 * lam) / 2)


@dataclass(frozen=True)
class SubVPSDE(LinearBetaSDE):
    """dx = -beta/2 x dt + sqrt(beta (1 - e^{-2 INT beta})) dw.  Song et al. (2021), eqs. 28-29.

    alpha as VP, sigma = 1 - alpha^2 (no square root): its variance is bounded by VP's.
    """

    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t."""
        t = clock(t)
        log_alpha, beta = self.log_alpha(t), self.beta(t)
        alpha, sigma = exp(log_alpha), -expm1(2 * log_alpha)
        return Level(t, alpha, sigma, -beta / 2 * alpha, 2 * sigma * beta * alpha**2)

    def time(self, lam: Tensor) -> Tensor:
        """alpha / (1 - alpha^2) = e^lam is solved by log alpha = -asinh(e^-lam / 2)."""
        return self.time_of(-torch.asinh(exp(-lam) / 2))


@dataclass(frozen=True)
class VESDE(LinearSDE):
    """dx = sigma sqrt(2 log(sigma_max / sigma_min)) dw.  Song et al. (2021), eqs. 30-31.

    alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t: sigma(t) itself is the marginal std.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    T: float = 1.0
    t_min: float = 1e-5

    def __post_init__(self) -> None:
        check_interval(self)
        check_order(self, "sigma_min", "sigma_max")

    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t."""
        t = clock(t)
        rate = math.log(self.sigma_max / self.sigma_min)
        one, sigma = torch.ones_like(t), self.sigma_min * exp(t * rate)
        return Level(t, one, sigma, 0 * one, 2 * rate * sigma**2)

    def time(self, lam: Tensor) -> Tensor:
        """sigma = e^-lam."""
        return (-lam - math.log(self.sigma_min)) / math.log(self.sigma_max / self.sigma_min)

    @property
    def prior(self) -> Prior:
        """N(0, sigma(T)^2 I)."""
        return Prior(self.sigma_min * (self.sigma_max / self.sigma_min) ** self.T)

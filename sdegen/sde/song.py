"""The three SDEs of Song et al. (2021): variance preserving, sub-VP and variance exploding."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, exp, expm1, sqrt
from torch.nn.functional import softplus

from sdegen.sde.level import Level, float64_time
from sdegen.sde.process import LinearSDE, Prior, check_interval, check_order


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
        t = float64_time(t)
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
        t = float64_time(t)
        log_alpha, beta = self.log_alpha(t), self.beta(t)
        alpha, sigma = exp(log_alpha), -expm1(2 * log_alpha)
        d_sigma = beta * alpha**2
        return Level(t, alpha, sigma, -beta / 2 * alpha, 2 * sigma * d_sigma, d_sigma)

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
        t = float64_time(t)
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

"""Weightings w(t) of the squared error in eps: one half of a classical objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.checks import number
from sdegen.sde.level import Level

Weighting = Callable[[Level], Tensor]


# ------------------------------- weightings of |eps_model - eps|^2, functions of a level


def sigma2(level: Level) -> Tensor:
    """lambda(t) = sigma^2 on the score, that is 1 on eps.  Song et al. (2021), sec. 3.3."""
    return torch.ones_like(level.alpha)


def likelihood(level: Level) -> Tensor:
    """lambda(t) = g^2 on the score, g^2 / sigma^2 on eps.  Song et al. (2021b), thm. 1."""
    return level.g2 / level.sigma**2


def velocity(level: Level) -> Tensor:
    """1 on the flow's velocity: conditional flow matching.  Lipman et al. (2023), eq. 9."""
    return (level.g2 / (2 * level.sigma)) ** 2


@dataclass(frozen=True)
class EDMWeighting:
    """(rho^2 + sd^2) / (rho sd)^2 on x0.  Karras et al. (2022), table 1."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not number("sigma_data", self.sigma_data) > 0:
            raise ValueError(f"EDM's sigma_data must be positive, but it is {self.sigma_data!r}.")

    def __call__(self, level: Level) -> Tensor:
        """The weight at a level."""
        return level.rho**2 / self.sigma_data**2 + 1


@dataclass(frozen=True)
class MinSNR:
    """min(SNR, gamma) on x0.  Hang et al. (2023), eq. 9."""

    gamma: float = 5.0

    def __call__(self, level: Level) -> Tensor:
        """The weight at a level."""
        return (self.gamma * level.rho**2).clamp(max=1.0)


def truncated_snr(level: Level) -> Tensor:
    """max(SNR, 1) on x0.  Salimans & Ho (2022), sec. 4."""
    return level.rho.square().clamp(min=1.0)


def straight(level: Level) -> Tensor:
    """1 on eps - x0, the velocity of the straight flow: (1 + rho)^2 on eps."""
    return (1 + level.rho) ** 2


WEIGHTINGS: dict[str, Weighting] = {
    "sigma2": sigma2,
    "eps": sigma2,
    "likelihood": likelihood,
    "velocity": velocity,
    "edm": EDMWeighting(),
    "min_snr": MinSNR(),
    "truncated_snr": truncated_snr,
    "straight": straight,
}
"""By name. "eps" (Ho et al. 2020, eq. 14) is Song's sigma^2 under another name: one objective."""

"""Distributions of t to train at, (sde, u) -> (t, p_uniform / p), u uniform in [0, 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.losses.weightings import likelihood
from sdegen.sde.process import SDE, linear

Times = Callable[[SDE, Tensor], tuple[Tensor, Tensor]]


Draw = Callable[[int, torch.device, torch.Generator | None], Tensor]


# ---------------- distributions of t: (sde, u) -> (t, p_uniform / p), u uniform in [0, 1)


def uniform_time(sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
    """t uniform on [t_min, T]."""
    return sde.t_min + u * (sde.T - sde.t_min), torch.ones_like(u)


@dataclass(frozen=True)
class LogNormalTime:
    """ln(sigma / alpha) normal, cut to [t_min, T].  Karras et al. (2022), table 1.

    Part of the objective, as in the paper: the loss is not corrected for it.
    """

    mean: float = -1.2
    std: float = 1.2

    def __call__(self, sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        """Times and factors."""
        sde = linear(sde, "LogNormalTime", "use uniform_time").reference
        t = sde.time(-(self.mean + self.std * torch.special.ndtri(u)))
        return t.clamp(sde.t_min, sde.T), torch.ones_like(u)


def likelihood_time(sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
    """p(t) proportional to g^2 / sigma^2, corrected for.  Song et al. (2021b), sec. 5.1.

    As g^2 = -2 sigma^2 d lam / dt, this is lam uniform between its ends: with the likelihood
    weighting the product of weight and factor is constant, and the loss loses that variance.
    """
    sde = linear(sde, "likelihood_time", "use uniform_time").reference
    ends = sde(torch.tensor([sde.t_min, sde.T], dtype=u.dtype, device=u.device)).lam
    if u.device.type == "cpu" and not bool(ends.isfinite().all()):
        raise ValueError(
            f"likelihood_time draws lam between its ends on {type(sde).__name__}, but they are "
            f"{ends[0]:g} and {ends[1]:g}: use uniform_time, or an SDE that ends before its "
            "signal does and begins with some noise, as FlowSDE(T=0.999, t_min=1e-3) does."
        )
    t = sde.time(torch.lerp(ends[0], ends[1], u)).clamp(sde.t_min, sde.T)
    density = likelihood(sde(t)) / (2 * (ends[0] - ends[1]))
    return t, 1 / ((sde.T - sde.t_min) * density)


def independent(n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """n independent uniforms in [0, 1), float64."""
    return torch.rand(n, device=device, generator=generator, dtype=torch.float64)


def low_discrepancy(n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """(u + i / n) mod 1: one uniform for the whole batch.  Kingma et al. (2021), app. I.1."""
    u = independent(1, device, generator)
    return (u + torch.arange(n, device=device, dtype=torch.float64) / n) % 1

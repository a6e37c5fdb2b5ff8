"""Denoising score matching: what a score model is trained on.

A loss has two choices that are usually mixed up: the weighting w(t), a factor of the squared error
in eps, and the distribution that t is drawn from. Every classical objective is a pair of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.score import ScoreModel, one_of
from sdegen.sde import SDE, Level, LinearSDE, expand

Weighting = Callable[[Level], Tensor]
Times = Callable[[SDE, Tensor], tuple[Tensor, Tensor]]
Draw = Callable[[int, torch.device, torch.Generator | None], Tensor]


# ------------------------------- weightings of |eps_model - eps|^2, functions of a level


def sigma2(level: Level) -> Tensor:
    """lambda(t) = sigma^2 on the score, that is 1 on eps.  Song et al. (2021), sec. 3.3."""
    return torch.ones_like(level.t)


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


WEIGHTINGS: dict[str, Weighting] = {
    "sigma2": sigma2,
    "eps": sigma2,
    "likelihood": likelihood,
    "velocity": velocity,
    "edm": EDMWeighting(),
    "min_snr": MinSNR(),
}
"""By name. "eps" (Ho et al. 2020, eq. 14) is Song's sigma^2 under another name: one objective."""


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
        t = marginals(sde).time(-(self.mean + self.std * torch.special.ndtri(u)))
        return t.clamp(sde.t_min, sde.T), torch.ones_like(u)


def likelihood_time(sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
    """p(t) proportional to g^2 / sigma^2, corrected for.  Song et al. (2021b), sec. 5.1.

    As g^2 = -2 sigma^2 d lam / dt, this is lam uniform between its ends: with the likelihood
    weighting the product of weight and factor is constant, and the loss loses that variance.
    """
    clock = marginals(sde)
    ends = clock(torch.tensor([sde.t_min, sde.T], dtype=u.dtype, device=u.device)).lam
    t = clock.time(torch.lerp(ends[0], ends[1], u)).clamp(sde.t_min, sde.T)
    density = likelihood(clock(t)) / (2 * (ends[0] - ends[1]))
    return t, 1 / ((sde.T - sde.t_min) * density)


def marginals(sde: SDE) -> LinearSDE:
    """The SDE as one with marginals, or an error with the remedy."""
    if not isinstance(sde, LinearSDE):
        raise ValueError(
            f"This distribution of t needs alpha and sigma, which {type(sde).__name__} has not: "
            "use uniform_time."
        )
    return sde


def independent(n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """n independent uniforms in [0, 1), float64."""
    return torch.rand(n, device=device, generator=generator, dtype=torch.float64)


def low_discrepancy(n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """(u + i / n) mod 1: one uniform for the whole batch.  Kingma et al. (2021), app. I.1."""
    u = independent(1, device, generator)
    return (u + torch.arange(n, device=device, dtype=torch.float64) / n) % 1


# ------------------------------------------------------------------------------- the loss


def dsm_loss(
    model: ScoreModel,
    x0: Tensor,
    *,
    weighting: str | Weighting | None = None,
    times: Times = uniform_time,
    draw: Draw = independent,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoising score matching, one loss per sample: (b,).  Song et al. (2021), eq. 7.

        w(t) mean_i (eps_model(x_t, t) - eps)_i^2,      x_t = alpha x0 + sigma eps

    x0:        data (b, *), floating point and finite, b >= 1.
    weighting: "sigma2" (default), "eps", "likelihood", "velocity", "edm", "min_snr", or a
               function of the Level that weights the squared error in eps.
    times:     where t is drawn: ``uniform_time``, ``LogNormalTime()``, ``likelihood_time``.
    draw:      ``independent`` or ``low_discrepancy`` uniforms behind t.

    The mean over coordinates times d/2 is the paper's 1/2 |.|^2. The error is taken in the
    network's own target and then weighted, so nothing cancels at small sigma. An SDE without
    marginals is trained on |G^T (score - target)|^2, the likelihood weighting.

    ValueError for data that is empty or not floating point; and, where looking costs no
    synchronisation (on the CPU), for NaN or infinite data.
    """
    check_data(x0)
    u = draw(len(x0), x0.device, generator)
    z = torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)
    t, ratio = times(model.sde, u)
    if not isinstance(model.sde, LinearSDE):
        if weighting not in (None, "likelihood"):
            raise ValueError(
                f"{type(model.sde).__name__} has no marginals: it can be trained with "
                f"weighting='likelihood', not {weighting!r}."
            )
        return ratio.to(x0) * general_error(model, x0, t, z)
    weigh = (
        one_of(weighting or "sigma2", "weighting", WEIGHTINGS)
        if not callable(weighting)
        else weighting
    )
    level = model.sde(t)
    a, b = model.target(level)
    target = expand(a, x0) * x0 + expand(b, x0) * z
    error = (
        (model.call(model.sde.mix(x0, level, z), level) - target)
        .square()
        .reshape(len(x0), -1)
        .mean(1)
    )
    # d eps / d F at fixed x, see score.py.
    slope = level.alpha / (level.alpha * b - level.sigma * a)
    return (ratio * weigh(level) * slope**2).to(x0) * error


def general_error(model: ScoreModel, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """mean_i (G^T (score - target))_i^2 for an SDE that gives its own kernel, (b,)."""
    x, target = model.sde.perturb(x0, t, z)
    error, G = model(x, t).score - target, model.sde.diffusion(x, t)
    weighted = (G.mT @ error.unsqueeze(-1)).squeeze(-1) if model.sde.matrix else G * error
    return weighted.square().reshape(len(x0), -1).mean(1)


def check_data(x0: Tensor) -> None:
    """Refuse what is not a batch of finite floating-point data."""
    if not x0.is_floating_point():
        raise ValueError(
            f"Data must be floating point, but it is {x0.dtype}: scale integer images to [-1, 1] "
            "first, as sdegen.data.from_uint8 does."
        )
    if x0.ndim < 1 or math.prod(x0.shape) == 0:
        raise ValueError(f"Data must be a batch (b, *) with b >= 1, but it is {tuple(x0.shape)}.")
    if x0.device.type == "cpu" and not bool(x0.isfinite().all()):
        bad = int((~x0.isfinite()).reshape(len(x0), -1).any(1).nonzero()[0])
        raise ValueError(f"Data must be finite, but sample {bad} of the batch is not.")

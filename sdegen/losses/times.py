"""Distributions of t to train at, (sde, u) -> (t, p_uniform / p), u uniform in [0, 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdegen.checks import whole
from sdegen.likelihood.bounds import LamTimes
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


# ------------------------------------------------------------------------- times with a memory


class LossHistory(nn.Module):
    """Places on a walk, drawn where losses were large.  Nichol & Dhariwal (2021), eq. 18.

        p_i ~ sqrt(mean of the last ``keep`` squared losses of bin i)

    of ``bins`` equal parts of the walk, equal in lam on ``log_snr``; mixed with ``even`` of the
    uniform law, and uniform until every bin has ``keep``. Losses times the factor 1 / (bins p_i)
    have the uniform law's mean. What it remembers are buffers, saved with the training as any
    loss's; of several processes all remember all. A loss that is not finite is not remembered. At
    rest (``eval``) it is uniform and remembers nothing.

    ValueError for other numbers than bins >= 1, keep >= 1 and 0 < even <= 1.
    """

    losses: Tensor
    """(bins, keep), in a ring."""
    count: Tensor
    """(bins,), how many each bin has had."""

    def __init__(self, bins: int = 32, keep: int = 10, even: float = 1e-3) -> None:
        super().__init__()
        whole("bins", bins), whole("keep", keep)
        if not 0 < even <= 1:
            raise ValueError(f"even is a share of draws in (0, 1], but it is {even!r}.")
        self.bins, self.keep, self.even = bins, keep, even
        self.register_buffer("losses", torch.zeros(bins, keep))
        self.register_buffer("count", torch.zeros(bins, dtype=torch.int64))

    @property
    def p(self) -> Tensor:
        """Of the bins, (bins,) in float64."""
        flat = torch.full_like(self.losses[:, 0], 1 / self.bins, dtype=torch.float64)
        root = self.losses.double().square().mean(1).sqrt()
        share = root / root.sum().clamp(min=torch.finfo(torch.float64).tiny)
        full = (self.count >= self.keep).all() & (root.sum() > 0) & self.training
        return torch.where(full, (1 - self.even) * share + self.even * flat, flat)

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Places v in [0, 1], 0 at T and 1 at the walk's end, and factors, for u in [0, 1)."""
        place, density = LamTimes(self.p)(u, u.new_zeros(()), u.new_ones(()))
        return place, 1 / density

    @torch.no_grad()
    def seen(self, place: Tensor, losses: Tensor) -> None:
        """Remember losses (b,), without their factors, at places (b,), where it trains."""
        if not self.training:
            return
        place, losses = gathered(place), gathered(losses.detach().to(self.losses))
        # What is not finite goes to a bin beyond the last, which keeps nothing.
        own = (place * self.bins).long().clamp(0, self.bins - 1)
        i, order = torch.where(losses.isfinite(), own, self.bins).sort(stable=True)
        new = self.count.new_zeros(self.bins + 1).index_add_(0, i, torch.ones_like(i))
        rank = torch.arange(len(i), device=i.device) - (new.cumsum(0) - new)[i]
        had = torch.cat([self.count, self.count.new_zeros(1)])[i]
        slot = i * self.keep + (had + rank) % self.keep
        # Of more than a bin keeps the last ones stay: the others go beyond the end.
        kept = (rank >= new[i] - self.keep) & (i < self.bins)
        slot = torch.where(kept, slot, self.losses.numel())
        ring = torch.cat([self.losses.flatten(), self.losses.new_zeros(1)])
        ring[slot] = losses[order]
        self.losses.copy_(ring[:-1].view_as(self.losses))
        self.count += new[:-1]


def gathered(values: Tensor) -> Tensor:
    """Values (b,) of all processes that train together, in their order."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    each = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(each, values.contiguous())
    return torch.cat(each)

"""The loss that learns a noise schedule.  Kingma et al. (2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.likelihood.bounds import end_levels, entropy, prior_term
from sdegen.losses.dsm import check_data
from sdegen.losses.times import low_discrepancy
from sdegen.model.denoiser import Denoiser
from sdegen.sde.learned import LearnedVPSDE


def vdm_loss(model: Denoiser, x0: Tensor) -> Tensor:
    """Minus the variational bound of data x0 (b, *) per dimension, in nats, (b,).

    One time per sample, low-discrepancy; p(x | x_t) at t_min as in ``elbo`` of real data. The
    bound does not depend on the schedule between its ends, but the variance of its estimate does:
    the weights of the schedule's curves descend on that instead, Kingma et al. (2021), app. I.2,
    by a factor of 2 L of each sample's own gradient.

    ValueError for an SDE that is not LearnedVPSDE, and for data as ``dsm_loss`` has it.
    """
    check_data(x0)
    sde, d = model.sde, x0[0].numel()
    if not isinstance(sde, LearnedVPSDE):
        raise ValueError(
            f"vdm_loss learns the schedule of a LearnedVPSDE, but the SDE is {sde!r}."
        )
    t = low_discrepancy(len(x0), sde.ends.device, None)
    eps = torch.randn_like(x0)
    part, slope = sde.shape(t)
    losses: list[Tensor] = []
    if part.requires_grad:
        for each in (part, slope):
            each.register_hook(lambda g: g * 2 * losses[0])
    way = sde.ends[1] - sde.ends[0]
    level = sde.level(t, sde.ends[0] + way * part, way * slope)
    off = (model(sde.mix(x0, level, eps), level).eps - eps).square().reshape(len(x0), -1).sum(1)
    diffusion = off.double() * -(way * slope)
    losses.append(diffusion.detach() / d)
    prior = prior_term(model, x0.double()).to(diffusion)
    reconstruction = entropy(end_levels(sde)[1], d).to(diffusion)
    return ((diffusion + prior + reconstruction) / d).to(x0)

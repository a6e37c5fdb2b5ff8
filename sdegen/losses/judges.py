"""What a classifier of noisy states is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sdegen.losses.dsm import check_data
from sdegen.losses.times import Draw, Times, independent, uniform_time
from sdegen.sde.process import linear

if TYPE_CHECKING:
    from sdegen.guidance.classifier import Judge


def noisy_ce(
    judge: Judge,
    x0: Tensor,
    y: Tensor,
    *,
    times: Times = uniform_time,
    draw: Draw = independent,
    generator: torch.Generator | None = None,
) -> Tensor:
    """-log p(y | x_t) of data x0 (b, *) with labels y (b,), noised to a time each: (b,).

    times, draw: as ``dsm_loss`` has them, and as the model that is to be guided was trained with.
    Its minimum is the true p(y | x_t), with which ``Guided`` is the conditional model.
    """
    check_data(x0)
    z = torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)
    t, ratio = times(judge.sde, draw(len(x0), x0.device, generator))
    sde = linear(judge.sde, "A judge of noisy states", "take a LinearSDE")
    level = sde(t)
    logits = judge.logits(sde.mix(x0, level, z), level)
    return ratio.to(x0) * cross_entropy(logits.float(), y, reduction="none").to(x0)

"""What classifiers and encoders of noisy states are trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from sdegen.losses.dsm import check_data
from sdegen.losses.times import Draw, Times, independent, uniform_time
from sdegen.sde.level import Level
from sdegen.sde.process import SDE, linear

if TYPE_CHECKING:
    from sdegen.guidance.judges import Encoder, Judge


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
    x, level, ratio = noised(judge.sde, x0, times, draw, generator)
    logits = judge.logits(x, level)
    return ratio * cross_entropy(logits.float(), y, reduction="none").to(x0)


def matched(
    encoder: Encoder,
    x0: Tensor,
    *,
    teacher: Callable[[Tensor], Tensor],
    times: Times = uniform_time,
    draw: Draw = independent,
    generator: torch.Generator | None = None,
) -> Tensor:
    """|E(x_t, t) - teacher(x0)|^2, the mean over features, of data x0 (b, *): (b,).

    Its minimum is E[teacher(x0) | x_t]: an encoder of noisy states after one of clean data, for
    ``Similarity``.  Liu et al. (2021).
    ValueError where the two make features of different shapes.
    """
    x, level, ratio = noised(encoder.sde, x0, times, draw, generator)
    with torch.no_grad():
        wanted = teacher(x0)
    found = encoder(x, level)
    if found.shape != wanted.shape:
        raise ValueError(
            f"The teacher makes features {tuple(wanted.shape)} of data {tuple(x0.shape)}, but the "
            f"encoder makes {tuple(found.shape)}."
        )
    off = (found - wanted).to(x0).reshape(len(x0), -1)
    return ratio * off.square().mean(1)


def noised(
    sde: SDE, x0: Tensor, times: Times, draw: Draw, generator: torch.Generator | None
) -> tuple[Tensor, Level, Tensor]:
    """States x_t of data x0, the level each was noised to, and its weight (b,)."""
    check_data(x0)
    z = torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)
    t, ratio = times(sde, draw(len(x0), x0.device, generator))
    known = linear(sde, "A network of noisy states", "take a LinearSDE")
    level = known(t)
    return known.mix(x0, level, z), level, ratio.to(x0)

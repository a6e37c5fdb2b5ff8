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
    from sdegen.guidance.clip import CLIP
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


def contrastive(
    clip: CLIP,
    x0: Tensor,
    tokens: Tensor,
    mask: Tensor,
    *,
    times: Times = uniform_time,
    draw: Draw = independent,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Which caption of the batch is an image's, and which image a caption's: (b,), 0 at best.

    ``matching`` of the logits of data x0 (b, *), noised to a time each, and their captions, tokens
    and mask (b, m, *). Captions that say the same are each other's, and no negatives.  Radford et
    al. (2021), figure 3, at noisy images as ``noisy_ce``.
    ValueError for a batch of less than two, and another number of captions than of data.
    """
    if len(tokens) != len(x0) or len(x0) < 2:
        raise ValueError(
            "A contrastive loss takes two pairs or more of data and captions, but there are "
            f"{len(x0)} data and {len(tokens)} captions."
        )
    x, level, ratio = noised(clip.sde, x0, times, draw, generator)
    said = tokens * mask.reshape(*mask.shape, *[1] * (tokens.ndim - 2)).to(tokens.dtype)
    which = said.flatten(1).unique(dim=0, return_inverse=True)[1]
    return ratio * matching(clip(x, level, tokens, mask), which).to(x0)


def matching(logits: Tensor, which: Tensor) -> Tensor:
    """The mean of KL(q_i || softmax_j l_ij) and KL(q_i || softmax_j l_ji), (b,), of logits (b, b).

    q_i: even over those j whose caption ``which`` (b,) is that of i; where all captions differ it
    is the symmetric cross-entropy of Radford et al. (2021), else the mean of its positives as in
    Khosla et al. (2020), eq. 2. Of independent pairs q_i is what is known, on average, of which j
    belongs to i: so l_ij = log p(x_i, c_j) - log p(x_i) p(c_j) is least for every batch size.
    """
    same = (which[:, None] == which[None]).to(logits)
    alike = same.sum(1)
    q = same / alike[:, None]
    both = (cross_entropy(each, q, reduction="none") for each in (logits, logits.T))
    return sum(both, -2 * alike.log()) / 2


def noised(
    sde: SDE, x0: Tensor, times: Times, draw: Draw, generator: torch.Generator | None
) -> tuple[Tensor, Level, Tensor]:
    """States x_t of data x0, the level each was noised to, and its weight (b,).

    A schedule that was learned is as it is: who judges a model does not move it.
    """
    check_data(x0)
    z = torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)
    t, ratio = times(sde, draw(len(x0), x0.device, generator))
    known = linear(sde, "A network of noisy states", "take a LinearSDE")
    with torch.no_grad():
        level = known(t)
    return known.mix(x0, level, z), level, ratio.to(x0)

"""Data taken up to noise under one condition and down again under another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.checks import whole
from sdegen.editing.pairs import Paired, both
from sdegen.likelihood.flow import decode, encode
from sdegen.likelihood.ground import check_batch
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.noise.source import Noise, Seeded, check_noise
from sdegen.sampling.plan import Way
from sdegen.sampling.renoising import time_of
from sdegen.sde.level import expand
from sdegen.sde.process import linear

if TYPE_CHECKING:
    from typing_extensions import Unpack


def translate(
    model: Denoiser,
    edited: Denoiser,
    x: Tensor,
    *,
    mask: Tensor | None = None,
    **how: Unpack[Way],
) -> tuple[Tensor, Tensor]:
    """Data x (b, *) encoded by ``model`` and decoded by both: what came back of it, and its edit.

    Su et al. (2023), dual diffusion implicit bridges. With a ``mask`` (``changed_where``)
    the edit is, outside it, what came back, to the last bit: DiffEdit of
    Couairon et al. (2023). Encode with a model that is not guided, whose flow comes back to where
    it began.

    how: as ``encode``'s. A walk of part of the way, as ``partial(sg.walks.log_snr, start=0.5)``,
         keeps more of x.
    """
    linear(model.sde, "translate", "encode and decode yourself")
    z = encode(model, x, **how)
    pair = Paired(model, edited, mask=mask)
    kept, changed = decode(pair, both(z), **how).unbind(1)
    return kept, changed


def changed_where(
    model: Denoiser,
    edited: Denoiser,
    x: Tensor,
    *,
    t: float | None = None,
    rho: float | None = None,
    draws: int = 10,
    threshold: float = 0.5,
    seed: int | Sequence[int] = 0,
    noise: Noise | None = None,
) -> Tensor:
    """Where two models differ about data x (b, *): DiffEdit's mask, true above the threshold.

    The mean over ``draws`` noises of |eps_edited - eps|(x_t), and over the channels of states
    (b, channels, *), divided by the largest of the sample.  Couairon et al. (2023), sec. 3.2,
    step 1; their t is half of the way. A sample's mask is its own, (b, 1, *) of images and (b, *)
    of vectors; where the models agree everywhere it is false. seed: one, or one for each sample;
    or ``noise``, a source in its place.

    ValueError for neither or both of t and rho, a threshold outside [0, 1), two SDEs, and data
    that is not floating.
    """
    sde = linear(model.sde, "changed_where", "give translate a mask of yours")
    for each in (model, edited):
        refuse_flow_only(each, "changed_where")
    Paired(model, edited)  # which refuses two SDEs
    check_batch("Data", x)
    level = sde(time_of(sde, t, rho))
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold lies in [0, 1), but it is {threshold!r}.")
    source = Seeded(seed) if noise is None else check_noise(noise).begun()
    noise = source.stream("changed_where")
    off = torch.zeros_like(x)
    with torch.no_grad():
        for _ in range(whole("draws", draws)):
            x_t = sde.mix(x, level, noise(x, level, level))
            off += (edited(x_t, level).eps - model(x_t, level).eps).abs()
    off = off.mean(1, keepdim=True) if x.ndim > 2 else off
    most = off.flatten(1).amax(1)
    return off > threshold * expand(most, off)

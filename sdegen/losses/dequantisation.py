"""Training on data that has finitely many values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.checks import whole
from sdegen.losses.dsm import check_data
from sdegen.model.denoiser import Denoiser


def dequantised(
    model: Denoiser,
    x0: Tensor,
    *,
    levels: int,
    loss: Callable[..., Tensor],
    where: Tensor | None = None,
) -> Tensor:
    """A loss (b,) of data spread over its bins: x0 + u, u uniform over a bin around 0.

    A density of data that has ``levels`` values in [-1, 1] is without bound at them: what is to
    have a likelihood in ``bits_per_dim`` (centred) is trained on this. ``where`` is the loss's,
    which takes it, as ``dsm_loss`` does. ValueError for data that is not floating point, and fewer
    than two levels.
    """
    whole("levels", levels, 2)
    check_data(x0)
    spread = x0 + (torch.rand_like(x0) - 0.5) * (2 / (levels - 1))
    return loss(model, spread) if where is None else loss(model, spread, where=where)

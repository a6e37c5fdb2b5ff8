"""The loss of a model that restores: data beside what is seen of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.losses.degradations import Augmented, Degraded
from sdegen.losses.dsm import check_data, dsm_loss
from sdegen.losses.inside import inner_of, layers

Degrade = Callable[
    [Tensor, torch.Generator | None], Degraded | Augmented | tuple[Tensor, Tensor | None]
]
"""A ``Degradation``, or any function (x0, generator) -> (c, hole), or (c, hole, augment)."""


def paired(
    model: Any,
    x0: Tensor,
    *,
    degrade: Degrade,
    loss: Callable[..., Tensor] = dsm_loss,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A loss (b,) of the model that is given ``c = degrade(x0)``.  Saharia et al. (2022b), eq. 1.

        E |eps_model(x_t, t, c) - eps|^2,    of the hole alone where something is known

    Its minimum is the conditional score, of p(x0 | c).

    degrade: a ``Degradation``, or a function (x0, generator) -> (c (b, k, *space), hole), hole a
             boolean (b, 1, *space), or None; its draws are ``generator``'s, or torch's own. A
             third, augment (b,), is what the model is told of noise in c.
    loss:    of (model, x0); with a hole of (model, x0, where=hole), as ``dsm_loss`` has it, and
             ``dropped``, ``dequantised`` and ``Uncertainty`` around it.

    ValueError for data that cannot be spoilt so, and for a loss that is not of a part of the data
    where there is a hole.
    """
    check_data(x0)
    c, hole, *noise = degrade(x0, generator)
    if hole is not None:
        refuse_whole(loss)
        loss = partial(loss, where=hole)
    told = {"augment": noise[0]} if noise else {}
    return loss(model.given(c=c, **told), x0)


def refuse_whole(loss: Callable[..., Tensor]) -> None:
    """ValueError for a loss that is of all of the data, or around one that is."""
    for each in layers(loss):
        known = signature(
            each.forward if isinstance(each, nn.Module) else each
        ).parameters.values()
        hands_on = inner_of(each)[1] is not None
        takes = [e for e in known if e.name == "where" or (hands_on and e.kind is e.VAR_KEYWORD)]
        if not takes:
            name = getattr(getattr(each, "func", each), "__name__", type(each).__name__)
            raise ValueError(
                f"{name} is a loss of all of the data, and takes no where=, but this task asks "
                "for that of a hole alone: take dsm_loss, or dropped, dequantised or Uncertainty "
                "around it."
            )

"""A trained network that begins to see something beside the state, or knows one class more."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from sdegen.checks import whole
from sdegen.networks.adm import ADM
from sdegen.networks.dit import DiT
from sdegen.networks.transformer import Transformer
from sdegen.networks.unet import UNet


def with_classes(net: UNet | ADM | DiT | Transformer, more: int = 1) -> Any:
    """A copy of a network of n classes that knows ``more``, as n, n + 1, ...: each begins as "no
    class" is, whose label is now n + more. Of the labels that there were it says what it said.

    So a word for something new is learned.  Ruiz et al. (2023), section 3.1.

    ValueError for another network or one without classes, or whose table of them has an adapter,
    and for ``more`` below 1.
    """
    if not isinstance(net, UNet | ADM | DiT | Transformer) or not net.conditioning.classes:
        raise ValueError(
            "with_classes is of a UNet, ADM, DiT or Transformer of some classes, but the network "
            f"is a {type(net).__name__}"
            + (" without any." if isinstance(net, UNet | ADM | DiT | Transformer) else ".")
        )
    found = deepcopy(net)
    told, old = found.conditioning, found.conditioning.label
    refuse_adapted("The table of classes", old)
    told.classes += whole("more", more)
    n, width = old.weight.shape  # type: ignore[union-attr]
    table = nn.Embedding(n + more, width).to(old.weight)  # type: ignore[union-attr, arg-type]
    with torch.no_grad():
        table.weight.copy_(torch.cat([old.weight, old.weight[-1:].expand(more, -1)]))  # type: ignore[union-attr]
    told.label = table
    return found


def widened(net: UNet | ADM | DiT | Transformer, more: int) -> UNet | ADM | DiT | Transformer:
    """A copy of a network that is given ``more`` channels beside the state, c (B, beside, *space),
    as the last of them, through weights that are zero.

        W' = [W, 0]        net'(x, t, c) = net(x, t) for every c, at first

    So a model of captions learns to fill in from where it is.  Nichol et al. (2022), GLIDE,
    section 2.5.

    ValueError for another network, one whose first layer has an adapter, and ``more`` below 1.
    """
    if not isinstance(net, UNet | ADM | DiT | Transformer):
        raise ValueError(
            f"widened is of a UNet, ADM, DiT or Transformer, but the network is a "
            f"{type(net).__name__}."
        )
    found = deepcopy(net)
    found.beside += whole("more", more)
    first = found.shrink[0] if isinstance(found, UNet) else found.enter
    refuse_adapted("The first layer", first)
    assert isinstance(first, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
    weight = first.weight
    wide = weight.shape[1] // (found.channels + found.beside - more) * more  # of a patch all of it
    zero = weight.new_zeros(len(weight), wide, *weight.shape[2:])
    first.weight = nn.Parameter(
        torch.cat([weight.detach(), zero], 1), requires_grad=weight.requires_grad
    )
    if isinstance(first, nn.Linear):
        first.in_features += wide
    else:
        first.in_channels += wide
    return found


def refuse_adapted(what: str, layer: Any) -> None:
    """ValueError for a layer that is to be replaced, and has learned beside its own weights."""
    if hasattr(layer, "base_layer"):
        raise ValueError(
            f"{what} has an adapter, of other sizes than are wanted now: widen the network first, "
            "and adapt it then."
        )

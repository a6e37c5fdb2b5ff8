"""A trained network that begins to see something beside the state."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from sdegen.checks import whole
from sdegen.networks.adm import ADM
from sdegen.networks.dit import DiT
from sdegen.networks.transformer import Transformer
from sdegen.networks.unet import UNet


def widened(net: UNet | ADM | DiT | Transformer, more: int) -> UNet | ADM | DiT | Transformer:
    """A copy of a network that is given ``more`` channels beside the state, c (B, beside, *space),
    as the last of them, through weights that are zero.

        W' = [W, 0]        net'(x, t, c) = net(x, t) for every c, at first

    So a model of captions learns to fill in from where it is.  Nichol et al. (2022), GLIDE,
    section 2.5.

    ValueError for another network, and for ``more`` below 1.
    """
    if not isinstance(net, UNet | ADM | DiT | Transformer):
        raise ValueError(
            f"widened is of a UNet, ADM, DiT or Transformer, but the network is a "
            f"{type(net).__name__}."
        )
    found = deepcopy(net)
    found.beside += whole("more", more)
    first = found.shrink[0] if isinstance(found, UNet) else found.enter
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

"""Haar's wavelets: half the resolution in bands, and resampling that weighs what it sees."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sdegen.networks.layers import zeroed


def haar(x: Tensor) -> Tensor:
    """Bands (B, C, 2^d, *half) of states x (B, C, *space) with d axes of space: of each two places
    a, b along each axis (a + b) / sqrt 2 and (a - b) / sqrt 2. The first is the low one along all.

    Orthonormal: the sum of squares stays.  ValueError for a side that is odd.
    """
    if any(side % 2 or not side for side in x.shape[2:]):
        raise ValueError(
            f"Wavelets halve each side of {tuple(x.shape[2:])}: each must be even, and not 0."
        )
    bands = x[:, :, None]
    for axis in range(3, x.ndim + 1):
        a, b = bands.unflatten(axis, (-1, 2)).unbind(axis + 1)
        bands = torch.cat([a + b, a - b], dim=2) / math.sqrt(2)
    return bands


def from_haar(bands: Tensor) -> Tensor:
    """States (B, C, *space) of bands (B, C, 2^d, *half): the inverse of ``haar``."""
    for axis in range(bands.ndim - 1, 2, -1):
        low, high = bands.chunk(2, dim=2)
        bands = torch.stack([low + high, low - high], axis + 1).flatten(axis, axis + 1)
        bands = bands / math.sqrt(2)
    return bands.squeeze(2)


class Gated(nn.Module):
    """Half the resolution, or twice, (B, C, *space) told c (B, width): the bands' sum, or a state
    of bands that are all x, each times a gate of its channel and sample.

        down  sum_i g_i haar(x)_i       up  from_haar(g_i x),      g = a ([i = low] + tanh MLP)

    The MLP sees c and the mean magnitude of each band, or of x, and is silent at first: with
    a = 2^(-d/2) down and 2^(d/2) up the modules begin as ``Pool`` and ``Nearest``.  After Yang et
    al. (2023), section 4.1, whose gates are sigmoids.
    """

    def __init__(self, channels: int, width: int, dims: int, up: bool) -> None:
        super().__init__()
        self.bands, self.up = 2**dims, up
        self.size = 2 ** (dims / 2 if up else -dims / 2)
        seen = channels * (1 if up else self.bands)
        self.enter = nn.Linear(seen + width, channels)
        self.leave = zeroed(nn.Linear(channels, channels * self.bands))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        parts = x[:, :, None] if self.up else haar(x)
        seen = parts.abs().flatten(3).mean(-1).flatten(1)
        said = self.leave(nn.functional.silu(self.enter(torch.cat([seen, c], dim=1))))
        gates = torch.tanh(said.unflatten(1, (-1, self.bands)))
        low = torch.zeros_like(gates[:1, :1])
        low[..., 0] = 1
        gates = self.size * (gates + low)
        bands = gates.reshape(*gates.shape, *[1] * (x.ndim - 2)) * parts
        return from_haar(bands) if self.up else bands.sum(2)

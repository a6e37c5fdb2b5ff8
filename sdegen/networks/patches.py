"""States as tokens, patch by patch, and where the patches are."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def patchify(x: Tensor, patch: int) -> Tensor:
    """x (B, C, *space) as tokens (B, n, C patch**d), row by row; d the axes of space, whose sides
    are multiples of ``patch``."""
    d = x.ndim - 2
    for axis in reversed(range(2, 2 + d)):
        x = x.unflatten(axis, (-1, patch))  # (B, C, n1, patch, n2, patch)
    x = x.permute(0, *range(2, 2 + 2 * d, 2), 1, *range(3, 3 + 2 * d, 2))
    return x.flatten(1 + d).flatten(1, d)


def unpatchify(h: Tensor, patch: int, grid: tuple[int, ...]) -> Tensor:
    """Tokens (B, n, C patch**d) of a grid of patches as x (B, C, *space): patchify, undone."""
    d = len(grid)
    h = h.unflatten(2, (-1, *[patch] * d)).unflatten(1, grid)  # (B, n1, n2, C, patch, patch)
    order = (pair for i in range(d) for pair in (1 + i, 2 + d + i))
    x = h.permute(0, 1 + d, *order)
    for axis in range(2, 2 + d):
        x = x.flatten(axis, axis + 1)
    return x


def places(grid: tuple[int, ...], like: Tensor) -> Tensor:
    """Coordinates (n, d) of a grid's places, row by row, whole numbers from 0, in float32."""
    axes = [torch.arange(side, device=like.device, dtype=torch.float32) for side in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)


def geometric(n: int, base: float, like: Tensor) -> Tensor:
    """Frequencies base**(-i / n), (n,): radians a place, from 1 down."""
    i = torch.arange(n, device=like.device, dtype=torch.float32)
    return torch.exp(i * (-math.log(base) / n))


def sincos(grid: tuple[int, ...], width: int, like: Tensor) -> Tensor:
    """Positions (n, width) of a grid's places: sines and cosines of each coordinate, the last axis
    first, width / d numbers an axis.  Vaswani et al. (2017), section 3.5, with base 10,000.

    Made in float32 from the grid at hand, and handed over in ``like``'s type.
    """
    d = len(grid)
    where = places(grid, like).flip(1)
    angles = where[:, :, None] * geometric(width // (2 * d), 10_000.0, like)
    return torch.cat([angles.sin(), angles.cos()], 2).flatten(1).to(like.dtype)


def rotary(grid: tuple[int, ...], head: int, base: float, like: Tensor) -> Tensor:
    """Cosines and sines (2, n, head / 2) of a grid's places for ``turned``: each axis has an equal
    share of the pairs.  Heo et al. (2024), section 3.1, axial."""
    d = len(grid)
    angles = places(grid, like)[:, :, None] * geometric(head // (2 * d), base, like)
    angles = angles.flatten(1)
    return torch.stack([angles.cos(), angles.sin()])

"""Small things that networks are made of: convolutions by dimension, norms, silence, refusals."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CONV: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
"""A convolution by its number of spatial dimensions."""

AXES = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}
"""The letters of the spatial dimensions."""


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with about four channels a group, and at most 32 groups."""
    return nn.GroupNorm(math.gcd(channels, min(32, max(1, channels // 4))), channels)


def zeroed(layer: nn.Module) -> nn.Module:
    """The same layer with its parameters at zero, so that what it ends starts out silent."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def refuse_misfits(
    shape: torch.Size, channels: int, dims: int, multiple: int, remedy: str
) -> None:
    """ValueError unless a state is (B, channels, *space) with sides that are multiples, not 0."""
    names = AXES[dims]
    fits = len(shape) == 2 + dims and shape[1] == channels
    wrong = next((size for size in shape[2:] if size % multiple or not size), -1) if fits else -1
    if fits and wrong < 0:
        return
    below, above = wrong // multiple * multiple, (wrong // multiple + 1) * multiple
    near = f"{below} or {above}" if below else str(above)
    said = f": cut or pad {wrong} to {near}, or take {remedy}" if wrong > 0 else ""
    raise ValueError(
        f"x has shape {tuple(shape)}, expected (B, {channels}, {', '.join(names)}) "
        f"with {' and '.join(names)} multiples of {multiple}{said} (dims = {dims})."
    )


def with_beside(x: Tensor, c: Tensor | None, beside: int) -> Tensor:
    """x (B, C, *space) and what stands beside it, c (B, beside, *space), as one tensor; ValueError
    for a c that is missing, not expected or of another shape."""
    wanted = (len(x), beside, *x.shape[2:])
    if c is None and not beside:
        return x
    if c is None:
        raise ValueError(
            f"This network has beside = {beside}: it is given c of shape {wanted}, what "
            "is seen of the data, as model.given(c=...)."
        )
    if not beside:
        raise ValueError(
            "c was given, but the network sees nothing beside x: build it with beside > 0, "
            "or call it without c."
        )
    if c.shape != wanted:
        raise ValueError(f"c has shape {tuple(c.shape)}, expected {wanted}.")
    return torch.cat([x, c.to(x)], dim=1)

"""Clips of handwritten digits that move straight on and bounce: video, without a download."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.checks import number, whole
from sdegen.data.arrays import ArrayData
from sdegen.data.bundled import digits

SIDE = 8
"""Of a digit, in pixels."""


def moving_digits(
    split: str = "train",
    n: int = 4000,
    frames: int = 8,
    size: int = 16,
    speed: float = 1.5,
    seed: int = 0,
) -> ArrayData:
    """n clips (n, 1, frames, size, size) in [-1, 1] of a digit on black, labelled by it.

    A clip's digit is one of ``digits(split)``, its place at first uniform, its velocity of any
    direction and of a speed uniform between a third of ``speed`` and all of it, in pixels a
    frame; it goes straight on, and comes back from the borders as light from a mirror. A pixel
    between four others is shared by them, so that the centroid moves as exactly as the digit.
    After Srivastava et al. (2015), section 4.1.1.

    Raises ValueError for another split, n < 1, frames < 1, a size that leaves no room, below 9,
    and a speed below 0.
    """
    whole("n", n), whole("frames", frames), whole("size", size, SIDE + 1)
    number("speed", speed, 0)
    images = digits(split)
    draws = torch.Generator().manual_seed(seed if split == "train" else seed + 1)
    at = torch.randint(len(images), (n,), generator=draws)
    angle, share, *place = torch.rand(4, n, generator=draws, dtype=torch.float64)
    velocity = torch.stack([angle.mul(2 * math.pi).sin(), angle.mul(2 * math.pi).cos()], 1)
    velocity = velocity * (speed / 3 * (1 + 2 * share))[:, None]
    room = size - SIDE
    start = torch.stack(place, 1) * room
    time = torch.arange(frames, dtype=torch.float64)
    where = bounced(start[:, None] + time[:, None] * velocity[:, None], room)
    ink = (images.x[at, 0].double() + 1) / 2
    x = 2 * placed(ink, where, size)[:, None] - 1
    return ArrayData(x.float(), images.y[at])


def bounced(where: Tensor, room: float) -> Tensor:
    """Where something is between 0 and ``room`` that would be at ``where`` without walls."""
    return room - (where.remainder(2 * room) - room).abs()


def placed(ink: Tensor, where: Tensor, size: int) -> Tensor:
    """Pictures (n, f, size, size) of ink (n, s, s) whose corner is at rows and columns ``where``
    (n, f, 2), whole or not: weights 1 - |distance| of the nearest rows, and of columns."""
    pixel, own = (torch.arange(m, dtype=ink.dtype) for m in (size, ink.shape[-1]))
    off = pixel[:, None] - own - where[..., None, None]  # (n, f, 2, size, s)
    rows, columns = (1 - off.abs()).clamp(min=0).unbind(2)
    return rows @ ink[:, None] @ columns.mT

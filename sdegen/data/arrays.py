"""Data held in memory as one tensor, and the map between bytes and [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset


def from_uint8(x: Tensor) -> Tensor:
    """Bytes 0..255 as float32 in [-1, 1], of the same shape.

    x / 127.5 - 1
    """
    if x.dtype != torch.uint8:
        raise ValueError(
            f"from_uint8 got a tensor of {x.dtype}, but it maps torch.uint8: "
            "scale other ranges to [-1, 1] yourself"
        )
    return x / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Floats in [-1, 1] as the nearest bytes, of the same shape; values outside are clamped.

    The exact inverse of `from_uint8`. NaN has no byte: it is refused.
    """
    if not x.is_floating_point():
        raise ValueError(f"to_uint8 got a tensor of {x.dtype}, but it maps floats in [-1, 1]")
    if x.isnan().any():
        raise ValueError("to_uint8 got NaN, which has no byte: look at where the images come from")
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class ArrayData(Dataset[tuple[Tensor, Tensor]]):
    """A data set that is one tensor x (n, *shape), with labels y (n,) or without.

    `.x` (float32) and `.y` (int64) hold all of it, for metrics. `classes` is the largest label
    plus one, 0 when unlabelled; then `.y` is all zeros. `levels` says of how many values, spread
    evenly over [-1, 1], data that is discrete has been made: 256 of bytes, 0 of real data.
    `names` are the classes', in the order of their numbers, where they have any, and `captions`
    are texts of the n data, where these have some.

    Raises ValueError where x is not of floats, is empty, has no dimension beside n, or has an
    entry that is not finite in float32, where y is not int64 (n,) or has a negative entry, and
    where there are fewer names than classes or not n captions.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None = None,
        levels: int = 0,
        names: Sequence[str] = (),
        captions: Sequence[str] = (),
    ) -> None:
        self.x, self.levels = _checked_data(x), levels
        unlabelled = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.y = unlabelled if y is None else checked_labels(y, x)
        self.shape: tuple[int, ...] = tuple(x.shape[1:])
        self.names, most = tuple(names), 0 if y is None else int(y.max()) + 1
        if names and len(names) < most:
            raise ValueError(f"there are {len(names)} names for {most} classes: {names}")
        self.classes = len(names) or most
        self.captions = tuple(captions)
        if captions and len(captions) != len(x):
            raise ValueError(f"there are {len(captions)} captions of {len(x)} data")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[i], self.y[i]


def _checked_data(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        raise ValueError(
            f"x is {x.dtype}, but data must be floats: scale images to [-1, 1] "
            "(sdegen.data.from_uint8 does it for bytes), convert anything else with x.float()"
        )
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(
            f"x has the shape {tuple(x.shape)}, but data must be non-empty and of shape "
            "(n, *shape): write x[:, None] for n single numbers"
        )
    x = x.detach().to(torch.float32)
    bad = (~x.isfinite()).nonzero()
    if len(bad):
        first = tuple(bad[0].tolist())
        raise ValueError(
            f"x{list(first)} is {x[first].item()}, but data must be finite in float32: "
            "repair or remove such entries"
        )
    return x


def checked_labels(y: Tensor, x: Tensor) -> Tensor:
    """Labels y of data x (n, *) themselves; ValueError unless they are int64 (n,), from 0 on."""
    if y.dtype != torch.int64 or y.shape != x.shape[:1]:
        raise ValueError(
            f"y is {y.dtype} of shape {tuple(y.shape)}, but the labels of this x must be "
            f"torch.int64 of shape ({len(x)},)"
        )
    if y.min() < 0:
        raise ValueError(f"y has the label {int(y.min())}, but classes are counted from 0")
    return y

"""What restorations are worth beside the originals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

PEAK = 2.0
"""The range of data in [-1, 1]."""


def psnr(x: Tensor, x0: Tensor, where: Tensor | None = None) -> float:
    """10 log10(4 / MSE) in dB of images x beside x0 (b, *) in [-1, 1], all together.

    where: booleans that broadcast to them: the error is of these values alone. Infinite where
    nothing differs; ValueError for other shapes.
    """
    if x.shape != x0.shape:
        raise ValueError(f"x is {tuple(x.shape)}, but x0 is {tuple(x0.shape)}.")
    error = (x.double() - x0.double()).square()
    mse = float(error.mean() if where is None else error[where.expand(error.shape)].mean())
    return 10 * math.log10(PEAK**2 / mse) if mse else math.inf


@dataclass(frozen=True)
class Restored:
    """k samples of each of m images beside the originals, in dB and in units of the data.

    one, mean: PSNR of one sample, and of the mean of all k, which a regression is at its best.
    spread:    the root of the mean variance of an image's samples.
    seen:      PSNR of what was seen, None of a hole.
    known:     the largest change of what was known: around a hole, of which the others are then;
               of A x0 elsewhere; None where nothing is.
    """

    images: int
    draws: int
    one: float
    mean: float
    spread: float
    seen: float | None
    known: float | None

    @classmethod
    def of(
        cls,
        x0: Tensor,
        x: Tensor,
        hole: Tensor | None,
        seen: Tensor | None,
        A: Callable[[Tensor], Tensor] | None = None,
    ) -> Restored:
        """Of originals x0 (m, *) and samples x (m, k, *), where a hole (m, 1, *) is true, or of
        which A x0 was seen."""
        m, k = x.shape[:2]
        part = None if hole is None else hole.expand(x0.shape)
        variance = x.double().var(1) if k > 1 else torch.zeros_like(x0, dtype=torch.float64)
        change = None if part is None else (x - x0[:, None]).abs().amax(1)[~part]
        if part is None and A is not None:
            change = torch.stack([A(each) - A(x0) for each in x.unbind(1)]).abs()
        every = x0[:, None].expand_as(x).flatten(0, 1)
        there = None if part is None else part[:, None].expand_as(x).flatten(0, 1)
        return cls(
            m,
            k,
            psnr(x.flatten(0, 1), every, there),
            psnr(x.mean(1), x0, part),
            float((variance if part is None else variance[part]).mean().sqrt()),
            None if seen is None else psnr(seen, x0),
            None if change is None else float(change.max()),
        )

    def __str__(self) -> str:
        seen = f", {self.seen:.1f} dB of what was seen" if self.seen is not None else ""
        known = "" if self.known is None else f", known values off by {self.known:g} at most"
        one = f"PSNR {self.one:.1f} dB of one sample"
        if self.draws > 1:
            one += f", {self.mean:.1f} dB of the mean of {self.draws}"
        return f"{one}{seen}, spread {self.spread:.3f}{known} ({self.images} images)"

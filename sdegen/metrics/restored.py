"""What restorations are worth beside the originals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sdegen.checks import tensor

PEAK = 2.0
"""The range of data in [-1, 1]."""


def psnr(x: Tensor, x0: Tensor, where: Tensor | None = None) -> float:
    """10 log10(4 / MSE) in dB of images x beside x0 (b, *) in [-1, 1], all together.

    where: booleans that broadcast to them: the error is of these values alone. Infinite where
    nothing differs; ValueError for other shapes, bytes and other whole numbers, whose range is
    another one, and for no values at all.
    """
    refuse_other_images(x, x0)
    if where is not None and (where.dtype != torch.bool or not bool(where.any())):
        raise ValueError(
            f"where is booleans of which one or more are true, but it is {where.dtype} of "
            f"{tuple(where.shape)}, {int(where.count_nonzero())} of them not 0."
        )
    error = (x.double() - x0.double()).square()
    mse = float(error.mean() if where is None else error[where.expand(error.shape)].mean())
    return 10 * math.log10(PEAK**2 / mse) if mse else math.inf


def refuse_other_images(x: Tensor, x0: Tensor) -> None:
    """ValueError unless both are floats of one shape, and some."""
    for name, each in (("x", x), ("x0", x0)):
        if not tensor(name, each).is_floating_point():
            raise ValueError(
                f"{name} is of {each.dtype}, but images are floats in [-1, 1]: "
                "sdegen.data.from_uint8 makes them of bytes."
            )
    if x.shape != x0.shape or not x.numel():
        raise ValueError(
            f"x is {tuple(x.shape)}, but x0 is {tuple(x0.shape)}: of one shape, and not empty."
        )


WINDOW, WIDTH = 11, 1.5
"""Pixels of SSIM's Gaussian window on a side, and its standard deviation."""


def ssim(x: Tensor, x0: Tensor) -> float:
    """Structural similarity of images x and x0 (b, channels, h, w) in [-1, 1], their mean.

        (2 m_x m_y + c1) (2 s_xy + c2) / ((m_x^2 + m_y^2 + c1) (s_x^2 + s_y^2 + c2))

    with means m, variances s^2 and covariance s_xy under a Gaussian window of 11 x 11 and standard
    deviation 1.5, c1 = (0.01 L)^2, c2 = (0.03 L)^2, L = 2: wherever the window fits, of each
    channel, as scikit-image has it. (torchmetrics' mean has a border of reflected pixels in it.)
    Wang et al. (2004), eq. 13. ValueError as for ``psnr``, and images smaller than the window.
    """
    refuse_other_images(x, x0)
    if x.ndim != 4:
        raise ValueError(
            f"x is {tuple(x.shape)}, but x0 is {tuple(x0.shape)}: images are (b, channels, h, w)."
        )
    if min(x.shape[2:]) < WINDOW:
        raise ValueError(
            f"The images are {x.shape[2]} x {x.shape[3]}, but SSIM has a window of "
            f"{WINDOW} x {WINDOW}."
        )
    at = torch.arange(WINDOW, dtype=torch.float64, device=x.device) - WINDOW // 2
    weight = torch.exp(-(at**2) / (2 * WIDTH**2))
    weight = weight / weight.sum()

    def smoothed(y: Tensor) -> Tensor:
        down = F.conv2d(y, weight.reshape(1, 1, -1, 1))
        return F.conv2d(down, weight.reshape(1, 1, 1, -1))

    a, b = (each.double().flatten(0, 1)[:, None] for each in (x, x0))
    mean_a, mean_b = smoothed(a), smoothed(b)
    var_a, var_b = smoothed(a * a) - mean_a**2, smoothed(b * b) - mean_b**2
    cov = smoothed(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    alike = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    return float((alike / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def fits(x: Tensor) -> bool:
    """Whether SSIM's window fits into images."""
    return x.ndim == 4 and min(x.shape[2:]) >= WINDOW


@dataclass(frozen=True)
class Restored:
    """k samples of each of m images beside the originals, in dB and in units of the data.

    one, mean: PSNR of one sample, and of the mean of all k, which a regression is at its best.
    spread:    the root of the mean variance of an image's samples.
    seen:      PSNR of what was seen, None of a hole.
    known:     the largest change of what was known: around a hole, of which the others are then;
               of A x0 elsewhere; None where nothing is.
    ssim_one, ssim_mean: SSIM of one sample, and of the mean of all, of whole images; None of what
               its window does not fit into.
    """

    images: int
    draws: int
    one: float
    mean: float
    spread: float
    seen: float | None
    known: float | None
    ssim_one: float | None = None
    ssim_mean: float | None = None

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
            ssim(x.flatten(0, 1), every) if fits(x0) else None,
            ssim(x.mean(1), x0) if fits(x0) else None,
        )

    def __str__(self) -> str:
        seen = f", {self.seen:.1f} dB of what was seen" if self.seen is not None else ""
        known = "" if self.known is None else f", known values off by {self.known:g} at most"
        one = f"PSNR {self.one:.1f} dB of one sample"
        if self.draws > 1:
            one += f", {self.mean:.1f} dB of the mean of {self.draws}"
        if self.ssim_one is not None:
            one += f", SSIM {self.ssim_one:.3f}"
        return f"{one}{seen}, spread {self.spread:.3f}{known} ({self.images} images)"

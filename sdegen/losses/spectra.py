"""Distances of spectra: what is fine and faint counts as what is coarse and strong."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.checks import number

LEAST = 1e-3
"""Of the largest magnitude: no floor is below it, as the median of a flat sample would be."""


@dataclass(frozen=True)
class Spectral:
    """A distance that weighs each frequency by how little the wanted data x0 have of it.

        mean_f W_f |F off|_f^2,    W_f = 1 - share + share V_f,    mean_f V_f = 1,
        V_f ~ max(|F x0|_f, median)^-power

    F the orthonormal Fourier transform over all axes of space, of each channel apart. The median
    of |F x0| is a channel's own, and a thousandth of the sample's largest at least, without which
    what is hardly there would decide everything. The rest of the share is the mean square, without
    which what is strong, as brightness, would be learned last.  Yang et al. (2023), section 4.2,
    who add the two.

    Transformed in float32 at least, whatever autocast says.  A distance of ``Matching``,
    ``Progressive``, ``GuidedOnce``: called as distance(off, x0), (b, c, *space) each, (b,).
    ValueError for a power below 0, a share outside [0, 1], and for states without axes of space.
    """

    power: float = 1.0
    share: float = 0.5

    def __post_init__(self) -> None:
        number("power", self.power, 0)
        if not 0 <= number("share", self.share) <= 1:
            raise ValueError(f"share lies in [0, 1], but it is {self.share!r}.")

    def __call__(self, off: Tensor, x0: Tensor) -> Tensor:
        """The distance of each sample (b,)."""
        if off.ndim < 3:
            raise ValueError(
                "A spectrum is over axes of space, of states (b, c, *space), but these are "
                f"{tuple(off.shape)}."
            )
        with torch.autocast(off.device.type, enabled=False):
            size = self.weights(x0) * transformed(off).abs().square()
        return size.flatten(1).mean(1)

    def weights(self, x0: Tensor) -> Tensor:
        """W (b, c, *space) of data x0, a constant to gradients; all 1 of data that are 0."""
        size = transformed(x0.detach()).abs().flatten(2)
        size = size / size.amax((1, 2), True).clamp(min=torch.finfo(size.dtype).tiny)
        floor = size.median(-1, keepdim=True).values.clamp(min=LEAST)
        weight = torch.maximum(size, floor) ** -self.power
        weight = weight / weight.mean((1, 2), keepdim=True)
        found: Tensor = (1 - self.share + self.share * weight).reshape(x0.shape)
        return found


def transformed(x: Tensor) -> Tensor:
    """The orthonormal Fourier transform of x (b, c, *space) over space, complex."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    found: Tensor = torch.fft.fftn(exact, dim=tuple(range(2, x.ndim)), norm="ortho")
    return found

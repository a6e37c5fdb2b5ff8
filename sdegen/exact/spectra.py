"""Gaussian images with a spectrum: what photographs are in their second moments."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sdegen.checks import number, whole
from sdegen.exact.distributions import Gaussian


def power_spectrum(shape: Sequence[int], exponent: float, std: float = 1.0) -> Tensor:
    """S(f) ~ |f|^-exponent on the grid of ``torch.fft.fftn`` (*shape), |f| at 0 that of the lowest
    frequency beside it; the mean of S is std^2, the variance of each place.

    ValueError for a side below 2, an exponent below 0 and a std that is not above 0.
    """
    if not shape:
        raise ValueError("A spectrum is over axes of space, but shape is empty.")
    for side in shape:
        whole("A side", side, 2)
    number("exponent", exponent, 0)
    if not number("std", std) > 0:
        raise ValueError(f"std must be above 0, but it is {std!r}.")
    axes = [torch.fft.fftfreq(side, dtype=torch.float64) for side in shape]
    f = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
    S = f.clamp(min=1 / max(shape)) ** -exponent
    return std**2 * S / S.mean()


def power_law(shape: Sequence[int], exponent: float, std: float = 1.0) -> Gaussian:
    """Gaussian states (b, d) whose spectrum is ``power_spectrum``, d the product of the shape:
    ``reshape(b, *shape)`` makes series or images of its draws, that have no edge.

        x = F^-1 (sqrt(S) F z),    E[x0 | x_t] = F^-1 (alpha S / (alpha^2 S + sigma^2) F x_t)

    F the orthonormal Fourier transform: Wiener's filter, half of whose gain on alpha x0 is lost
    where S(f) = rho^2. The covariance is circulant; exponents of photographs are near 2.
    Yang et al. (2023), section 3.
    """
    S = power_spectrum(shape, exponent, std)
    one = torch.fft.ifftn(S).real  # the covariance of the first place with each
    places = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij")).flatten(1)
    apart = [(p[:, None] - p) % side for p, side in zip(places, shape, strict=True)]
    cov = one[tuple(apart)]
    return Gaussian(torch.zeros(math.prod(shape)), (cov + cov.T) / 2)

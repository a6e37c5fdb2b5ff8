"""Spectra of samples: how much there is of each size of detail."""

from __future__ import annotations

import torch
from torch import Tensor


def radial_spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies and the mean power at each, (rings,) in float64, of states x (b, c, *space).

        S(k) = mean of |F x|^2 over samples, channels and frequencies f with round(|f|) = k

    k from 0 to half of the shortest side, in waves along it; F is orthonormal, so that white noise
    of variance 1 has S = 1 throughout.

    ValueError for states without axes of space, or with a side below 2, and for none at all.
    """
    if x.ndim < 3 or min(x.shape) < 1 or min(x.shape[2:]) < 2:
        raise ValueError(
            "A spectrum is of states (b, c, *space) with sides from 2 on, but these are "
            f"{tuple(x.shape)}."
        )
    axes, shortest = tuple(range(2, x.ndim)), min(x.shape[2:])
    S = torch.fft.fftn(x.double(), dim=axes, norm="ortho").abs().square().mean((0, 1)).flatten()
    parts = [torch.fft.fftfreq(side, dtype=torch.float64) * shortest for side in x.shape[2:]]
    f = torch.stack(torch.meshgrid(*parts, indexing="ij")).square().sum(0).sqrt().flatten()
    ring, rings = f.round().long(), shortest // 2 + 1
    kept = ring < rings
    total = torch.zeros(rings, dtype=torch.float64).index_add(0, ring[kept].cpu(), S[kept].cpu())
    many = torch.bincount(ring[kept].cpu(), minlength=rings)
    return torch.arange(rings, dtype=torch.float64), total / many

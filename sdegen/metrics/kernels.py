"""Distances by kernels between two sets of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.metrics.samples import matrices


def energy_distance(a: Tensor, b: Tensor) -> float:
    """2 E|a - b| - E|a - a'| - E|b - b'|, its root, of samples (n, *).  Szekely & Rizzo (2013)."""
    a, b = matrices(a, b, least=2)
    square = (
        2 * torch.cdist(a, b).mean() - pair_mean(torch.cdist(a, a)) - pair_mean(torch.cdist(b, b))
    )
    return float(square.clamp(min=0).sqrt())


def mmd(a: Tensor, b: Tensor) -> float:
    """The kernel distance, its root, Gaussian kernel as wide as b's median distance, unbiased.

    Gretton et al. (2012).
    """
    a, b = matrices(a, b, least=2)
    width = torch.cdist(b, b).median()

    def kernel(d: Tensor) -> Tensor:
        return torch.exp(-((d / width) ** 2) / 2)

    square = pair_mean(kernel(torch.cdist(a, a)), 1.0) + pair_mean(kernel(torch.cdist(b, b)), 1.0)
    square = square - 2 * kernel(torch.cdist(a, b)).mean()
    return float(square.clamp(min=0).sqrt())


def pair_mean(pairs: Tensor, own: float = 0.0) -> Tensor:
    """The mean over pairs of different samples; a sample with itself has the value ``own``."""
    n = len(pairs)
    return (pairs.sum() - n * own) / (n * (n - 1))

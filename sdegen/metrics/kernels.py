"""Distances by kernels between two sets of samples."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.checks import whole
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

    Gretton et al. (2012). ValueError where that distance is 0, as of data that are all the same.
    """
    a, b = matrices(a, b, least=2)
    width = torch.pdist(b).median()
    if not width:
        raise ValueError("the median distance of the data is 0, which can be no kernel's width.")

    def kernel(d: Tensor) -> Tensor:
        return torch.exp(-((d / width) ** 2) / 2)

    square = pair_mean(kernel(torch.cdist(a, a)), 1.0) + pair_mean(kernel(torch.cdist(b, b)), 1.0)
    square = square - 2 * kernel(torch.cdist(a, b)).mean()
    return float(square.clamp(min=0).sqrt())


class KernelDistance(NamedTuple):
    """An estimate without bias, which may be below 0, and its standard error, from so many blocks
    of independent rows; NaN of a single one."""

    value: float
    error: float
    blocks: int


def kernel_distance(
    a: Tensor, b: Tensor, *, size: int | None = None, seed: int = 0
) -> KernelDistance:
    """The squared MMD of features a (n, d) and b (m, d), kernel (x y / d + 1)^3, without bias.

    Binkowski et al. (2018), sec. 4, who call it KID where the features are Inception's. Rows are
    dealt out at random into blocks of ``size`` on each side, none twice: the value is the mean of
    the blocks' own, which are independent, so that their spread says its error. (The field's
    random subsets overlap, and theirs does not.)

    size: by default 1,000, or a tenth of the smaller side where that is less.
    ValueError for shapes that differ, values that are not finite, one row on a side, and a size
    beyond the smaller side.
    """
    a, b = matrices(a, b, least=2)
    n = min(len(a), len(b))
    size = min(1000, max(2, n // 10)) if size is None else whole("size", size, 2, n)
    generator = torch.Generator().manual_seed(seed)
    dealt = [x[torch.randperm(len(x), generator=generator).to(x.device)] for x in (a, b)]
    blocks = n // size
    parts = (x[: blocks * size].split(size) for x in dealt)
    values = torch.stack([cubic(*pair) for pair in zip(*parts, strict=True)])
    error = float(values.std()) / blocks**0.5 if blocks > 1 else math.nan
    return KernelDistance(float(values.mean()), error, blocks)


def cubic(a: Tensor, b: Tensor) -> Tensor:
    """The squared MMD of two sets by the cubic kernel."""

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    own = []
    for x in (a, b):
        every = kernel(x, x)
        n = len(x)
        own.append((every.sum() - every.diagonal().sum()) / (n * (n - 1)))
    return own[0] + own[1] - 2 * kernel(a, b).mean()


def pair_mean(pairs: Tensor, own: float = 0.0) -> Tensor:
    """The mean over pairs of different samples; a sample with itself has the value ``own``."""
    n = len(pairs)
    return (pairs.sum() - n * own) / (n * (n - 1))

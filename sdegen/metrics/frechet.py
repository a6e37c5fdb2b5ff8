"""The Frechet distance between two sets of features."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.checks import whole
from sdegen.metrics.samples import matrices


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared 2-Wasserstein distance of the Gaussians with the moments of a (n, d) and b (m, d).

        |mean_a - mean_b|^2 + tr S_a + tr S_b - 2 tr (S_a^{1/2} S_b S_a^{1/2})^{1/2}

    with unbiased covariances S. Dowson and Landau (1982); with Inception features it is the FID
    of Heusel et al. (2017).

    No covariance is formed and no root of a matrix taken. Centred features divided by
    sqrt(n - 1) are Q R with S = R^T R, and then the last trace is the sum of the singular values
    of R_a R_b^T. A rank-deficient S, as with fewer samples than features, is no special case,
    whereas the eigenvalue zero of S, known to 1e-16, would have a root known to 1e-8 only.

    Raises ValueError if a and b are not (n, d) and (m, d), have fewer than 2 rows, or have values
    that are not finite.
    """
    a, b = rows(a, b)
    return between(Gaussian.of(a), Gaussian.of(b))


class FrechetDistance(NamedTuple):
    """The distance of n samples to m data in d features, and its standard error by the draw of the
    samples, NaN where they are too few to tell.

    It is biased upwards, by about 1 / n: compare distances of the same n. Of fewer than d + 1
    samples or data the covariance has not full rank, and the bias is large: ``few``.
    """

    value: float
    error: float
    n: int
    m: int
    d: int

    @property
    def few(self) -> bool:
        """Whether there are fewer than d + 1 samples or data."""
        return min(self.n, self.m) < self.d + 1


def frechet_estimate(a: Tensor, b: Tensor, *, parts: int = 10, seed: int = 0) -> FrechetDistance:
    """``frechet_distance`` of samples' features a (n, d) to data's b (m, d), with its error.

    By the jackknife over g random parts, each left out once, the data as they are:

        error^2 = (g - 1) / g  sum over parts of (D_without - mean of these)^2

    Efron & Stein (1981). ValueError as for ``frechet_distance``, and for fewer than two parts.
    """
    whole("parts", parts, 2)
    a, b = rows(a, b)
    data = Gaussian.of(b)
    value, error = between(Gaussian.of(a), data), math.nan
    if len(a) >= 2 * parts:
        order = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed))
        dealt = torch.arange(len(a))[order].remainder(parts).to(a.device)
        without = [between(Gaussian.of(a[dealt != k]), data) for k in range(parts)]
        spread = torch.tensor(without, dtype=torch.float64).var(correction=0)
        error = math.sqrt((parts - 1) * float(spread))
    return FrechetDistance(value, error, len(a), len(b), a.shape[1])


def rows(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Features in float64; ValueError unless they are (n, d) and (m, d), of 2 rows or more."""
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(
            f"the features have shapes {tuple(a.shape)} and {tuple(b.shape)}, "
            "expected (n, d) and (m, d): flatten them first."
        )
    return matrices(a, b, least=2)


class Gaussian(NamedTuple):
    """A mean (d,), and a root R (min(n, d), d) of the covariance R^T R."""

    mean: Tensor
    root: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Gaussian:
        """With the moments of x (n, d)."""
        return cls(x.mean(0), _root(x))


def between(a: Gaussian, b: Gaussian) -> float:
    """The squared 2-Wasserstein distance of two Gaussians."""
    mean = (a.mean - b.mean).square().sum()
    spread = a.root.square().sum() + b.root.square().sum()
    overlap = torch.linalg.svdvals(a.root @ b.root.T).sum()
    return max(0.0, float(mean + spread - 2 * overlap))


def _root(x: Tensor) -> Tensor:
    """R (min(n, d), d), for which R^T R is the covariance of x (n, d)."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    root: Tensor = torch.linalg.qr(centred, mode="r").R
    return root

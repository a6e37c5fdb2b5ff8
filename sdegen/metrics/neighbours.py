"""How much of the samples lies among real data, and how much of the data among the samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.checks import whole
from sdegen.metrics.samples import matrices

AT_ONCE = 2**24
"""Distances that are held at once."""


class Coverage(NamedTuple):
    """Shares in [0, 1], but for the density, which may exceed 1.

    precision: of the samples that lie in the manifold of the data; recall: of the data that lie in
    the samples'. Kynkaanniemi et al. (2019), eqs. 1-3: a manifold is the union of balls around
    points, each as wide as its k-th nearest neighbour is far.
    density: data's balls around a sample, over k, the mean; coverage: of the data in whose ball
    there is a sample. Naeem et al. (2020), eqs. 3-4: an outlier among the samples counts in none.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def coverage(samples: Tensor, data: Tensor, k: int = 5) -> Coverage:
    """Of features of samples (n, d) and of data (m, d), by k nearest neighbours.

    (Kynkaanniemi et al. take k = 3, Naeem et al. 5.) Values depend on n and m: compare those of
    the same numbers. ValueError for shapes that differ, values that are not finite, and k or
    fewer rows on a side.
    """
    whole("k", k)
    for name, rows in (("samples", samples), ("data", data)):
        if len(rows) <= k:
            raise ValueError(
                f"{k} nearest neighbours need {k + 1} {name} or more, but there are {len(rows)}."
            )
    a, b = matrices(samples, data, least=k + 1)
    wide_a, wide_b = radii(a, k), radii(b, k)
    inside = torch.zeros(len(a), dtype=torch.float64)  # data's balls around each sample
    found, covered = torch.zeros(len(b), dtype=torch.bool), torch.zeros(len(b), dtype=torch.bool)
    at_once = max(1, AT_ONCE // len(b))
    for first in range(0, len(a), at_once):
        some = slice(first, first + at_once)
        d = torch.cdist(a[some], b)
        within = d <= wide_b
        inside[some] = within.double().sum(1).cpu()
        covered |= within.any(0).cpu()
        found |= (d <= wide_a[some, None]).any(0).cpu()
    shares = inside.gt(0), found, inside / k, covered
    return Coverage(*(float(share.double().mean()) for share in shares))


def radii(x: Tensor, k: int) -> Tensor:
    """The distance of each point's k-th nearest other one, (n,)."""
    at_once = max(1, AT_ONCE // len(x))
    # The nearest of all is the point itself, at distance 0.
    parts = [torch.cdist(some, x).kthvalue(k + 1, 1).values for some in x.split(at_once)]
    return torch.cat(parts)

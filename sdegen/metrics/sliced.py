"""The sliced Wasserstein distance between two sets of samples."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.metrics.samples import matrices


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int = 256, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance of the samples a (n, ...) and b (m, ...), flattened to d.

        sqrt( mean over unit vectors u of W2(u.a, u.b)^2 )

    over ``projections`` random directions u, drawn from ``seed``. There is no factor d: moving a
    set by c changes W2^2 by |c|^2, the mean of the squared projections only by |c|^2 / d.
    Rabin et al. (2012); Bonneel et al. (2015).

    Raises ValueError if the samples differ in shape, a set is empty or has values that are not
    finite, or there are no projections.
    """
    if projections < 1:
        raise ValueError(f"projections = {projections}, expected 1 or more.")
    a, b = matrices(a, b, least=1)
    return distance_of_projections(project(a, projections, seed), project(b, projections, seed))


def project(x: Tensor, projections: int = 256, seed: int = 0) -> Tensor:
    """The samples x (n, ...) on random directions: (projections, n), all that their sliced
    distances depend on."""
    x = x.detach().flatten(1).double()
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(x.shape[1], projections, generator=generator, dtype=torch.float64)
    return (x @ (u / u.norm(dim=0)).to(x.device)).T


def distance_of_projections(a: Tensor, b: Tensor) -> float:
    """The sliced distance of two sets of samples by their projections (p, n) and (p, m)."""
    return float(_squared_w2(a, b).mean().sqrt())


def _squared_w2(a: Tensor, b: Tensor) -> Tensor:
    """W2^2 of the empirical laws of a (p, n) and b (p, m), for each of the p rows.

    In one dimension it is the integral over q in [0, 1] of (F_a^{-1}(q) - F_b^{-1}(q))^2, where
    the i-th smallest of n samples is the value of F^{-1} on (i / n, (i + 1) / n). All steps lie
    at multiples of 1 / (n m), so that integers find them without rounding.
    """
    n, m = a.shape[1], b.shape[1]
    steps_a = torch.arange(n + 1, device=a.device) * m
    steps_b = torch.arange(m + 1, device=a.device) * n
    steps = torch.cat([steps_a, steps_b]).unique()
    weights = steps.diff().double() / (n * m)
    quantile_a = a.sort(dim=1).values[:, steps[:-1] // m]
    quantile_b = b.sort(dim=1).values[:, steps[:-1] // n]
    squared: Tensor = (quantile_a - quantile_b).square() @ weights
    return squared

"""Integrals in float64, exact to rounding for what solvers integrate."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

POINTS = 32


@cache
def legendre(n: int = POINTS) -> tuple[Tensor, Tensor]:
    """Gauss and Legendre's nodes and weights on [0, 1], (n,) each: the Golub-Welsch algorithm."""
    k = torch.arange(1, n, dtype=torch.float64)
    beta = k / torch.sqrt(4 * k**2 - 1)
    nodes, vectors = torch.linalg.eigh(torch.diag(beta, 1) + torch.diag(beta, -1))
    return (nodes + 1) / 2, vectors[0] ** 2


def points(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Where to look between a and b, (*, n), and the weight of each place."""
    u, w = legendre()
    length = (b - a).unsqueeze(-1)
    return a.unsqueeze(-1) + length * u, length * w


def integrate(f: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """INT f from a to b, elementwise over tensors a and b of one shape."""
    a, b = torch.broadcast_tensors(a, b)
    u, w = points(a, b)
    return (f(u) * w).sum(-1)

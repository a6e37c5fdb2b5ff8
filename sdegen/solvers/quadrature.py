"""Integrals in float64, exact to rounding for what solvers integrate."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from sdegen.sde.level import NO_SIGNAL

POINTS = 32


@cache
def legendre(n: int = POINTS) -> tuple[Tensor, Tensor]:
    """Gauss and Legendre's nodes and weights on [0, 1], (n,) each.

    The nodes are the roots of the Legendre polynomial P_n, by Newton's method from Tricomi's
    estimate; the weights are 1 / ((1 - x^2) P_n'(x)^2).
    """
    k = torch.arange(n, 0, -1, dtype=torch.float64)
    x = torch.cos(torch.pi * (k - 0.25) / (n + 0.5))
    for _ in range(5):
        last, value = torch.ones_like(x), x
        for j in range(2, n + 1):
            last, value = value, ((2 * j - 1) * x * value - (j - 1) * last) / j
        slope = n * (x * value - last) / (x**2 - 1)
        x = x - value / slope
    return (x + 1) / 2, 1 / ((1 - x**2) * slope**2)


def points(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Where to look between two lam, (*, n), and the weight of each place.

    From pure noise on, lam = -inf, it is looked where there is a trace of signal.
    """
    u, w = legendre()
    a = a.clamp(min=NO_SIGNAL)
    length = (b - a).unsqueeze(-1)
    return a.unsqueeze(-1) + length * u, length * w


def integrate(f: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """INT f from a to b, elementwise over tensors a and b of one shape."""
    a, b = torch.broadcast_tensors(a, b)
    u, w = points(a, b)
    return (f(u) * w).sum(-1)

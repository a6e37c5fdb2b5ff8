"""How near samples are to data in features: distances, shares, and how well they are known."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from sdegen.metrics.frechet import FrechetDistance, frechet_estimate
from sdegen.metrics.kernels import KernelDistance, kernel_distance
from sdegen.metrics.neighbours import Coverage, coverage

NEIGHBOURS = 5
"""Nearest neighbours whose distance is the radius of a ball."""


class Fidelity(NamedTuple):
    """Of samples beside data: two distances with their standard errors, and four shares, None of
    fewer than six on a side."""

    frechet: FrechetDistance
    kernel: KernelDistance
    shares: Coverage | None


def fidelity(samples: Tensor, data: Tensor, *, seed: int = 0) -> Fidelity:
    """Of features of samples (n, d) and of data (m, d).

    ValueError where their d differs, values are not finite, or there is one on a side.
    """
    enough = min(len(samples), len(data)) > NEIGHBOURS
    return Fidelity(
        frechet_estimate(samples, data, seed=seed),
        kernel_distance(samples, data, seed=seed),
        coverage(samples, data, NEIGHBOURS) if enough else None,
    )


def lines(title: str, found: Fidelity, inception: bool) -> str:
    """The figures as text for a terminal, with n and standard errors; the distances are called FID
    and KID where the features are Inception's."""
    frechet, kernel = found.frechet, found.kernel
    names = ("FID", "KID") if inception else ("Frechet distance", "kernel distance")
    few = f"  (fewer than d + 1 = {frechet.d + 1}: biased upwards)" if frechet.few else ""
    rows = [
        f"{title}: {frechet.n:,} samples, {frechet.m:,} data, {frechet.d:,} features",
        f"  {names[0]:18s}{with_error(frechet.value, frechet.error)}{few}",
        f"  {names[1]:18s}{with_error(kernel.value, kernel.error)}  ({kernel.blocks} blocks)",
    ]
    if found.shares is not None:
        named = "  ".join(f"{k} {v:.3f}" for k, v in found.shares._asdict().items())
        rows.append(f"  {f'{NEIGHBOURS} neighbours':18s}{named}")
    return "\n".join(rows)


def with_error(value: float, error: float) -> str:
    """A number and its standard error, as far as it is known."""
    return f"{value:.4g}" if math.isnan(error) else f"{value:.4g} +- {error:.2g}"

"""What forecasts are worth: drawn values of a quantity beside what it came to be."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sdegen.checks import number


def crps(paths: Tensor, y: Tensor) -> Tensor:
    """The continuous ranked probability score of n draws (n, *) of what came to be y (*), (*).

        E|X - y| - E|X - X'| / 2 = INT (P(X <= z) - [y <= z])^2 dz

    without bias for any n, as X' is another draw than X. Less is better, |X - y| of a forecast
    that is sure. Gneiting & Raftery (2007), eqs. 20 and 21; the sums are scoringrules', of sorted
    draws, whose pairs are never laid out.

    Raises ValueError for fewer than two draws, other shapes, values that are not finite, and where
    there is no scoringrules: ``pip install 'sdegen[series]'``.
    """
    paths, y = fitting(paths, y, 2)
    try:
        import scoringrules
    except ImportError:
        raise ValueError("crps needs scoringrules: pip install 'sdegen[series]'.") from None
    rules: Any = scoringrules
    found: Tensor = rules.crps_ensemble(y, paths, m_axis=0, estimator="pwm", backend="torch")
    return found


def covered(paths: Tensor, y: Tensor, share: float = 0.95) -> Tensor:
    """Where y (*) lies in the central band of n draws (n, *) that is to hold such a share, (*).

    Its ends are the draws' quantiles at (n + 1) (1 -+ share) / 2, between two of them in
    proportion: where y is one more draw, and these are whole numbers, the band holds it with just
    that probability.

    Raises ValueError for a share outside (0, 1), too few draws for it, n >= (1 + share) /
    (1 - share), other shapes and values that are not finite.
    """
    if not 0 < number("share", share) < 1:
        raise ValueError(f"A band holds a share in (0, 1), but it is {share!r}.")
    paths, y = fitting(paths, y, 1)
    n, tail = len(paths), (1 - share) / 2
    at = (n + 1) * tail
    if at < 1 - 1e-9:
        least = round((1 + share) / (1 - share))
        raise ValueError(f"A band of {share:g} takes {least} draws or more, but there are {n}.")
    order = paths.sort(0).values
    low, high = between(order, at - 1), between(order, n - at)
    return (low <= y) & (y <= high)


def between(order: Tensor, at: float) -> Tensor:
    """The value at a place from 0 to n - 1 among n that are sorted (n, *), (*)."""
    k = min(round(at), len(order) - 1)
    if abs(at - k) < 1e-9:
        return order[k]  # itself, and not what rounding makes of it
    k = int(at)
    return order[k] + (at - k) * (order[k + 1] - order[k])


def fitting(paths: Tensor, y: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Draws (n, *) and what came to be (*), in float64; ValueError where they do not fit."""
    if paths.ndim < 1 or paths.shape[1:] != y.shape or len(paths) < least:
        raise ValueError(
            f"Draws are (n, *) of what came to be (*), n >= {least}, but they are "
            f"{tuple(paths.shape)} of {tuple(y.shape)}."
        )
    if not (paths.isfinite().all() and y.isfinite().all()):
        raise ValueError("A forecast and what came to be have values that are not finite.")
    return paths.detach().double(), y.detach().double()

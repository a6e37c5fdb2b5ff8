"""The scale of data: mean and standard deviation over all their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from sdegen.data.arrays import ArrayData
from sdegen.data.classes import gather

SOME = 1000
"""Items of a data set on disk that stand for its scale."""


class Moments(NamedTuple):
    """The mean of numbers, and their standard deviation about it."""

    mean: float
    std: float


def moments(data: Any, seed: int = 0) -> Moments:
    """Mean m and standard deviation s over all numbers of a data set, in float64.

    m = mean of x_ij,  s^2 = mean of (x_ij - m)^2  over data i and coordinates j

    s is EDM's sigma_data, Karras et al. (2022), appendix B.6: an input of variance
    sigma^2 + s^2 is scaled to one. The mean is one number for all coordinates, as a network's
    input is scaled by one number. Of data that are not in memory it is measured on 1,000, drawn
    with the seed and stratified by class.
    """
    x = (data if isinstance(data, ArrayData) else gather(data, SOME, seed)).x
    mean = sum(float(part.sum()) for part in parts(x)) / x.numel()
    square = sum(float((part - mean).square().sum()) for part in parts(x)) / x.numel()
    return Moments(mean, square**0.5)


def parts(x: Tensor) -> Iterator[Tensor]:
    """A tensor in float64, a few data at a time."""
    for part in x.split(SOME):
        yield part.double()

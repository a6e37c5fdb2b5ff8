"""The inverse of a monotone curve, where it has none in closed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALVINGS = 60
"""Of an interval: more than float64 tells apart, whose numbers have 53 bits."""


def bisect(before: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Where a condition ends that holds from low on and not up to high, to the last bit.

    before: points of low's shape -> whether each lies before that end.
    """
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        early = before(middle)
        low, high = torch.where(early, middle, low), torch.where(early, high, middle)
    return (low + high) / 2

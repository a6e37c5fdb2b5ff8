"""The best of several samples, by a score."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.checks import whole


def best_of(draw: Callable[[int], Tensor], k: int, score: Callable[[Tensor], Tensor]) -> Tensor:
    """Of k draws that of the largest score, sample by sample: (b, *).

    draw:  0, 1, ..., k - 1 -> x (b, *), as ``lambda seed: sg.sample(model, shape, seed=seed)``.
    score: x -> (b,); one that is not finite is of no draw that is kept before another.

    ``draw(0)`` wins where scores are equal, or none is finite, so that of one draw it is the
    sample. Ramesh et al. (2022), section 2.2, keep of two embeddings that which is nearer to the
    text's.
    ValueError for k < 1, and where a score is not one number for each sample.
    """
    whole("k", k)
    best = draw(0)
    top = scores(score, best)
    for j in range(1, k):
        x = draw(j)
        found = scores(score, x)
        better = found > top
        top = torch.where(better, found, top)
        best = torch.where(better.reshape(-1, *[1] * (x.ndim - 1)), x, best)
    return best


def scores(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """One for each of x (b, *), (b,), the least there is where it is not finite; ValueError for
    others."""
    found = score(x)
    if found.shape != x.shape[:1]:
        raise ValueError(
            f"A score is one number for each of {len(x)} samples, ({len(x)},), but it is "
            f"{tuple(found.shape)}."
        )
    if not found.is_floating_point():
        return found
    return found.masked_fill(~found.isfinite(), -math.inf)

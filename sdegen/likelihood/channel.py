"""Reverse channel coding: a draw of a law q, told to who has draws of another, p, by its number.

    i = argmin (e_1 + ... + e_i) p(z_i) / q(z_i),      z_i ~ p shared,  e_i ~ Exp(1)

Then z_i is a draw of q, and log2 i about KL(q || p): the Poisson functional representation, Li &
El Gamal (2018). Here p is N(0, I) and q a Gaussian beside it. The z_i are draws of a counter
(``Seeded``): who is told i makes the one, and no other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.noise.source import Seeded
from sdegen.sde.level import Level

ROWS = 2**20
"""Numbers of candidates that are made at once."""


def candidates(name: str, seed: int, first: int, n: int, d: int, at: Level) -> Tensor:
    """Draws first to first + n of those that both ends share under a name, (n, d) in float64."""
    like = torch.empty(n, d, dtype=torch.float64)
    return Seeded(seed, first).stream(name)(like, at, at)


def picked(
    mean: Tensor, std: Tensor, extra: int, *, name: str, seed: int, at: Level
) -> tuple[int, Tensor]:
    """The number, from 0, of the candidate that is a draw of N(mean, diag std^2), and it, (d,).

    mean, std: (d,) in float64, beside N(0, I).  extra: 2^extra times as many candidates are seen
    as KL(q || p) asks for. With fewer than infinitely many the law is p's a little: of the mean,
    at 8 bits, 7 % are missing with extra = 5, and 4 % with 7. Where q is narrower than p in
    every coordinate and no candidate to come can be better, it ends before.
    """
    d = len(mean)
    n = 2 ** (math.ceil(divergence_bits(mean, std)) + extra)
    most = best_weight(mean, std)
    best, at_best, chosen = math.inf, 0, mean
    total = torch.zeros((), dtype=torch.float64)
    rows = min(n, max(1, ROWS // d))
    for first in range(0, n, rows):
        z = candidates(name, seed, first, min(rows, n - first), d, at)
        u = candidates(f"{name}, arrivals", seed, first, len(z), 1, at)[:, 0]
        arrivals = total + (-torch.special.log_ndtr(u)).cumsum(0)
        log_w = (0.5 * z.square() - 0.5 * ((z - mean) / std).square() - std.log()).sum(1)
        score = arrivals.log() - log_w
        i = int(score.argmin())
        if float(score[i]) < best:
            best, at_best, chosen = float(score[i]), first + i, z[i]
        total = arrivals[-1]
        if float(total.log()) - most > best:
            break
    return at_best, chosen


def divergence_bits(mean: Tensor, std: Tensor) -> float:
    """KL(N(mean, diag std^2) || N(0, I)), bits."""
    nats = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum()
    return float(nats) / math.log(2)


def best_weight(mean: Tensor, std: Tensor) -> float:
    """The largest log q / p anywhere; infinite unless q is the narrower in every coordinate."""
    if not bool((std < 1).all()):
        return math.inf
    return float((0.5 * mean.square() / (1 - std.square()) - std.log()).sum())

"""Scales that change along the way: on a part of it, and step by step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from sdegen.checks import number
from sdegen.guidance.wrapped import noise_of
from sdegen.sde.level import Instant
from sdegen.sde.process import SDE, linear


@dataclass(frozen=True)
class Interval:
    """A scale where low < rho <= high, and 1 elsewhere.  Kynkaanniemi et al. (2024).

    rho = sigma / alpha is EDM's sigma. Its ends cost a multistep solver its order, unless they are
    times of the walk. ValueError for what is no number, and a high that is not above low.
    """

    scale: float
    low: float
    high: float
    jumps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        number("An interval's scale", self.scale)
        if self.high != math.inf:
            number("An interval's high", self.high)
        if not 0 <= number("An interval's low", self.low) < self.high:
            raise ValueError(
                f"An interval of rho has 0 <= low < high, but they are {self.low}, {self.high}."
            )

    @property
    def extremes(self) -> tuple[float, float]:
        """The least and the largest value."""
        return min(1.0, self.scale), max(1.0, self.scale)

    def __call__(self, level: Instant) -> float | Tensor:
        """At a level."""
        rho = noise_of(level)
        inside = (self.low < rho) & (rho <= self.high)
        if rho.ndim:
            return torch.where(inside, rho.new_full((), self.scale), rho.new_ones(()))
        return self.scale if bool(inside) else 1.0


@dataclass(frozen=True)
class Stepwise:
    """A scale for each step of a walk: scales[k] from times[k] on, down to times[k + 1].

    times (n + 1,), falling, and scales (n,). Before the first and beyond the last it is theirs.
    """

    times: tuple[float, ...]
    scales: tuple[float, ...]
    jumps: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "times", tuple(map(float, self.times)))
        object.__setattr__(self, "scales", tuple(map(float, self.scales)))
        for each in self.scales:
            number("A step's scale", each)
        falling = all(a > b for a, b in pairwise(self.times)) and bool(self.scales)
        if len(self.times) != len(self.scales) + 1 or not falling:
            raise ValueError(
                f"Stepwise takes n + 1 falling times and n scales, not {len(self.times)} times "
                f"and {len(self.scales)} scales."
            )

    @property
    def extremes(self) -> tuple[float, float]:
        """The least and the largest value."""
        return min(self.scales), max(self.scales)

    def __call__(self, level: Instant) -> float | Tensor:
        """At a level; a step's end is the next one's beginning."""
        k = step_at(self.times, level)
        if isinstance(k, int):
            return self.scales[k]
        return torch.tensor(self.scales, dtype=torch.float64)[k].to(level.t)


def step_at(times: Sequence[float], level: Instant) -> int | Tensor:
    """Which step of falling times (n + 1,) a level is in, 0 to n - 1, of each sample (b,) where it
    has times of their own; a step's end is the next one's beginning."""
    inner = torch.tensor(times[1:-1], dtype=torch.float64)
    t = level.t.detach().cpu()
    if not t.ndim:
        return int((t <= inner).sum())
    return (t[:, None] <= inner).sum(1)


def cfgpp(sde: SDE, times: Tensor, lam: float) -> Stepwise:
    """CFG++ of strength lam in [0, 1] along a walk of times (n + 1,), for DDIM.

    x_s = alpha_s x0(eps_lam) + sigma_s eps_u is DDIM with the scale lam / (1 - e^-h) at a step of
    h in log(alpha / sigma): it grows with the number of steps and has no limit.  Chung et al.
    (2024). Where levels differ between coordinates h is the reference's.

    ValueError for a lam out of range, times that do not fall, and an SDE without marginals.
    """
    if not number("CFG++'s lam", lam, 0) <= 1:
        raise ValueError(f"CFG++ has lam in [0, 1], but it is {lam!r}.")
    clock = linear(sde, "CFG++", "give a scale of yours").reference
    times = torch.as_tensor(times, dtype=torch.float64)
    h = clock(times).lam.diff()
    return Stepwise(tuple(times.tolist()), tuple((lam / -torch.expm1(-h)).tolist()))

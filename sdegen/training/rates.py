"""How the learning rate goes, as a factor of the optimiser's own."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int, int, int], float]
"""(step, warmup, steps) -> the factor after the warm-up."""


def constant(step: int, warmup: int, steps: int) -> float:
    """1."""
    return 1.0


def cosine(step: int, warmup: int, steps: int) -> float:
    """Down to 0 after the last step, by half a cosine.  Loshchilov & Hutter (2017), eq. 5."""
    way = (step - warmup) / max(steps - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * min(max(way, 0.0), 1.0)))


def rsqrt(step: int, warmup: int, steps: int) -> float:
    """sqrt(warmup / step) after the warm-up.  Vaswani et al. (2017), eq. 3."""
    return math.sqrt(max(warmup, 1) / max(step + 1, warmup, 1))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "rsqrt": rsqrt}


def rate(schedule: str, step: int, warmup: int, steps: int) -> float:
    """The factor at a step, rising linearly over the warm-up."""
    return min(1.0, (step + 1) / max(warmup, 1)) * SCHEDULES[schedule](step, warmup, steps)

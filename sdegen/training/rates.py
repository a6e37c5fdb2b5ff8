"""How the learning rate goes, as a factor of the optimiser's own."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int, int, int], float]
"""(step, after, steps) -> the factor, 1 up to the step ``after``."""


def constant(step: int, after: int, steps: int) -> float:
    """1."""
    return 1.0


def cosine(step: int, after: int, steps: int) -> float:
    """Down to 0 after the last step, by half a cosine.  Loshchilov & Hutter (2017), eq. 5."""
    way = (step - after) / max(steps - after, 1)
    return 0.5 * (1 + math.cos(math.pi * min(max(way, 0.0), 1.0)))


def rsqrt(step: int, after: int, steps: int) -> float:
    """1 / sqrt(max(k / after, 1)) at step k = 1, 2, ...  Vaswani et al. (2017), eq. 3; Karras et
    al. (2024b), eq. 67."""
    return math.sqrt(max(after, 1) / max(step + 1, after, 1))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cosine": cosine, "rsqrt": rsqrt}


def rate(schedule: str, step: int, warmup: int, steps: int, after: int | None = None) -> float:
    """The factor at a step, rising linearly over the warm-up; the schedule's from the step
    ``after`` on, None: from the end of the warm-up."""
    rising = min(1.0, (step + 1) / max(warmup, 1))
    return rising * SCHEDULES[schedule](step, warmup if after is None else after, steps)

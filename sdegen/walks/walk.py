"""A walk: the times that a solver stops at, checked, and what the SDE knows there."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from sdegen.sde.level import Instant
from sdegen.sde.process import SDE, LinearSDE


def check_walk(sde: SDE, times: Tensor) -> Tensor:
    """The times of a walk (n + 1,) in float64, refused unless they fall within [t_min, T]."""
    times = torch.as_tensor(times).detach().to("cpu", torch.float64)
    if times.ndim != 1 or len(times) < 2:
        raise ValueError(
            f"A walk is a tensor of at least two times (n + 1,), but its shape is "
            f"{tuple(times.shape)}."
        )
    known = times.tolist()
    if not all(map(math.isfinite, known)):
        raise ValueError(f"A walk's times must be finite, but they are {known}.")
    for t, s in pairwise(known):
        if s == t:
            raise ValueError(
                f"A walk moves at every step, but {t!r} is followed by {s!r}: leave one out."
            )
        if s > t and not isinstance(sde, LinearSDE):
            raise ValueError(
                f"A walk climbs by the forward step of a LinearSDE, which {type(sde).__name__} is "
                f"not: its times must fall strictly, but {t!r} is followed by {s!r}."
            )
    if known[-1] > known[0]:
        raise ValueError(
            f"A walk ends below its start, nearer the data, but this one runs from "
            f"{known[0]:g} to {known[-1]:g}: did you mean walk.flip(0)?"
        )
    # A grid handed over in float32 may miss an end by a rounding: it is moved onto it.
    slack = 1e-6 * sde.T
    first, last = max(known), min(known)
    if first > sde.T + slack or last < sde.t_min - 1e-6 * sde.t_min:
        raise ValueError(
            f"A walk stays within [t_min, T] = [{sde.t_min:g}, {sde.T:g}] of "
            f"{type(sde).__name__}, but this one runs from {first:g} to {last:g}."
        )
    return times.clamp(sde.t_min, sde.T)


def levels(sde: SDE, times: Tensor) -> list[Instant]:
    """What the SDE knows at each time of a walk: float64, on the CPU, made once."""
    return sde(check_walk(sde, times)).unbind()

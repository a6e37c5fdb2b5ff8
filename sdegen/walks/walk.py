"""A walk: the times that a solver stops at, checked, and what the SDE knows there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sdegen.sde.level import Instant
from sdegen.sde.process import SDE, LinearSDE, has_coordinates


@dataclass(frozen=True, eq=False)
class Walk(Sequence[Instant]):
    """The times of an SDE at which a solver stops, and the levels there: one value.

    times: (n + 1,), any numbers; kept in float64 on the CPU, and not to be written into.

    A sequence of its n + 1 levels, from noise to data, made once, when first asked for.
    ValueError for times that no solver can walk: see ``check_walk``.
    """

    sde: SDE
    times: Tensor

    def __post_init__(self) -> None:
        # Whoever made the times, tensors of a walk may be part of a graph of gradients.
        with torch.inference_mode(False):
            try:
                times = torch.as_tensor(self.times, dtype=torch.float64)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"A walk's times are numbers, from noise to data, but they are {self.times!r}."
                ) from error
            object.__setattr__(self, "times", check_walk(self.sde, times))

    @cached_property
    def levels(self) -> tuple[Instant, ...]:
        """What the SDE knows at each time: float64, on the CPU."""
        with torch.inference_mode(False):
            if has_coordinates(self.sde):  # whose levels may be those of each sample
                return tuple(map(self.sde, self.times))
            return tuple(self.sde(self.times).unbind())

    @cached_property
    def last(self) -> float:
        """The time that it ends at."""
        return float(self.times[-1])

    @property
    def steps(self) -> int:
        """From one time to the next, up or down."""
        return len(self.times) - 1

    @property
    def descents(self) -> int:
        """Its steps down, which are the solver's."""
        return int((self.times.diff() < 0).sum())

    @property
    def climbs(self) -> bool:
        """True where a step goes up, by the SDE's own forward step."""
        return self.descents < self.steps

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, index: Any) -> Any:
        return self.levels[index]

    def __repr__(self) -> str:
        first, last = self.times[[0, -1]].tolist()
        climbs = ", climbing" if self.climbs else ""
        return f"Walk({self.steps} steps from t = {first:g} to {last:g}{climbs} of {self.sde})"


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


def levels(sde: SDE, times: Tensor | Sequence[float]) -> list[Instant]:
    """What the SDE knows at each time of a walk: float64, on the CPU, made once."""
    return list(Walk(sde, times).levels)  # type: ignore[arg-type]

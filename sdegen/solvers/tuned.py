"""A solver that was tuned to a model: its walk and its weights, as numbers in a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from sdegen.files import write_json
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE, has_coordinates
from sdegen.solvers.equation import Reverse
from sdegen.solvers.solver import Solver, Step
from sdegen.solvers.traits import Traits

FORMAT = "sdegen tuned solver, 1"


@dataclass(frozen=True)
class Gain:
    """Median errors against the fine solution, on seeds that no choice was made by.

    tuned, untuned: of the tuned solver and of the best untuned one, ``name``; low, high: the
    ratio's 5 % and 95 % quantiles over resampled seeds; floor: the fine solution's own error.
    """

    tuned: float
    untuned: float
    name: str
    low: float
    high: float
    floor: float
    seeds: int

    @property
    def ratio(self) -> float:
        """Of the medians, tuned to untuned."""
        return over(self.tuned, self.untuned)

    def __str__(self) -> str:
        return (
            f"median error {self.tuned:.3g} against {self.untuned:.3g} of the best untuned solver "
            f"({self.name}): {self.ratio:.2f} of it, 90 % of resampled seeds between "
            f"{self.low:.2f} and {self.high:.2f} ({self.seeds} fresh seeds; the fine solution's "
            f"own error is {self.floor:.1g})"
        )


def over(error: float, other: float) -> float:
    """One error by another, 1 of two that are zero."""
    if other == 0:
        return 1.0 if error == 0 else math.inf
    return error / other


@dataclass(frozen=True)
class Tuned(Solver):
    """x_s = sigma_s / sigma_t x_t + d_i x_T + sum_j w_ij x0_j, over all x0, on its own walk.

    times:   of the walk, (n + 1,), one network call each but the last.
    weights: of step i, from 0: d_i, and w_ij of every x0 so far, i + 2 numbers.
    alpha, sigma: of the SDE at these times, by which another SDE is told apart.
    gain:    what it gained where it was tuned.

    Made by ``tune`` or ``load``; it solves the probability flow. ValueError where it is asked to
    work on another SDE, another walk or with another number of calls.
    """

    times: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    sde: str = ""
    gain: Gain | None = field(default=None, compare=False)
    presets: ClassVar = {}

    def __post_init__(self) -> None:
        n, rows = len(self.times) - 1, [len(row) for row in self.weights]
        if rows != list(range(2, n + 2)) or not len(self.alpha) == len(self.sigma) == n + 1 > 1:
            raise ValueError(
                "A tuned solver of n steps has n + 1 times and levels, and weights of lengths 2 "
                f"to n + 1, but there are {n + 1} times, {len(self.alpha)} levels, lengths {rows}."
            )

    @property
    def traits(self) -> Traits:
        """It has its walk, and no order on another."""
        return Traits(order=0, needs_marginals=True, follows_flow=False, own_walk=self.times)

    def check(self, p: Reverse) -> None:
        """Refuse an SDE with other levels at these times."""
        ends = (p.sde.T, p.sde.t_min)
        same = isinstance(p.sde, LinearSDE) and ends == (self.times[0], self.times[-1])
        same = same and not has_coordinates(p.sde)
        if same:
            at: Any = p.sde(torch.tensor(self.times, dtype=torch.float64))
            for mine, theirs in ((self.alpha, at.alpha), (self.sigma, at.sigma)):
                known = torch.tensor(mine, dtype=torch.float64)
                same = same and torch.allclose(known, theirs, rtol=1e-6, atol=1e-12)
        if not same:
            raise ValueError(
                f"This solver was tuned on {self.sde} from t = {self.times[0]:g} to "
                f"{self.times[-1]:g}, but the model's SDE is {p.sde}, from {ends[0]:g} to "
                f"{ends[1]:g}: tune one for it."
            )

    def step(self, p: Reverse, x: Any, t: Level, s: Level, memory: Any = None) -> Step:
        """One step; memory is the start and every x0 so far."""
        known = [*([x] if memory is None else memory), p.model(x, t).x0]
        x_s = s.sigma / t.sigma * x
        for w, value in zip(self.weights[len(known) - 2], known, strict=True):
            x_s = x_s + w * value
        return Step(x_s, known)

    def save(self, path: str | Path) -> Path:
        """Write it as JSON, whole or not at all."""
        write_json(Path(path), {"format": FORMAT, **asdict(self)})
        return Path(path)


def load(path: str | Path) -> Tuned:
    """A tuned solver from its JSON file; ValueError if the file is missing or not one."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no tuned solver {path}: make one with sdegen.tune.")
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(known, Mapping) or known.get("format") != FORMAT:
            raise ValueError(f'its format is not "{FORMAT}"')
        return Tuned(
            tuple(map(float, known["times"])),
            tuple(tuple(map(float, row)) for row in known["weights"]),
            tuple(map(float, known["alpha"])),
            tuple(map(float, known["sigma"])),
            str(known["sde"]),
            None if known["gain"] is None else Gain(**known["gain"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a tuned solver of sdegen ({error}).") from error

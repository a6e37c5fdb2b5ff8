"""Guided problems: models of classes whose scores are exact, extrapolated as CFG does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from sdegen.exact.distributions import Empirical, Mixture
from sdegen.exact.distributions import Problem as Exact
from sdegen.guidance import CFG, Interval, Strength, Thresholded
from sdegen.model.denoiser import Denoiser
from sdegen.model.score import ScoreModel
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE


@dataclass(frozen=True, eq=False)
class Guidance:
    """F_u + scale (F_c - F_u) of exact models, sample i to class i mod their number.

    classes:   the data of each.  scale: CFG's.  threshold: (low, high) that x0 is clipped to.
    interval:  (low, high] of sigma / alpha, outside of which the scale is 1.
    """

    classes: tuple[Exact, ...]
    scale: Strength = 1.0
    threshold: tuple[float, float] | None = None
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.interval is not None and not isinstance(self.scale, int | float):
            raise ValueError(f"On an interval the scale is a number, but it is {self.scale!r}.")

    @property
    def plain(self) -> bool:
        """True for the conditional model itself."""
        return isinstance(self.scale, int | float) and self.scale == 1 and self.threshold is None

    def model(
        self, every: Exact, sde: LinearSDE, wrap: Callable[[Any], Any], n: int
    ) -> Denoiser:
        """The guided model of n samples, whose network, wrapped as told, counts its calls.

        every: the data of all classes together, of which the unconditional score is.
        """
        parts = (*self.classes, every)

        def denoise(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            level, x0 = sde(t), torch.empty_like(x)
            for k in range(len(parts)):
                rows = (y == k).nonzero().squeeze(1)
                if len(rows):
                    x0[rows] = parts[k].denoise(x[rows], some(level, rows))
            return x0

        y = torch.arange(n) % len(self.classes)
        model = ScoreModel(wrap(denoise), sde, predicts="x0").given(y=y)
        on = self.scale
        if self.interval is not None:
            assert isinstance(on, int | float)
            on = Interval(float(on), *self.interval)
        guided = CFG(model, on, without={"y": len(self.classes)})
        if self.threshold is None:
            return guided
        return Thresholded(guided, data_range=self.threshold)

    def __repr__(self) -> str:
        """What a fingerprint is made of, beside the data."""
        return f"Guidance({self.scale!r}, {self.threshold!r}, {self.interval!r})"


def some(level: Level, rows: Tensor) -> Level:
    """A level of times (b,) for some rows."""
    return Level(**{each.name: getattr(level, each.name)[rows] for each in fields(level)})


def network_of(model: Any) -> Any:
    """The network that a model and the wrappers around it call."""
    while not isinstance(model, ScoreModel):
        model = model.model
    return model.net


def ring(modes: int = 8, classes: int = 4) -> tuple[Mixture, tuple[Mixture, ...]]:
    """Narrow modes on a circle of radius 1, mode i of class i mod classes; and each class."""
    if modes % classes:
        raise ValueError(f"{modes} modes cannot be shared by {classes} classes alike.")
    angles = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    means = torch.stack([angles.cos(), angles.sin()], 1)

    def of(means: Tensor) -> Mixture:
        k = len(means)
        return Mixture(means, [0.1] * k, [1 / k] * k)

    return of(means), tuple(of(means[k::classes]) for k in range(classes))


def digits_by_class() -> tuple[Empirical, tuple[Empirical, ...]]:
    """The training half of the digits, and each of its ten classes."""
    from sdegen.data import digits

    data = digits("train")
    assert data.y is not None
    return Empirical(data.x), tuple(Empirical(data.x[data.y == k]) for k in range(10))

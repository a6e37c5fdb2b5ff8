"""Guided problems: models of classes whose scores are exact, extrapolated as CFG does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.exact.distributions import Empirical, Mixture
from sdegen.exact.ground import Constant, coefficients
from sdegen.guidance import CFG, Interval, Thresholded
from sdegen.model.denoiser import Denoiser
from sdegen.model.score import ScoreModel
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE


@dataclass(frozen=True, eq=False)
class Classes(Constant):
    """Points, or Gaussians of one width, with a class each: means (k, *), of (k,), std.

    All have one weight. ``classes`` itself is the label of none, that is of all of them.
    """

    means: Tensor
    of: Tensor
    std: float = 0.0

    @property
    def classes(self) -> int:
        """How many."""
        return int(self.of.max()) + 1

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """Means (k, d), half of their squares (k,), and which are of a class (classes + 1, k) in
        logits: 0 or -inf."""
        means = self.means.reshape(len(self.means), -1).double()
        own = self.of == torch.arange(self.classes)[:, None]
        every = torch.cat([own, torch.ones_like(own[:1])])
        none = torch.zeros(every.shape, dtype=torch.float64).masked_fill(~every, -torch.inf)
        return means, 0.5 * means.square().sum(1), none

    def denoise(self, x: Tensor, level: Level, y: Tensor) -> Tensor:
        """E[x0 | x_t = x, y], x (b, *), y (b,)."""
        means, half, none = self.like(x)
        z = x.reshape(len(x), -1)
        a, v = coefficients(z, level)
        var = a**2 * self.std**2 + v
        share = ((a * z @ means.T - a**2 * half) / var + none[y]).softmax(1)
        mean = share @ means
        return (mean + a * self.std**2 / var * (z - a * mean)).reshape(x.shape)

    def model(
        self, sde: LinearSDE, y: Tensor, wrap: Callable[[Any], Any] = lambda net: net
    ) -> ScoreModel:
        """The exact model of classes y (b,), whose network is wrapped as told."""

        def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return self.denoise(x, sde(t), y)

        return ScoreModel(wrap(net), sde, predicts="x0").given(y=y)


@dataclass(frozen=True, eq=False)
class Guidance:
    """F_u + scale (F_c - F_u) of exact models, sample i to class i mod their number.

    threshold: (low, high) that x0 is clipped to, outermost.  interval: (low, high] of
    sigma / alpha, outside of which the scale is 1.
    """

    data: Classes
    scale: float = 1.0
    threshold: tuple[float, float] | None = None
    interval: tuple[float, float] | None = None

    def model(self, sde: LinearSDE, wrap: Callable[[Any], Any], n: int) -> Denoiser:
        """The guided model of n samples, whose network, wrapped as told, counts its calls."""
        inner = self.data.model(sde, torch.arange(n) % self.data.classes, wrap)
        on = self.scale if self.interval is None else Interval(self.scale, *self.interval)
        guided = CFG(inner, on, without={"y": self.data.classes})
        if self.threshold is None:
            return guided
        return Thresholded(guided, data_range=self.threshold)

    def __repr__(self) -> str:
        """What a fingerprint is made of, beside the data."""
        return f"Guidance({self.scale!r}, {self.threshold!r}, {self.interval!r})"


def network_of(model: Any) -> Any:
    """The network that a model and the wrappers around it call."""
    while not isinstance(model, ScoreModel):
        model = model.model
    return model.net


def ring(modes: int = 8, classes: int = 4, std: float = 0.1) -> tuple[Mixture, Classes]:
    """Modes on a circle of radius 1, mode i of class i mod classes."""
    angles = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    means = torch.stack([angles.cos(), angles.sin()], 1)
    every = Mixture(means, [std] * modes, [1 / modes] * modes)
    return every, Classes(means, torch.arange(modes) % classes, std)


def digits_by_class(split: str = "train") -> tuple[Empirical, Classes]:
    """A half of the digits, and each of its ten classes."""
    from sdegen.data import digits

    data = digits(split)
    assert data.y is not None
    return Empirical(data.x), Classes(data.x, data.y)

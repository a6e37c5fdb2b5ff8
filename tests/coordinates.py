"""Levels that differ between coordinates: data whose coordinates are independent, each known."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

import sdegen as sg
from sdegen.noise.source import Noise
from sdegen.sde import AnisotropicVPSDE, BlurringSDE, Instant, expand, spread

MEAN = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
STD = torch.tensor([0.3, 1.0, 0.7], dtype=torch.float64)
WEIGHTS = [0.6, 1.0, 1.5]


@dataclass(frozen=True, eq=False)
class ScaledEDM(sg.LinearSDE):
    """alpha = 1, sigma_i = scale_i t of each coordinate, scales (1 or b, d)."""

    scales: Tensor
    T: float = 20.0
    t_min: float = 0.01

    def __call__(self, t: Tensor | float) -> sg.Level:
        t = torch.as_tensor(t, dtype=torch.float64)
        at, one = spread(t, 2), torch.ones_like(self.scales)
        sigma = self.scales * at
        return sg.Level(t, one + 0 * at, sigma, 0 * sigma, 2 * self.scales * sigma)

    def time(self, lam: Tensor) -> Tensor:
        return torch.exp(-lam) / self.scales

    @property
    def reference(self) -> sg.LinearSDE:
        return sg.EDMSDE(self.T, self.t_min)

    @property
    def prior(self) -> sg.Prior:
        return sg.Prior(self.T * self.scales)


@dataclass(frozen=True, eq=False)
class OwnScales(ScaledEDM):
    """Scales of each sample's, (b, d)."""

    conditions: ClassVar = ("scales",)


SCALES = torch.tensor([[0.5, 1.0, 3.0]], dtype=torch.float64)
DIFFERENT: dict[str, sg.LinearSDE] = {
    "anisotropic": AnisotropicVPSDE(WEIGHTS),
    "blurring": BlurringSDE((3,), blur=1.5, base=sg.CosineSDE(T=0.95)),
    "scaled": ScaledEDM(SCALES),
}
"""Of three coordinates each."""


@dataclass(frozen=True, eq=False)
class One(sg.LinearSDE):
    """The scalar SDE of one coordinate.  clock: the whole's reference, or by default its own."""

    whole: sg.LinearSDE
    i: int
    clock: sg.LinearSDE | None = None

    @property
    def T(self) -> float:  # type: ignore[override]
        return self.whole.T

    @property
    def t_min(self) -> float:  # type: ignore[override]
        return self.whole.t_min

    def __call__(self, t: Tensor | float) -> sg.Level:
        level = self.whole(t)
        d = level.lam.shape[-1]
        a, s, d_a, d_v, d_s = (
            c.expand(len(c), d)[:, self.i].reshape(level.t.shape)
            for c in (level.alpha, level.sigma, level.d_alpha, level.d_var, level.d_sigma)
        )
        return sg.Level(level.t, a, s, d_a, d_v, d_s)

    def time(self, lam: Tensor) -> Tensor:
        known = self.whole.time(lam.unsqueeze(-1).expand(*lam.shape, 3))
        return known[..., self.i]

    @property
    def reference(self) -> sg.LinearSDE:
        return self if self.clock is None else self.clock

    @property
    def prior(self) -> sg.Prior:
        return self.whole.prior


def denoiser(sde: sg.LinearSDE, mean: Tensor, std: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """E[x0 | x_t] of independent coordinates N(mean, std^2), at times t."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        level = sde(t.double())
        a, v = (expand(c, x) for c in (level.alpha, level.sigma**2))
        m, s = mean.to(x), std.to(x)
        return m + a * s**2 / (a**2 * s**2 + v) * (x - a * m)

    return net


def exact(sde: sg.LinearSDE, mean: Tensor = MEAN, std: Tensor = STD) -> sg.ScoreModel:
    """A score model without error, of all coordinates."""
    return sg.ScoreModel(denoiser(sde, mean, std), sde, "x0")


def exact_one(sde: One) -> sg.ScoreModel:
    """A score model without error, of one coordinate."""
    i = slice(sde.i, sde.i + 1)
    return exact(sde, MEAN[i], STD[i])


def flow(x: Tensor, t: sg.Level, s: sg.Level) -> tuple[Tensor, Tensor]:
    """The exact flow's map of states x (b, d) from one level to another, and its slopes (1, d)."""
    gain = (((s.alpha * STD) ** 2 + s.sigma**2) / ((t.alpha * STD) ** 2 + t.sigma**2)).sqrt()
    return s.alpha * MEAN + gain * (x - t.alpha * MEAN), gain


class Columns(Noise):
    """Draws (b, 3) that are a function of the move alone; of a coordinate, its column."""

    path = True

    def __init__(self, columns: slice = slice(None), name: str = "") -> None:
        self.columns, self.name = columns, name

    def __call__(self, x: Tensor, t: Instant, s: Instant, more: str = "") -> Tensor:
        said = f"{float(t.t):.17g} {float(s.t):.17g} {self.name} {more}"
        generator = torch.Generator().manual_seed(zlib.crc32(said.encode()))
        z = torch.randn(len(x), 3, generator=generator, dtype=torch.float64)
        return z[:, self.columns].to(x)

    def area(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        return self(x, t, s, "area")

    def stream(self, name: str) -> Columns:
        return Columns(self.columns, f"{self.name} {name}")

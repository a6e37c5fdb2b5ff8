"""A package of a user's own: an SDE and a solver that sdegen's commands reach by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import sdegen as sg


@dataclass(frozen=True)
class PowerVE(sg.LinearSDE):
    """alpha = 1, sigma = scale t^power: EDM's process on another clock."""

    scale: float = 80.0
    power: float = 2.0
    T: float = 1.0
    t_min: float = 5e-3

    def __call__(self, t: Tensor | float) -> sg.Level:
        """The level at time t."""
        t = torch.as_tensor(t, dtype=torch.float64)
        one, sigma = torch.ones_like(t), self.scale * t**self.power
        return sg.Level(t, one, sigma, 0 * one, 2 * self.power * sigma**2 / t)

    def time(self, lam: Tensor) -> Tensor:
        """sigma = e^-lam."""
        return (torch.exp(-lam) / self.scale) ** (1 / self.power)

    @property
    def prior(self) -> sg.Prior:
        """N(0, scale^2 I)."""
        return sg.Prior(self.scale * self.T**self.power)


@dataclass(frozen=True)
class Midpoint(sg.Solver):
    """The exponential midpoint rule in x0: DPM-Solver++(2S), Lu et al. (2022b), alg. 1."""

    traits = sg.Traits(order=2, calls=2, needs_marginals=True)

    def step(self, p: sg.Reverse, x: Tensor, t: Any, s: Any, memory: Any = None) -> sg.Step:
        """DDIM to the middle in lambda, then a whole step with the x0 found there."""
        m = p.sde(p.sde.time((t.lam + s.lam) / 2))
        x_m = sg.solvers.renoise(p.model(x, t), m, 1.0, 0.0)
        x0 = p.model(x_m, m).x0
        return sg.Step(s.sigma / t.sigma * x - s.alpha * torch.expm1(t.lam - s.lam) * x0)

"""A noise schedule that is learned.  Kingma et al. (2021)."""

from __future__ import annotations

import torch
from torch import Tensor, exp, nn, sigmoid
from torch.nn.functional import softplus

from sdegen.checks import number
from sdegen.sde.inverse import bisect
from sdegen.sde.level import Level, float64_time
from sdegen.sde.process import LinearSDE, Prior

CURVES, STEEP = 16, 24.0


class LearnedVPSDE(nn.Module, LinearSDE):
    """alpha^2 = sigmoid(2 lam), sigma^2 = sigmoid(-2 lam), with lam(t) learned: VDM's process.

    lam falls from ``first`` at t_min = 0 to ``last`` at T = 1, both learned, along a mean of
    logistic curves about evenly spaced times, whose weights are learned: monotone whatever the
    weights. A ScoreModel of it has these parameters too. float64.  Kingma et al. (2021), sec. 3.2.
    """

    T, t_min = 1.0, 0.0

    def __init__(self, first: float = 4.0, last: float = -5.0) -> None:
        if not number("last", last) < number("first", first):
            raise ValueError(
                f"lam falls with t, from first to last, but first = {first:g}, last = {last:g}."
            )
        super().__init__()
        self.ends = nn.Parameter(torch.tensor([first, last], dtype=torch.float64))
        self.weights = nn.Parameter(torch.zeros(CURVES, dtype=torch.float64))

    def shape(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """How far lam has come at t, from 0 to 1, and the slope there; of t's shape."""
        middle = torch.linspace(0.0, 1.0, CURVES, dtype=torch.float64, device=t.device)
        low, high = sigmoid(-STEEP * middle), sigmoid(STEEP * (1 - middle))
        now = sigmoid(STEEP * (t[..., None] - middle))
        w = self.weights.softmax(0) / (high - low)
        return ((now - low) * w).sum(-1), (STEEP * now * (1 - now) * w).sum(-1)

    def lam(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """lam and d lam / dt at t, where t is: the parameters may be on another device."""
        part, slope = self.shape(t.to(self.ends.device))
        way = self.ends[1] - self.ends[0]
        return (self.ends[0] + way * part).to(t.device), (way * slope).to(t.device)

    def __call__(self, t: Tensor | float) -> Level:  # type: ignore[override]
        """The level at time t."""
        t = float64_time(t)
        return self.level(t, *self.lam(t))

    def level(self, t: Tensor, lam: Tensor, slope: Tensor) -> Level:
        """The level at which lam and d lam / dt are these."""
        alpha2, sigma2 = sigmoid(2 * lam), sigmoid(-2 * lam)
        alpha = exp(-softplus(-2 * lam) / 2)
        return Level(
            t,
            alpha,
            exp(-softplus(2 * lam) / 2),
            alpha * sigma2 * slope,
            -2 * alpha2 * sigma2 * slope,
        )

    @torch.no_grad()
    def time(self, lam: Tensor) -> Tensor:
        """Bisection to the last bit of float64."""
        ends = torch.zeros_like(lam), torch.ones_like(lam)
        return bisect(lambda t: self.lam(t)[0] > lam, *ends)

    @property
    def prior(self) -> Prior:
        """N(0, I)."""
        return Prior(1.0)

    def __repr__(self) -> str:
        first, last = self.ends.tolist()
        return f"LearnedVPSDE(lam from {first:.3g} to {last:.3g})"

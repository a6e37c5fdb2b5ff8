"""A noise schedule that is learned, and the loss that learns it.  Kingma et al. (2021)."""

from __future__ import annotations

import torch
from torch import Tensor, exp, nn, sigmoid
from torch.nn.functional import softplus

from sdegen.bounds import ends, entropy, prior_term
from sdegen.losses import check_data, low_discrepancy
from sdegen.score import ScoreModel
from sdegen.sde import Level, LinearSDE, Prior, clock

CURVES, STEEP = 16, 24.0


class LearnedVP(nn.Module, LinearSDE):
    """alpha^2 = sigmoid(2 lam), sigma^2 = sigmoid(-2 lam), with lam(t) learned: VDM's process.

    lam falls from ``first`` at t_min = 0 to ``last`` at T = 1, both learned, along a mean of
    logistic curves about evenly spaced times, whose weights are learned: monotone whatever the
    weights. A ScoreModel of it has these parameters too. float64.
    """

    T, t_min = 1.0, 0.0

    def __init__(self, first: float = 4.0, last: float = -5.0) -> None:
        if not last < first:
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
        t = clock(t)
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
        low, high = torch.zeros_like(lam), torch.ones_like(lam)
        for _ in range(60):
            middle = (low + high) / 2
            early = self.lam(middle)[0] > lam
            low, high = torch.where(early, middle, low), torch.where(early, high, middle)
        return (low + high) / 2

    @property
    def prior(self) -> Prior:
        """N(0, I)."""
        return Prior(1.0)

    def __repr__(self) -> str:
        first, last = self.ends.tolist()
        return f"LearnedVP(lam from {first:.3g} to {last:.3g})"


def vdm_loss(model: ScoreModel, x0: Tensor) -> Tensor:
    """Minus the variational bound of data x0 (b, *) per dimension, in nats, (b,).

    One time per sample, low-discrepancy; p(x | x_t) at t_min as in ``elbo`` of real data. The
    bound does not depend on the schedule between its ends, but the variance of its estimate does:
    the weights of the schedule's curves descend on that instead, Kingma et al. (2021), app. I.2,
    by a factor of 2 L of each sample's own gradient.

    ValueError for an SDE that is not LearnedVP, and for data as ``dsm_loss`` has it.
    """
    check_data(x0)
    sde, d = model.sde, x0[0].numel()
    if not isinstance(sde, LearnedVP):
        raise ValueError(f"vdm_loss learns the schedule of a LearnedVP, but the SDE is {sde!r}.")
    t = low_discrepancy(len(x0), sde.ends.device, None)
    eps = torch.randn_like(x0)
    part, slope = sde.shape(t)
    losses: list[Tensor] = []
    if part.requires_grad:
        for each in (part, slope):
            each.register_hook(lambda g: g * 2 * losses[0])
    way = sde.ends[1] - sde.ends[0]
    level = sde.level(t, sde.ends[0] + way * part, way * slope)
    off = (model(sde.mix(x0, level, eps), level).eps - eps).square().reshape(len(x0), -1).sum(1)
    diffusion = off.double() * -(way * slope)
    losses.append(diffusion.detach() / d)
    prior = prior_term(model, x0.double()).to(diffusion)
    reconstruction = entropy(ends(sde)[1], d).to(diffusion)
    return ((diffusion + prior + reconstruction) / d).to(x0)

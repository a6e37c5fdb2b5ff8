"""Learned variances: a step's noise as long as a second head of the network says.

A step from t to s at mean_eta = 1 has the mean  e^-h sigma_s / sigma_t x + w x0  and a variance
between two guesses: sigma_s^2 fresh, were x0 known, and sigma_t^2 fresh, fresh = 1 - e^-2h: DDPM's
small and large. What is best for a state is  sigma_s^2 fresh + w^2 Var[x0 | x_t].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, exp, expm1, log, sqrt
from torch.special import log_ndtr

from sdegen.checks import number, whole
from sdegen.model.prediction import LinearPrediction
from sdegen.sde.level import Level, expand
from sdegen.solvers.equation import Reverse, renoise
from sdegen.solvers.solver import Solver, Step
from sdegen.solvers.traits import Traits

ONE_HEAD = (
    "A learned variance is a network's second output: make the model "
    "ScoreModel(net, sde, heads=2), and guide it, if at all, with another solver: a wrapper has "
    "one output."
)


class Head(Protocol):
    """What a network's second output (b, *) says of a step's variance."""

    def variance(self, p: LinearPrediction, t: Level, s: Level, mean_eta: float) -> Tensor:
        """Of the step from t to s, (b, *)."""

    def log_decoded(self, p: LinearPrediction, t: Level, s: Level) -> Tensor:
        """log of the variance of x0 itself, given x_t, on a walk that ends at s, (b, *)."""

    def loss(self, p: LinearPrediction, x0: Tensor, z: Tensor, t: Level, s: Level) -> Tensor:
        """What it is trained on, (b, *), for x_t = alpha x0 + sigma z; the mean is a constant."""


def parts(t: Level, s: Level, mean_eta: float) -> tuple[Tensor, Tensor, Tensor]:
    """fresh, keep = sqrt(1 - fresh) and w, the weight of x0 in the mean, of a step."""
    fresh = mean_eta**2 * -expm1(2 * (t.lam - s.lam))
    keep = sqrt(1 - fresh)
    return fresh, keep, s.alpha - keep * s.sigma * t.alpha / t.sigma


def more_of(p: LinearPrediction) -> Tensor:
    """The second output; ValueError of a model without one."""
    if not isinstance(p.more, Tensor):
        raise ValueError(ONE_HEAD)
    return p.more


@dataclass(frozen=True)
class Range:
    """log v between those of DDPM's two variances, at f = (1 + more) / 2, which may leave [0, 1].

    Nichol & Dhariwal (2021), eq. 15, trained on the terms of the bound.
    """

    def variance(self, p: LinearPrediction, t: Level, s: Level, mean_eta: float) -> Tensor:
        """fresh (sigma_s^(1 - f) sigma_t^f)^2; ValueError for another mean_eta than 1."""
        if mean_eta != 1.0:
            raise ValueError(f"Range is between DDPM's variances, mean_eta = 1, not {mean_eta!r}.")
        more = more_of(p)
        return exp(self.log_variance(more, t, s))

    def log_variance(self, more: Tensor, t: Level, s: Level) -> Tensor:
        """log v (b, *)."""
        f, fresh = (1 + more) / 2, parts(t, s, 1.0)[0]
        low, high = log(s.sigma), log(t.sigma)
        first, way = expand(log(fresh) + 2 * low, more), expand(2 * (high - low), more)
        return first + way * f

    def log_decoded(self, p: LinearPrediction, t: Level, s: Level) -> Tensor:
        """log rho_s^(2 (1 - f)) rho_t^(2 f)."""
        more = more_of(p)
        f = (1 + more) / 2
        return expand(-2 * s.lam, more) + expand(2 * (s.lam - t.lam), more) * f

    def loss(self, p: LinearPrediction, x0: Tensor, z: Tensor, t: Level, s: Level) -> Tensor:
        """KL of the step's Gaussian from the posterior given x0, nats."""
        return kl(p.x0.detach(), self.log_variance(more_of(p), t, s), x0, t, s)


def kl(mean_x0: Tensor, log_v: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
    """KL(q(x_s | x_t, x0) || N(mean, v)) of each coordinate, (b, *), nats.  Ho et al. (2020),
    eq. 5: 1/2 [log v - log small - 1 + (small + w^2 (x0 - mean_x0)^2) / v]."""
    fresh, _, w = parts(t, s, 1.0)
    log_small = expand(log(fresh) + 2 * log(s.sigma), log_v)
    off = (expand(w, x0) * (x0 - mean_x0)).square()
    return 0.5 * (log_v - log_small - 1 + exp(log_small - log_v) + off * exp(-log_v))


def decoder(mean: Tensor, log_v: Tensor, x0: Tensor, levels: int) -> Tensor:
    """-log P(x0) of each coordinate, (b, *), nats, x0 of values 2 k / (levels - 1) - 1.  Ho et al.
    (2020), eq. 13.

    P is what N(mean, v) has between the middles of neighbouring values, the first and the last
    open to infinity. As a difference of logarithms it has a gradient however far the mean is. (A
    std below a hundredth of a bin is that.)
    """
    half = 1 / (whole("levels", levels, 2) - 1)
    std = exp(0.5 * log_v).clamp(min=0.02 * half)
    off = x0 - mean
    below = torch.where(x0 < -1 + half, -torch.inf, (off - half) / std)
    above = torch.where(x0 > 1 - half, torch.inf, (off + half) / std)
    turn = below + above > 0  # to where the normal distribution's values are small, not near 1
    low, high = torch.where(turn, -above, below), torch.where(turn, -below, above)
    ratio = log_ndtr(low) - log_ndtr(high)
    return -log_ndtr(high) - torch.where(
        low == -torch.inf, 0.0, torch.log(-torch.expm1(torch.where(low == -torch.inf, -1, ratio)))
    )


@dataclass(frozen=True)
class Square:
    """E[eps^2 | x_t], of which Var[x0 | x_t] = rho^2 (more - eps^2), not below 0.

    Bao et al. (2022b), SN-DPM: best where the mean is exact.
    """

    def variance(self, p: LinearPrediction, t: Level, s: Level, mean_eta: float) -> Tensor:
        """Of the step."""
        return of_data(p, (more_of(p) - p.eps.square()).clamp(min=0), t, s, mean_eta)

    def log_decoded(self, p: LinearPrediction, t: Level, s: Level) -> Tensor:
        """log Var[x0 | x_t]."""
        eps2 = (more_of(p) - p.eps.square()).clamp(min=0)
        return log(eps2) - expand(2 * t.lam, eps2)

    def loss(self, p: LinearPrediction, x0: Tensor, z: Tensor, t: Level, s: Level) -> Tensor:
        """(z^2 - more)^2."""
        return (z.square() - more_of(p)).square()


@dataclass(frozen=True)
class Residual:
    """E[(eps - eps_hat)^2 | x_t] of the network's own mean.

    Bao et al. (2022b), NPR-DPM: right for a mean that is not, too.
    """

    def variance(self, p: LinearPrediction, t: Level, s: Level, mean_eta: float) -> Tensor:
        """Of the step."""
        return of_data(p, more_of(p).clamp(min=0), t, s, mean_eta)

    def log_decoded(self, p: LinearPrediction, t: Level, s: Level) -> Tensor:
        """log E[(x0 - x0_hat)^2 | x_t]."""
        more = more_of(p)
        return log(more.clamp(min=0)) - expand(2 * t.lam, more)

    def loss(self, p: LinearPrediction, x0: Tensor, z: Tensor, t: Level, s: Level) -> Tensor:
        """((z - eps_hat)^2 - more)^2."""
        return ((z - p.eps.detach()).square() - more_of(p)).square()


def of_data(p: LinearPrediction, eps2: Tensor, t: Level, s: Level, mean_eta: float) -> Tensor:
    """sigma_s^2 fresh + w^2 rho^2 eps2 (b, *)."""
    fresh, _, w = parts(t, s, mean_eta)
    return expand(s.sigma**2 * fresh, eps2) + expand((w * t.rho) ** 2, eps2) * eps2


def check_head(head: Any, who: str) -> None:
    """ValueError for what is no head, as a class of one in its place."""
    if isinstance(head, type) or not callable(getattr(head, "variance", None)):
        said = head.__name__ if isinstance(head, type) else repr(head)
        raise ValueError(
            f"{who} has a head, Range(), Square() or Residual(), whichever the network was "
            f"trained with, but it is {said}."
        )


@dataclass(frozen=True)
class LearnedVariance(Solver):
    """DDIM(mean_eta)'s mean with the variance that a network's second output says.

    head: ``Range()`` of IDDPM, ``Square()`` and ``Residual()`` of Extended Analytic-DPM.
    mean_eta: 1, DDPM's mean, to 0, DDIM's, which draws noise too. ValueError for another one, and
    for a model of one head.
    """

    head: Head = field(default_factory=Range)
    mean_eta: float = 1.0
    eta = 1.0
    traits = Traits(
        order=1,
        needs_marginals=True,
        follows_flow=False,
        why_not_linear="its noise is scaled by what the network says",
    )
    presets: ClassVar = {}  # for networks of two heads

    def __post_init__(self) -> None:
        check_head(self.head, "LearnedVariance")
        if not 0 <= number("mean_eta", self.mean_eta) <= 1:
            raise ValueError(f"mean_eta lies in [0, 1], but it is {self.mean_eta!r}.")
        if isinstance(self.head, Range) and self.mean_eta != 1:
            raise ValueError(
                f"Range is between DDPM's variances, mean_eta = 1, not {self.mean_eta!r}."
            )

    def check(self, p: Reverse) -> None:
        """Refuse a model that says nothing of variances."""
        if getattr(p.model, "heads", 1) != 2:
            raise ValueError(ONE_HEAD)

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step; ValueError where there is no signal, of a head that says the data's spread by
        that of the noise."""
        if not isinstance(self.head, Range) and bool((t.alpha == 0).any()):
            raise ValueError(
                f"{type(self.head).__name__} says Var[x0 | x_t] by the error in eps, which says "
                f"nothing at t = {float(t.t.max()):g}, where there is no signal: end the SDE "
                "earlier, as FlowSDE(T=0.999) does, or use Range()."
            )
        said: LinearPrediction = p.model(x, t)
        _, keep, _ = parts(t, s, self.mean_eta)
        v = self.head.variance(said, t, s, self.mean_eta)
        return Step(renoise(said, s, keep, p.noise(x, t, s) * v.sqrt(), 1.0))

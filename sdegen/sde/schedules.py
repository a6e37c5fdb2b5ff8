"""More linear SDEs, each a pair (alpha, sigma): cosine, EDM, flow, DDPM's betas, and your own."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, exp, expm1, log, sqrt
from torch.nn.functional import softplus

from sdegen.checks import number
from sdegen.sde.inverse import bisect
from sdegen.sde.level import Level, float64_time
from sdegen.sde.process import LinearSDE, Prior, check_interval

SMALL = 1e-7
"""Of a curve's largest value: no more is taken for rounding. sqrt(cos(pi t / 2)) ends at 8e-9."""


@dataclass(frozen=True)
class CosineSDE(LinearSDE):
    """alpha = cos(u) / cos(u_0), u = pi/2 (t + s) / (1 + s).  Nichol & Dhariwal (2021), eq. 17.

    Variance preserving. T stops short of 1, where alpha is zero and beta unbounded.
    """

    s: float = 0.008
    T: float = 0.9946
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        check_interval(self, longest=1.0)
        number("CosineSDE's offset s", self.s, 0.0)

    @property
    def rate(self) -> float:
        """du / dt."""
        return math.pi / 2 / (1 + self.s)

    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t.  sigma^2 = sin(u - u_0) sin(u + u_0) / cos(u_0)^2."""
        t = float64_time(t)
        u0 = self.rate * self.s
        u, cos0 = self.rate * t + u0, math.cos(u0)
        # The cosine of u, as the sine of what is left to pi / 2: zero at t = 1, not rounding.
        alpha = torch.sin(self.rate * (1 - t)) / cos0
        d_alpha = -self.rate * torch.sin(u) / cos0
        sigma = sqrt(torch.sin(self.rate * t) * torch.sin(u + u0)) / cos0
        return Level(t, alpha, sigma, d_alpha, -2 * alpha * d_alpha)

    def time(self, lam: Tensor) -> Tensor:
        """The sine rule of ``__call__`` read backwards: exact where u - u_0 is small."""
        u0 = self.rate * self.s
        var, cos0 = torch.sigmoid(-2 * lam), math.cos(u0)
        u = torch.atan2(sqrt(var * cos0**2 + math.sin(u0) ** 2), sqrt(1 - var) * cos0)
        return torch.asin((var * cos0**2 / torch.sin(u + u0)).clamp(max=1.0)) / self.rate

    @property
    def prior(self) -> Prior:
        """N(0, I)."""
        return Prior(1.0)


@dataclass(frozen=True)
class EDMSDE(LinearSDE):
    """dx = sqrt(2 t) dw: alpha = 1, sigma = t.  Karras et al. (2022), table 1."""

    T: float = 80.0
    t_min: float = 0.002

    def __post_init__(self) -> None:
        check_interval(self)

    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t."""
        t = float64_time(t)
        one = torch.ones_like(t)
        return Level(t, one, t, 0 * one, 2 * t, one)

    def time(self, lam: Tensor) -> Tensor:
        """t = e^-lam."""
        return exp(-lam)

    @property
    def prior(self) -> Prior:
        """N(0, T^2 I)."""
        return Prior(self.T)


@dataclass(frozen=True)
class FlowSDE(LinearSDE):
    """alpha = 1 - t, sigma = t.  Lipman et al. (2023), Liu et al. (2023).

    At t = 1 the flow is regular but lam, f and g are infinite. T stops short of it so that every
    solver and every walk works; FlowSDE(T=1.0) starts from pure noise for those that can.
    """

    T: float = 0.999
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        check_interval(self, longest=1.0)

    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t."""
        t = float64_time(t)
        one = torch.ones_like(t)
        return Level(t, 1 - t, t, -one, 2 * t, one)

    def time(self, lam: Tensor) -> Tensor:
        """t = sigmoid(-lam)."""
        return torch.sigmoid(-lam)

    @property
    def prior(self) -> Prior:
        """N(0, T^2 I)."""
        return Prior(self.T)


@dataclass(frozen=True)
class DiscreteVPSDE(LinearSDE):
    """The VP process through DDPM's discrete betas: time (i + 1) / n is step i, T = 1.

    alpha^2 is the running product of 1 - beta, log alpha is linear between the steps; where the
    last beta is 1 (zero terminal SNR) alpha is, before that step.
    Ho et al. (2020), sec. 2; the continuous reading is that of Lu et al. (2022a), app. D.
    ``betas`` defaults to DDPM's: 1,000 values, linear from 1e-4 to 2e-2.
    """

    betas: Sequence[float] | None = None

    def __post_init__(self) -> None:
        ddpm = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64).tolist()
        given: Any = ddpm if self.betas is None else self.betas
        each = given.tolist() if hasattr(given, "tolist") else given
        object.__setattr__(self, "betas", tuple(number("a beta", beta) for beta in each))
        *most, last = self.betas or (0.0,)
        if not all(0 < beta < 1 for beta in most) or not 0 < last <= 1:
            raise ValueError(
                "DiscreteVPSDE needs at least one beta, and each in (0, 1); the last may be 1, "
                "which leaves no signal."
            )

    def __repr__(self) -> str:
        """All betas where they fit a line; the first and the last of more, and what tells them
        from others: SDEs are one where they are said in the same words."""
        betas = self.betas or ()
        if len(betas) <= 10:
            return f"DiscreteVPSDE(betas={betas})"
        some = f"({betas[0]:g}, ..., {betas[-1]:g}), {len(betas)} of them"
        return f"DiscreteVPSDE(betas={some}, crc32 {crc32(array('d', betas).tobytes()):08x})"

    @property
    def n(self) -> int:
        """The number of steps."""
        return len(self.betas or ())

    @property
    def T(self) -> float:  # type: ignore[override]
        """The time of the last step."""
        return 1.0

    @property
    def t_min(self) -> float:  # type: ignore[override]
        """The time of the first step, 1 / n."""
        return 1 / self.n

    @property
    def ends_without_signal(self) -> bool:
        """True where the last beta is 1: zero terminal SNR.  Lin et al. (2024)."""
        return self.betas is not None and self.betas[-1] == 1

    @cached_property
    def _log_alpha(self) -> Tensor:
        steps = torch.log1p(-torch.tensor(self.betas, dtype=torch.float64)).cumsum(0) / 2
        return torch.cat([steps.new_zeros(1), steps])

    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t."""
        t = float64_time(t)
        table, n = self._log_alpha.to(t.device), self.n
        i = (t * n).ceil().long().clamp(1, n)
        slope = (table[i] - table[i - 1]) * n
        log_alpha = table[i] + slope * (t - i.to(t) / n)
        alpha, left = exp(log_alpha), (1 - t) * n
        d_alpha = slope * alpha
        if self.ends_without_signal:  # log alpha falls to -inf, so alpha itself falls straight
            straight, end = i == n, exp(table[n - 1])
            alpha = torch.where(straight, end * left, alpha)
            d_alpha = torch.where(straight, -end * n, d_alpha)
            log_alpha = torch.where(straight, alpha.log(), log_alpha)
        sigma = sqrt(-expm1(2 * log_alpha))
        return Level(t, alpha, sigma, d_alpha, -2 * alpha * d_alpha)

    def time(self, lam: Tensor) -> Tensor:
        """The piecewise-linear log alpha read backwards."""
        log_alpha, n = -softplus(-2 * lam) / 2, self.n
        table = self._log_alpha.to(lam.device)
        i = torch.searchsorted(-table, -log_alpha).clamp(1, n)
        t = (i + (log_alpha - table[i]) / (table[i] - table[i - 1])) / n
        if self.ends_without_signal:
            t = torch.where(i == n, 1 - exp(log_alpha - table[n - 1]) / n, t)
        return t

    @property
    def prior(self) -> Prior:
        """N(0, I)."""
        return Prior(1.0)


@dataclass(frozen=True)
class MarginalSDE(LinearSDE):
    """A linear SDE from nothing but its marginals: ``marginal(t) -> (alpha, sigma)``.

    Slopes come from forward-mode differentiation and time(lam) from bisection, so two curves are
    enough for every solver; ``marginal`` works elementwise on float64 tensors, by torch's
    functions (a constant may be a number), and its log(alpha / sigma) must fall with t. The prior
    is N(0, sigma(T)^2 I) unless ``prior_std`` says otherwise.
    """

    marginal: Callable[[Tensor], tuple[Tensor, Tensor]]
    T: float = 1.0
    t_min: float = 1e-3
    prior_std: float | None = None

    def __post_init__(self) -> None:
        check_interval(self)
        lam = self(torch.linspace(self.t_min, self.T, 101, dtype=torch.float64)).lam
        if not bool((lam.diff() < 0).all()):
            raise ValueError(
                "MarginalSDE needs a marginal whose log(alpha / sigma) falls strictly with t "
                f"on [{self.t_min:g}, {self.T:g}]; this one does not."
            )

    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t."""
        t = float64_time(t).clone()  # forward mode refuses an expanded tensor
        both = torch.func.jvp(self.curves, (t,), (torch.ones_like(t),))
        (alpha, sigma), (d_alpha, d_sigma) = both[0], both[1]
        most_alpha, most_sigma = self.largest
        alpha = self.rounded(alpha, d_alpha, most_alpha)
        sigma = self.rounded(sigma, d_sigma, most_sigma)
        return Level(t, alpha, sigma, d_alpha, 2 * sigma * d_sigma, d_sigma)

    @cached_property
    def largest(self) -> tuple[float, float]:
        """About the largest values of alpha and sigma on the interval."""
        alpha, sigma = self.curves(torch.linspace(self.t_min, self.T, 101, dtype=torch.float64))
        alpha, sigma = (c.detach()[c.isfinite()].abs() for c in (alpha, sigma))
        return float(alpha.amax()), float(sigma.amax())

    def rounded(self, curve: Tensor, slope: Tensor, largest: float) -> Tensor:
        """A curve that is zero where it is no more than the rounding of t makes of its slope: as
        cos(pi t / 2) is at t = 1, where it is computed as 6e-17. A slope without end says nothing,
        nor does a steep one of a curve that is not small: 1 - sqrt(t) is 1 at t = 0."""
        least = 2 * torch.finfo(curve.dtype).eps * self.T * slope.abs()
        zero = (curve.abs() <= least) & slope.isfinite() & (curve.abs() <= SMALL * largest)
        return torch.where(zero, 0.0, curve)

    def curves(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at times t, of its shape: tensors, where ``marginal`` gives numbers too.

        ValueError for what is no pair of curves that torch can differentiate.
        """
        try:
            alpha, sigma = (
                c if isinstance(c, Tensor) and c.shape == t.shape else c + 0 * t
                for c in self.marginal(t)
            )
            if not isinstance(alpha + sigma, Tensor):
                raise TypeError(f"it returned {type(alpha + sigma).__name__}")
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                "MarginalSDE's marginal(t) returns the pair (alpha, sigma) for a tensor t, made "
                f"by torch's functions, as torch.cos rather than numpy's, but it failed: {error}"
            ) from error
        return alpha, sigma

    def time(self, lam: Tensor) -> Tensor:
        """Bisection on [t_min, T] to the last bit of float64."""

        def early(t: Tensor) -> Tensor:
            alpha, sigma = self.curves(t)
            return log(alpha / sigma) > lam

        return bisect(early, torch.full_like(lam, self.t_min), torch.full_like(lam, self.T))

    @property
    def prior(self) -> Prior:
        """N(0, prior_std^2 I), by default sigma(T)."""
        return Prior(float(self(self.T).sigma) if self.prior_std is None else self.prior_std)

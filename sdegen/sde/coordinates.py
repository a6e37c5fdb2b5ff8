"""Linear SDEs whose levels differ from coordinate to coordinate: anisotropic VP, blurring.

Coordinates are independent of one another: d of them are d linear SDEs side by side, which one
network is asked about at once. Walks and steps in lam are measured on the SDE's ``reference``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, exp, expm1, sqrt
from torch.nn.functional import softplus

from sdegen.checks import number, whole
from sdegen.sde.inverse import bisect
from sdegen.sde.level import Level, float64_time, spread
from sdegen.sde.process import LinearSDE, Prior, check_interval
from sdegen.sde.schedules import CosineSDE
from sdegen.sde.song import VPSDE


class OverBase(LinearSDE):
    """An SDE whose levels differ between coordinates as a scalar one's, the base's, are spread."""

    base: LinearSDE

    @property
    def T(self) -> float:  # type: ignore[override]
        """The base's."""
        return self.base.T

    @property
    def t_min(self) -> float:  # type: ignore[override]
        """The base's."""
        return self.base.t_min

    @property
    def reference(self) -> LinearSDE:
        """The base, in whose clock steps are taken."""
        return self.base


@dataclass(frozen=True, eq=False)
class AnisotropicVPSDE(OverBase):
    """dx_i = -w_i beta/2 x_i dt + sqrt(w_i beta) dw_i: VP, whose clock is each coordinate's own.

    alpha_i = alpha^w_i, sigma_i^2 = 1 - alpha_i^2 of the base's alpha: for data whose coordinates
    need different noise, as the columns of a table do. A weight below 1 leaves more signal at T
    than the base does, alpha(T)^w, which the prior N(0, I) knows nothing of: let the least be 1,
    or the base's beta larger.

    weights: of a sample's shape, positive; axes of length 1 stand for all.  base: the SDE of
    weight 1, whose lam is the clock.  ValueError for a weight that is not positive.
    """

    weights: Sequence[float] | Tensor
    base: VPSDE = field(default_factory=VPSDE)

    def __post_init__(self) -> None:
        weights = torch.as_tensor(self.weights, dtype=torch.float64)
        if weights.ndim < 1 or not bool(((weights > 0) & weights.isfinite()).all()):
            raise ValueError(
                "AnisotropicVPSDE's weights are positive numbers, of a sample's shape, but they "
                f"are {self.weights!r}."
            )
        object.__setattr__(self, "weights", weights)

    @property
    def prior(self) -> Prior:
        """N(0, I)."""
        return Prior(1.0)

    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t."""
        t = float64_time(t)
        w = torch.as_tensor(self.weights, device=t.device)[None]
        at = spread(t, w.ndim)
        log_alpha, beta = w * self.base.log_alpha(at), w * self.base.beta(at)
        alpha = exp(log_alpha)
        return Level(t, alpha, sqrt(-expm1(2 * log_alpha)), -beta / 2 * alpha, beta * alpha**2)

    def time(self, lam: Tensor) -> Tensor:
        """alpha^2w = sigmoid(2 lam)."""
        w = torch.as_tensor(self.weights, device=lam.device)
        return self.base.time_of(-softplus(-2 * lam) / 2 / w)


@dataclass(frozen=True)
class BlurringSDE(OverBase):
    """alpha_k = a d_k, sigma: an image's frequencies k fade as heat does, and all get noise alike.

    d_k = (1 - floor) exp(-|pi k / n|^2 tau) + floor,  tau = (blur sin(pi t / 2)^2)^2 / 2

    with a and sigma of the base. Hoogeboom & Salimans (2023), sec. 4 and app. A; heat dissipation
    is Rissanen et al.'s (2023). States are coefficients of the orthonormal DCT-II, in which noise
    is white as it is in pixels.

    shape: of a sample, or 1 along axes that are not blurred, as (1, 32, 32) for images.
    blur:  standard deviation of the blur at t = 1, in pixels.  floor: what is left of the highest
           frequencies' signal.  base: an SDE on [t_min, T] within [0, 1].
    """

    shape: Sequence[int]
    blur: float = 20.0
    floor: float = 0.001
    base: LinearSDE = field(default_factory=CosineSDE)

    def __post_init__(self) -> None:
        shape = tuple(whole("an axis of BlurringSDE's shape", n) for n in self.shape)
        object.__setattr__(self, "shape", shape)
        number("BlurringSDE's blur", self.blur, 0.0)
        if not shape or not 0 < number("floor", self.floor) <= 1:
            raise ValueError(
                "BlurringSDE takes a shape of one axis or more, and 0 < floor <= 1, but shape = "
                f"{shape} and floor = {self.floor:g}."
            )
        check_interval(self.base, longest=1.0)

    @property
    def prior(self) -> Prior:
        """The base's."""
        return self.base.prior

    def fade(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """d_k and its slope at times t (..., *shape)."""
        axes = [torch.arange(n, dtype=t.dtype, device=t.device) * math.pi / n for n in self.shape]
        square = sum(k**2 for k in torch.meshgrid(*axes, indexing="ij"))
        sin, cos = torch.sin(math.pi / 2 * t), torch.cos(math.pi / 2 * t)
        kept = (1 - self.floor) * exp(-square * (self.blur * sin**2) ** 2 / 2)
        return kept + self.floor, -square * self.blur**2 * math.pi * sin**3 * cos * kept

    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t."""
        level, ndim = self.base(t), len(self.shape) + 1
        a, sigma, d_a, d_var, d_sigma = (
            spread(c, ndim)
            for c in (level.alpha, level.sigma, level.d_alpha, level.d_var, level.d_sigma)
        )
        d, slope = self.fade(spread(level.t, ndim))
        return Level(level.t, a * d, sigma, d_a * d + a * slope, d_var, d_sigma)

    def time(self, lam: Tensor) -> Tensor:
        """Bisection on [t_min, T] to the last bit of float64."""

        def early(t: Tensor) -> Tensor:
            base = self.base(t.reshape(-1)).lam.reshape(t.shape)
            return base + self.fade(t)[0].log() > lam

        return bisect(early, torch.full_like(lam, self.t_min), torch.full_like(lam, self.T))

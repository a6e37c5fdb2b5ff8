"""What a forward process knows at one time: the time, alpha, sigma and their slopes."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor, log

NO_SIGNAL = -25.0
"""Below this log(alpha / sigma) a state holds no trace of x0: alpha counts as zero."""

TINY = 1e-30
"""Its square, and the square of its inverse, are numbers of float64."""


def expand(c: Tensor | float, x: Tensor) -> Tensor | float:
    """A coefficient, (), (b,) or (1 or b, *coordinates), made ready to multiply a state x (b, *).

    A 0-d float64 tensor stays as it is: it neither promotes a float32 state nor synchronises a
    device. Others take the state's dtype, and a per-sample one becomes (b, 1, ...). ValueError for
    coordinates that are not the state's.
    """
    if not isinstance(c, Tensor) or c.ndim == 0:
        return c
    if c.ndim == 1:
        return c.to(x).reshape(-1, *[1] * (x.ndim - 1))
    if c.ndim != x.ndim or not all(n in (1, m) for n, m in zip(c.shape, x.shape, strict=True)):
        raise ValueError(
            f"Levels that differ between coordinates are of shape {tuple(c.shape)}, which does "
            f"not broadcast against states {tuple(x.shape)}: both have an axis of samples first, "
            "and then the same coordinates."
        )
    return c.to(x)


def spread(c: Tensor, ndim: int) -> Tensor:
    """A time or a number, () or (b,), beside what has coordinates: (1, 1, ...) or (b, 1, ...) of
    so many axes.  As it is beside what has none, and where it has coordinates itself."""
    return c.reshape(-1, *[1] * (ndim - 1)) if ndim > 1 and c.ndim < 2 else c


@dataclass(frozen=True, eq=False)
class Instant:
    """All that any SDE knows at one time: the time itself, () or (b,)."""

    t: Tensor

    place: ClassVar[tuple[Instant, int] | None] = None
    """The levels (n,) that this one was made with, and its number among them: a model prepares
    for all of them at once."""

    def unbind(self) -> list[Instant]:
        """A level of many times (n,) as n levels of one time () each.

        What has coordinates keeps its first axis, of length 1.
        """
        each = [getattr(self, field.name) for field in fields(self)]
        columns = [c.unbind() if c.ndim < 2 else c.split(1) for c in each]
        parts = [type(self)(*row) for row in zip(*columns, strict=True)]
        for i, part in enumerate(parts):
            object.__setattr__(part, "place", (self, i))
        return parts  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Level(Instant):
    """All that a linear SDE knows at one time: tensors of the time's shape, () or (b,); or, where
    it differs from coordinate to coordinate, all of shapes (1, *) or (b, *) that broadcast against
    a state: the number of axes says which.

    alpha, sigma: x_t = alpha x0 + sigma z.   d_alpha, d_var: d alpha / dt and d sigma^2 / dt.
    (The slope of sigma^2 is asked for, not sigma's: it stays finite where sigma leaves zero.)
    d_sigma: d sigma / dt, by default d_var / (2 sigma). An SDE whose sigma leaves zero with a
    finite slope, as a flow's does, says what it is there.
    """

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_var: Tensor
    d_sigma: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.d_sigma is None:
            object.__setattr__(self, "d_sigma", self.d_var / (2 * self.sigma))
        known = self.alpha, self.sigma, self.d_alpha, self.d_var, self.d_sigma
        if len({c.ndim for c in known} - {0}) > 1:
            raise ValueError(
                "Where a Level differs between coordinates, alpha, sigma and their slopes all "
                "have the axes of a state, (1 or b, *), but their shapes are "
                f"{', '.join(str(tuple(c.shape)) for c in known)}."
            )

    @cached_property
    def lam(self) -> Tensor:
        """Half the log signal-to-noise ratio, log(alpha / sigma)."""
        return log(self.alpha) - log(self.sigma)

    @cached_property
    def rho(self) -> Tensor:
        """Noise beside unit signal, sigma / alpha: the sigma of Karras et al. (2022)."""
        return self.sigma / self.alpha

    @cached_property
    def tau(self) -> Tensor:
        """sigma / (alpha + sigma): the time of the straight flow (1 - tau) x0 + tau eps."""
        return self.sigma / (self.alpha + self.sigma)

    def inside(self) -> Level:
        """The level with alpha and sigma kept from zero: there a ratio has the value that is its
        limit at an end of the SDE, where it is 0 / 0."""
        return replace(self, alpha=self.alpha.clamp(min=TINY), sigma=self.sigma.clamp(min=TINY))

    @cached_property
    def to_score(self) -> Tensor:
        """-1 / sigma, by which eps is multiplied to be the score."""
        return -1 / self.sigma

    @cached_property
    def f(self) -> Tensor:
        """Linear drift, d log alpha / dt."""
        return self.d_alpha / self.alpha

    @cached_property
    def g2(self) -> Tensor:
        """Squared diffusion, d sigma^2 / dt - 2 f sigma^2."""
        return self.d_var - 2 * self.f * self.sigma**2


def float64_time(t: Tensor | float) -> Tensor:
    """A time in float64, where levels are decided: float32 is 9 % off in sigma at t = 1e-6."""
    return torch.as_tensor(t, dtype=torch.float64)


def with_marginals(level: Instant) -> Level:
    """The level as that of a linear SDE, or an error that says why it must be one."""
    if not isinstance(level, Level):
        raise ValueError(
            "This needs the marginals of a LinearSDE, but the SDE gives only drift and diffusion."
        )
    return level

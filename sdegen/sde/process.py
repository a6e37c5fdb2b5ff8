"""Forward processes: what turns data into noise, and everything that is known about it.

A linear SDE  dx = f(t) x dt + g(t) dw  has Gaussian marginals  x_t = alpha x0 + sigma z,  and its
two curves alpha(t), sigma(t) determine everything else:

    f = d log alpha / dt      g^2 = d sigma^2 / dt - 2 f sigma^2      lam = log(alpha / sigma)

Time runs from data (t_min) to noise (T).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn, sqrt

from sdegen.checks import number
from sdegen.sde.level import Instant, Level, expand, float64_time

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Prior:
    """The law that sampling starts from: N(mean, std^2 I).

    ``std`` and ``mean`` broadcast against a state (b, *): numbers, tensors of a sample's shape, or
    with a value for each sample.
    """

    std: float | Tensor = 1.0
    mean: float | Tensor = 0.0

    def sample(self, z: Tensor) -> Tensor:
        """Standard normal draws z (b, *) turned into draws from the prior."""
        mean, std = self.like(z)
        return mean + std * z

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of each sample of x (b, *), shape (b,)."""
        law = torch.distributions.Normal(*self.like(x), validate_args=False)
        return law.log_prob(x).reshape(len(x), -1).sum(1)

    def kl_from(self, mean: Tensor, std: Tensor) -> Tensor:
        """KL of N(mean, std^2 I) from the prior for each mean (b, *), std (), nats, (b,)."""
        middle, wide = self.like(mean)
        ratio = (expand(std, mean) / wide) ** 2
        off = (mean - middle) / wide
        kl = 0.5 * (ratio - 1 - ratio.log() + off.square())
        return kl.reshape(len(mean), -1).sum(1)

    def like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation as states x (b, *) are."""
        return self.spread("mean", x), self.spread("std", x)

    def spread(self, name: str, x: Tensor) -> Tensor:
        """One of the two as states x (b, *) are; ValueError for a shape that is none of theirs."""
        each = torch.as_tensor(getattr(self, name), dtype=x.dtype, device=x.device)
        try:
            return each.expand_as(x)
        except RuntimeError:
            one = (len(x), *[1] * (x.ndim - 1))
            raise ValueError(
                f"The prior's {name} is of shape {tuple(each.shape)}, which does not broadcast "
                f"against states {tuple(x.shape)}: a number for each sample is of shape {one}."
            ) from None


class SDE(ABC):
    """Any forward process  dx = drift(x, t) dt + diffusion(x, t) dw  on t in [t_min, T].

    Write ``drift``, ``diffusion`` and ``prior`` and every drift-based solver samples from it;
    write ``perturb`` too and a score model can be trained on it. Times are tensors of shape ()
    or (b,), states are (b, *). The diffusion must not depend on the state's value (additive
    noise, as in every process of the field): then Anderson's reverse drift needs no divergence.
    """

    T: float
    t_min: float
    matrix: ClassVar[bool] = False
    """True when ``diffusion`` returns matrices (..., d, m) acting on a state's last axis."""
    conditions: ClassVar[tuple[str, ...]] = ()
    """Fields with a value for each sample, (b, *), as the image that a mean-reverting process ends
    at. A model's ``given(name=value)`` sets them, and they are cut with the batch; a number, and
    what is given for all samples alike, is not."""

    @abstractmethod
    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """The deterministic part, of x's shape (b, *)."""

    @abstractmethod
    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        """The factor of dw: broadcasts against x, or (..., d, m) where ``matrix`` is True."""

    @property
    @abstractmethod
    def prior(self) -> Prior:
        """The law of x at time T."""

    def __call__(self, t: Tensor | float) -> Instant:
        """What is known at time t, () or (b,)."""
        return Instant(float64_time(t))

    def given(self, **conditions: Tensor) -> Self:
        """This process with these fields for each sample; itself where there are none."""
        return replace(self, **conditions) if conditions else self  # type: ignore[type-var]

    def take(self, index: Tensor, shared: Collection[str] = ()) -> Self:
        """This process for some samples of the batch, by their places (k,); fields that are
        ``shared`` by all samples stay whole."""
        each = {name: getattr(self, name) for name in self.conditions if name not in shared}
        cut = {k: torch.as_tensor(v) for k, v in each.items() if getattr(v, "ndim", 0)}
        return self.given(**{name: v[index.to(v.device)] for name, v in cut.items()})

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data x0 (b, *) at times t (b,): (x_t, score of x_t given x0), from normal draws z."""
        raise ValueError(
            f"{type(self).__name__} has no transition kernel in closed form: define "
            "perturb(x0, t, z) -> (x_t, score of x_t given x0) on it to train a score model."
        )


class LinearSDE(SDE):
    """dx = f(t) x dt + g(t) dw, given by its marginals.  Called at a time it gives the Level."""

    @abstractmethod
    def __call__(self, t: Tensor | float) -> Level:
        """The level at time t, () or (b,); float64."""

    @abstractmethod
    def time(self, lam: Tensor) -> Tensor:
        """The time at which log(alpha / sigma) = lam; of each coordinate, for lam (..., *), where
        it differs between coordinates."""

    @property
    def reference(self) -> LinearSDE:
        """The SDE whose lam walks, steps and labels are measured by: itself, unless levels differ
        from coordinate to coordinate. Then one of scalar levels, on the same [t_min, T]."""
        return self

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        """f(t) x."""
        return expand(self(t).f, x) * x

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        """g(t), (), (b, 1, ...) or of each coordinate."""
        return torch.as_tensor(expand(sqrt(self(t).g2), x))

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x_t = alpha x0 + sigma z, whose score given x0 is -z / sigma.  z: by default, drawn."""
        level, z = self(t), torch.randn_like(x0) if z is None else z
        return self.mix(x0, level, z), -z / expand(level.sigma, x0)

    def mix(self, x0: Tensor, level: Level, z: Tensor) -> Tensor:
        """alpha x0 + sigma z at a level already made."""
        return expand(level.alpha, x0) * x0 + expand(level.sigma, x0) * z


def linear(sde: SDE, who: str, instead: str) -> LinearSDE:
    """The SDE as one with marginals; ValueError that says who needs them, and what to do instead.

    who: what stands at the head of the sentence.  instead: what follows its colon.
    """
    if not isinstance(sde, LinearSDE):
        raise ValueError(
            f"{who} needs alpha and sigma, but {type(sde).__name__} gives only drift and "
            f"diffusion: {instead}."
        )
    return sde


def refuse_learned(sde: SDE, who: str) -> None:
    """ValueError where a loss would move the parameters of a process that is learned: under most
    losses the best one is what makes the task easy."""
    if not torch.is_grad_enabled() or not isinstance(sde, nn.Module):
        return
    if any(each.requires_grad for each in sde.parameters()):
        raise ValueError(
            f"{who} would also move the schedule of {sde}, which is learned, to where its error "
            "is small, whatever samples come of it: train with vdm_loss, whose bound does not "
            "depend on it, or keep it as it is, sde.requires_grad_(False)."
        )


def has_coordinates(sde: SDE) -> bool:
    """Whether the SDE's levels differ from coordinate to coordinate."""
    return isinstance(sde, LinearSDE) and sde.reference is not sde


def on_reference(sde: SDE, level: Instant) -> Level:
    """A linear SDE's level as one of scalars: itself, or the reference's at the same time."""
    assert isinstance(sde, LinearSDE)
    if sde.reference is not sde:
        return sde.reference(level.t)
    assert isinstance(level, Level)
    return level


def diffusion_of(sde: SDE, x: Tensor, t: Tensor) -> Tensor:
    """``sde.diffusion`` at states x (b, *) and times () or (b,); ValueError for a shape that does
    not broadcast against them: a number for each sample, (b,), would fall on the last axis."""
    G = torch.as_tensor(sde.diffusion(x, t))
    if not isinstance(x, Tensor):
        return G  # a symbol of programs/ has no shape
    if G.ndim:  # made of times in float64, it would promote a state
        G = G.to(x)
    if sde.matrix or isinstance(sde, LinearSDE):
        return G
    fits = G.ndim <= x.ndim and all(
        n in (1, m) for n, m in zip(reversed(G.shape), reversed(x.shape), strict=False)
    )
    if not fits:
        raise ValueError(
            f"{type(sde).__name__}.diffusion(x, t) must broadcast against states "
            f"{tuple(x.shape)}, but its shape is {tuple(G.shape)}: a number for each sample is of "
            f"shape {(len(x), *[1] * (x.ndim - 1))}."
        )
    return G


def check_given(sde: SDE) -> None:
    """Refuse a process of which a field for each sample has not been given."""
    for name in sde.conditions:
        if getattr(sde, name) is None:
            raise ValueError(
                f"{type(sde).__name__} depends on {name} of each sample, which nobody has given: "
                f"use model.given({name}=...)."
            )


def check_interval(sde: SDE, longest: float = math.inf) -> None:
    """Refuse times that are not 0 <= t_min < T <= longest."""
    for name in ("T", "t_min"):
        number(f"{type(sde).__name__}'s {name}", getattr(sde, name))
    if not 0 <= sde.t_min < sde.T <= longest:
        raise ValueError(
            f"{type(sde).__name__} runs on 0 <= t_min < T <= {longest:g}, "
            f"but t_min = {sde.t_min:g} and T = {sde.T:g}."
        )


def check_order(sde: SDE, low: str, high: str) -> None:
    """Refuse parameters that are not 0 < low <= high."""
    for name in (low, high):
        number(f"{type(sde).__name__}'s {name}", getattr(sde, name))
    a, b = getattr(sde, low), getattr(sde, high)
    if not 0 < a <= b < math.inf:
        raise ValueError(
            f"{type(sde).__name__} needs 0 < {low} <= {high}, "
            f"but {low} = {a:g} and {high} = {b:g}."
        )

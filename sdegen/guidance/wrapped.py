"""A model made of a model: guidance, thresholds and observations change its output alone.

Solvers, programs, graphs, likelihoods and tuning ask the contract of a model (``Denoiser``), so
that they take a wrapper as they take a network. The order of several, from the outside in:
``Thresholded(Known(Guided(CFG(model))))``. Clipping inside CFG is undone by the extrapolation, and
under a gradient it has no slope where it clips.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import pairwise
from numbers import Real
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from sdegen.checks import uncallable
from sdegen.model.denoiser import Around, Denoiser
from sdegen.model.network import changed_values, take_values
from sdegen.model.prediction import LinearPrediction, Target, predicted, same
from sdegen.sde.level import NO_SIGNAL, Instant, Level
from sdegen.sde.process import SDE, LinearSDE

Strength = float | Tensor | Callable[[Instant], float | Tensor]
"""How strongly a model is guided: a number, one a sample (b,), or a function of the level.

A function may say of itself what no look at it finds: ``jumps``, True where it is not continuous,
and ``extremes``, the least and the largest of its values. Both choose a solver, and no more.
"""


class Wrapped(Around, ABC):
    """A model whose output is another model's, changed: a ``Denoiser`` itself.

    ``models`` names the attributes that are models, ``own`` those that have a value for each
    sample and are cut with the batch. A wrapper is never changed: ``given`` and ``take`` make
    others.
    """

    models: ClassVar[tuple[str, ...]] = ("model",)
    own: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: Denoiser) -> None:
        if not isinstance(model, Denoiser):
            raise ValueError(f"{type(self).__name__} takes a model first, but it is {model!r}.")
        self.model = model

    @abstractmethod
    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F (b, *) in the target of the model inside."""

    def __call__(self, x: Tensor, t: Tensor | float | Instant) -> Any:
        """Every view of one output at state x (b, *) and a time or level."""
        level = t if isinstance(t, Instant) else self.sde(t)
        F = self.output(x, level)
        return predicted(self.sde, self.target, x, F, level, flow_only=self.flow_only)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    @property
    def target(self) -> Target:
        """What ``output`` is."""
        return self.model.target

    @property
    def data_range(self) -> tuple[float, float] | None:
        """Where data lies."""
        return self.model.data_range

    @property
    def conditions(self) -> Mapping[str, Any]:
        """What the model inside was given."""
        known: Mapping[str, Any] = getattr(self.model, "conditions", {})
        return known

    @property
    def apart(self) -> frozenset[str]:
        """Names of the conditions that ``given`` does not tell all of the models inside, as they
        are halves of a pair and were told otherwise."""
        return frozenset().union(*(apart_of(getattr(self, name)) for name in self.models))

    @property
    def strength(self) -> float:
        """How strongly it is guided, as CFG's scale says it: 1 not at all."""
        return strength_of(self.model)

    @property
    def jumps(self) -> bool:
        """True where a scale says that it jumps along the way, as ``Interval`` does."""
        return jumps(self.model)

    def changed(self, **attributes: Any) -> Any:
        """A copy with other attributes."""
        other = copy.copy(self)
        vars(other).update(attributes)
        return other

    def given(self, shared: Mapping[str, Any] | None = None, /, **conditions: Any) -> Any:
        """The same around ``model.given``."""
        given = {n: getattr(self, n).given(shared, **conditions) for n in self.models}
        return self.changed(**given)

    def check_conditions(self, b: int) -> None:
        """Refuse conditions of the models inside that are not of the batch's length."""
        for name in self.models:
            if hasattr(getattr(self, name), "check_conditions"):
                getattr(self, name).check_conditions(b)

    def take(self, index: Tensor) -> Any:
        """The wrapper of some samples of the batch, by their places (k,)."""
        cut: dict[str, Any] = {name: getattr(self, name).take(index) for name in self.models}
        cut |= {name: take_own(getattr(self, name), index) for name in self.own}
        return self.changed(**cut)

    def with_values(self, change: Callable[[Tensor], Tensor]) -> Any:
        """The wrapper with other tensors as its own and as its models' conditions."""
        new: dict[str, Any] = {n: getattr(self, n).with_values(change) for n in self.models}
        new |= {name: changed_values(getattr(self, name), change) for name in self.own}
        return self.changed(**new)

    def seen(self, x: Tensor, level: Instant) -> LinearPrediction:
        """What the model inside says, which has an x0."""
        p = self.model(x, level)
        assert isinstance(p, LinearPrediction)  # ``with_x0`` has looked
        return p

    def seen_at_large(self, x: Tensor, level: Instant) -> LinearPrediction:
        """The same, to be differentiated, where what the model was told is from inference mode
        too: no graph takes such tensors, and copies of them are told."""
        model = self.model
        if hasattr(model, "with_values"):
            model = model.with_values(lambda c: c.clone() if c.is_inference() else c)
        p = model(x, level)
        assert isinstance(p, LinearPrediction)
        return p


def take_own(value: Any, index: Tensor) -> Any:
    """A wrapper's own value for some samples; one of a single row is for all of them."""
    if not isinstance(value, Tensor) or not value.ndim or len(value) == 1:
        return value
    return take_values(value, index)


def check_strength(s: Any, model: Denoiser) -> Strength:
    """A strength, its tensor where the model is; ValueError for what is none."""
    if isinstance(s, Tensor) and s.ndim < 2 and s.is_floating_point():
        return s.to(model.device)
    if callable(s):
        if refused := uncallable(s, "level"):
            raise ValueError(
                f"A scale's function is called with a level, as s(level), but {s!r:.60} cannot "
                f"be: {refused}."
            )
        return s  # type: ignore[no-any-return]
    if isinstance(s, Real) and not isinstance(s, bool) and math.isfinite(s):
        return s if isinstance(s, int | float) else float(s)
    raise ValueError(
        "A scale is a number, floating-point numbers (b,), or a function of the level, but it is "
        f"{s!r}."
    )


def strength(s: Strength, x: Tensor, level: Instant) -> float | Tensor:
    """Its value at states x (b, *) and a level: a number, by which a branch can be left out, or a
    tensor; ValueError for one that is not of the batch's length, and a function's that is none."""
    value = s(level) if callable(s) else s
    if isinstance(value, Real) and not isinstance(value, int | float):
        value = float(value)
    if isinstance(value, Tensor):
        fine = not callable(s) or told(value, level)
    else:
        fine = isinstance(value, int | float) and math.isfinite(value)
    if not fine:
        raise ValueError(
            "A scale's function gives a number or numbers (b,) at every level, but at t = "
            f"{level.t.max().item():g} it gave {value!r}."
        )
    if isinstance(value, Tensor) and value.ndim and value.shape not in (x.shape[:1], (1,)):
        raise ValueError(
            f"A scale has {tuple(value.shape)} numbers, but the batch has {len(x)} samples."
        )
    return value


def told(value: Tensor, level: Instant) -> bool:
    """Whether a function's numbers are finite wherever times are, as far as the host knows: a
    sample whose time is not spoils itself alone."""
    t = level.t
    apart = value.ndim > 1 or (value.ndim == t.ndim == 1 and len(value) != len(t))  # refused later
    if apart or value.device.type != "cpu" or t.device.type != "cpu":
        return True
    return bool((value.isfinite() | ~t.isfinite()).all())


def strength_of(model: Denoiser) -> float:
    """How strongly a model is guided, as CFG's scale says it: 1 where it is not."""
    return float(getattr(model, "strength", 1.0))


def apart_of(model: Denoiser) -> frozenset[str]:
    """Names of the conditions that a model's ``given`` tells a part of it alone."""
    return frozenset(getattr(model, "apart", ()))


def jumps(what: Denoiser | Strength) -> bool:
    """Whether a model's guidance, or a scale, says that it jumps along the way."""
    return bool(getattr(what, "jumps", False))


@torch.no_grad()
def extremes(s: Strength, sde: SDE) -> tuple[float, float]:
    """The least and the largest value of a strength, of all samples and times; 1 where no value is
    finite. A function that does not say them (``extremes``) is asked at ``looked_at``."""
    if isinstance(s, int | float):
        return s, s
    if hasattr(s, "extremes"):
        least, largest = s.extremes
        return float(least), float(largest)
    at = [s(sde(t)) for t in looked_at(sde)] if callable(s) else [s]
    values = torch.cat([torch.as_tensor(v, dtype=torch.float64).reshape(-1).cpu() for v in at])
    values = values[values.isfinite()]  # what is not spoils its own sample, not the choice for all
    return (float(values.min()), float(values.max())) if len(values) else (1.0, 1.0)


def looked_at(sde: SDE) -> Tensor:
    """33 times evenly spaced in t and, between those of them where lam = log(alpha / sigma) is
    finite, 33 evenly spaced in lam: a quarter of VP's lam lies in the last of those steps in t."""
    times = torch.linspace(sde.T, sde.t_min, 33, dtype=torch.float64)
    if not isinstance(sde, LinearSDE):
        return times
    lam = torch.stack([sde.reference(t).lam for t in times])
    if lam.ndim > 1:  # of an SDE that is given something for each sample
        return times
    first, *_, last = lam[lam.isfinite() & (lam >= NO_SIGNAL)].tolist()
    even = sde.reference.time(torch.linspace(first, last, 33, dtype=torch.float64))
    return torch.cat([times, even.clamp(sde.t_min, sde.T)])


def beyond(*scales: float) -> float:
    """How strongly F_0 + sum_k scale_k (F_k - F_{k-1}) extrapolates, as CFG's scale says it.

    It is sum_k w_k F_k with weights that sum to 1: what the positive ones sum to, that is 1 where
    none is negative. Of two models max(scale, 1 - scale): a negative scale is the same guidance
    with the models exchanged.
    """
    return 1.0 + sum(max(b - a, 0.0) for a, b in pairwise((1.0, *scales, 0.0)))


def refuse_end(level: Instant, what: str, name: Literal["alpha", "sigma"]) -> None:
    """ValueError at the end of the SDE where alpha or sigma is 0, for what has no value there.

    (Levels are decided on the host: nothing waits.)
    """
    c = getattr(level, name)
    if c.device.type == "cpu" and bool((c == 0).any()):
        side = "begin below T" if name == "alpha" else "end above it"
        raise ValueError(
            f"{what} has no value where {name} is 0, at t = {level.t.max().item():g}: {side}, as "
            "the SDE's own T and t_min do unless they are told otherwise."
        )


def refuse_where_eps_is_lost(model: Denoiser, level: Instant, what: str) -> None:
    """ValueError at sigma = 0 for another x0 of a model that says eps too: x has no noise then of
    which eps could follow. A model of x0 alone has its value."""
    assert isinstance(level, Level)
    if not same(model.target(level)[1], 0.0):
        refuse_end(level, what, "sigma")


def at_large(level: Instant) -> Instant:
    """A level that gradients may be made with: one made under inference_mode is copied."""
    if not level.t.is_inference():
        return level
    with torch.inference_mode(False):
        parts = {each.name: getattr(level, each.name) for each in fields(level)}
        return type(level)(**{name: c.clone() for name, c in parts.items()})


def with_x0(model: Denoiser, what: str) -> None:
    """ValueError for a model whose SDE has no marginals, so that there is no x0 to change."""
    if not isinstance(model.sde, LinearSDE):
        raise ValueError(
            f"{what} changes E[x0 | x], which needs alpha and sigma, but "
            f"{type(model.sde).__name__} gives only drift and diffusion: take a LinearSDE, or "
            "guide the score with Guided(model, log_p)."
        )


def fits(value: Tensor, x: Tensor, what: str) -> Tensor:
    """A wrapper's own value on a state's device; ValueError if it does not broadcast to it, the
    batch's axis being one of its own."""
    try:
        fine = torch.broadcast_shapes(value.shape, x.shape) == x.shape and value.ndim == x.ndim
    except RuntimeError:
        fine = False
    if not fine:
        raise ValueError(
            f"{what} has the shape {tuple(value.shape)}, but states are {tuple(x.shape)}: give "
            f"one of shape (1, ...) for all samples or ({len(x)}, ...) for each."
        )
    return value.to(x.device) if value.dtype is torch.bool else value.to(x)


def repeated(level: Instant, k: int) -> Instant:
    """A level of a time for each sample (b,), for k copies of the batch."""
    if not level.t.ndim:
        return level
    parts = {each.name: getattr(level, each.name) for each in fields(level)}
    return type(level)(**{n: c.repeat(k, *[1] * (c.ndim - 1)) for n, c in parts.items()})


def noise_of(level: Instant) -> Tensor:
    """rho = sigma / alpha, by which intervals are said.

    ValueError for levels that differ between coordinates, and those of an SDE without marginals.
    """
    if not isinstance(level, Level):
        raise ValueError(
            "An interval is of sigma / alpha, which this SDE does not know: give a function of "
            "level.t."
        )
    if level.rho.ndim > level.t.ndim:
        raise ValueError(
            "An interval of sigma / alpha is of one level, but these differ between coordinates: "
            "give a function of level.t."
        )
    return level.rho

"""Guidance by models alone: two or more of them extrapolated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import flag, number
from sdegen.guidance.wrapped import (
    Strength,
    Wrapped,
    apart_of,
    beyond,
    check_strength,
    extremes,
    jumps,
    repeated,
    strength,
    strength_of,
    take_own,
    with_x0,
)
from sdegen.model.denoiser import Denoiser, cost_of
from sdegen.model.network import changed_values, in_place_of, take_values
from sdegen.model.prediction import LinearPrediction
from sdegen.model.score import ScoreModel
from sdegen.sde.level import Instant, Level, expand
from sdegen.sde.process import LinearSDE


class CFG(Wrapped):
    """F_u + scale (F_c - F_u): classifier-free guidance.  Ho & Salimans (2022), w = scale - 1.

    F_c is the model with its conditions, F_u the same with others in their place. The combination
    is affine, so that eps, x0, v, score and EDM networks give the same guided model.

    scale:    1 is the conditional model, 0 the other one, bit for bit and for one evaluation; else
              two. A number, one for each sample (b,), or a function of the level, as ``Interval``.
    without:  the conditions of F_u by name, the null that training dropped to: a number or a
              tensor without the batch's axis, for all samples, or one with it, for each (as a
              negative prompt). Conditions that are not named stay.
    rescale:  x0 is scaled by 1 - rescale + rescale std(x0_c) / std(x0), a sample's own over all
              its axes, against overexposure. Lin et al. (2024), eqs. 15-16, who rescale v or x0.
    together: both in one call of a batch twice as long.

    ValueError for a condition that the model was not given, and a value that is none for it.
    """

    models = ("model", "other")
    own = ("scale",)

    def __init__(
        self,
        model: Denoiser,
        scale: Strength,
        without: Mapping[str, Any],
        *,
        rescale: float = 0.0,
        together: bool = False,
    ) -> None:
        super().__init__(model)
        if not number("rescale", rescale, 0) <= 1:
            raise ValueError(f"rescale lies in [0, 1], but it is {rescale!r}.")
        if rescale:
            with_x0(model, "rescale")
        self.without, self.rescale = without, rescale
        self.together = flag("together", together)
        if not without or not isinstance(without, Mapping):
            raise ValueError("CFG needs without={...}: what the model is told in place of what.")
        if halves := sorted(apart_of(model) & without.keys()):
            raise ValueError(
                f"The second half of a pair was told another {', '.join(halves)}, which this CFG "
                "would leave unguided: guide each of them, Paired(CFG(one, ...), CFG(two, ...))."
            )
        self.scale = check_strength(scale, model)
        nulls = {name: null_of(self.conditions, name, value) for name, value in without.items()}
        shared = {name: nulls.pop(name) for name in getattr(model, "shared", ()) if name in nulls}
        self.other = model.given(shared, **nulls)  # type: ignore[attr-defined]
        self.both = doubled(model, self.other, shared) if together else None

    def __repr__(self) -> str:
        return f"CFG({self.model!r}, {self.scale!r}, without={self.without!r})"

    @property
    def cost(self) -> int:
        """Two, whether together or apart; one for the scales of one model."""
        return cost_of(self.model) * (1 if of_one(self.scale) else 2)

    def given(self, shared: Mapping[str, Any] | None = None, /, **conditions: Any) -> CFG:
        """The same with other conditions; what stands in their place stays."""
        model = self.model.given(shared, **conditions)  # type: ignore[attr-defined]
        rescale, together = self.rescale, self.together
        return CFG(model, self.scale, self.without, rescale=rescale, together=together)

    def take(self, index: Tensor) -> CFG:
        """The guidance of some samples of the batch."""
        without = {n: of_some(v, self.conditions[n], index) for n, v in self.without.items()}
        how = {"rescale": self.rescale, "together": self.together}
        return CFG(self.model.take(index), take_own(self.scale, index), without, **how)  # type: ignore[arg-type]

    def with_values(self, change: Callable[[Tensor], Tensor]) -> CFG:
        """The guidance with other tensors as its conditions, the doubled ones among them."""
        new: CFG = super().with_values(change)
        both = None if self.both is None else self.both.with_values(change)
        return new.changed(both=both)  # type: ignore[no-any-return]

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of the guided model."""
        s = strength(self.scale, x, level)
        if of_one(s):
            return (self.model if s == 1 else self.other).output(x, level)
        return self.extrapolated(x, level, s)[0]

    @property
    def base(self) -> Denoiser:
        """The conditional model."""
        return self.model

    def kick(self, x: Tensor, level: Level) -> Tensor:
        """eps - eps_c (b, *), what is added to the conditional model: (scale - 1) (eps_c - eps_u),
        and a rescaling's part. No evaluation where the scale is 1."""
        s = strength(self.scale, x, level)
        if of_one(s) and s == 1:
            return torch.zeros_like(x)
        F, c = self.extrapolated(x, level, s)
        a, b = self.target(level)
        return expand(level.alpha / (level.alpha * b - level.sigma * a), x) * (F - c)

    @property
    def strength(self) -> float:
        """The scale at its largest, 1 - scale of a negative one, or that of a model inside."""
        return max(super().strength, *map(beyond, extremes(self.scale, self.sde)))

    @property
    def jumps(self) -> bool:
        """As the scale says, or a model inside."""
        return jumps(self.scale) or super().jumps

    def extrapolated(self, x: Tensor, level: Instant, s: float | Tensor) -> tuple[Tensor, Tensor]:
        """F of the guided and of the conditional model."""
        if self.both is not None:
            c, u = self.both.output(torch.cat([x, x]), repeated(level, 2)).chunk(2)
            self.count(1)
        else:
            c, u = self.model.output(x, level), self.other.output(x, level)
        F = u + expand(s, x) * (c - u)
        return (rescaled(self, x, F, c, level) if self.rescale else F), c


def of_one(s: Strength) -> bool:
    """Whether a scale leaves one of two models: 0 or 1, compared as it was given."""
    return isinstance(s, int | float) and s in (0, 1)


def null_of(conditions: Mapping[str, Any], name: str, value: Any) -> Any:
    """A condition's other value, in the shape and type of the one that was given."""
    if name not in conditions:
        known = ", ".join(conditions) or "none"
        raise ValueError(
            f"CFG is told what stands in the place of {name}, but the model was given {known}: "
            f"give it first, model.given({name}=...)."
        )
    old = conditions[name]
    if isinstance(old, Tensor):
        return in_place_of(old, value, f"without: {name}")
    if isinstance(old, list | tuple) and not isinstance(value, list | tuple):
        return [value] * len(old)
    return value


def of_some(value: Any, old: Any, index: Tensor) -> Any:
    """What stands in a condition's place, for some samples: cut where it has one for each."""
    each = isinstance(value, Tensor) and isinstance(old, Tensor) and value.ndim == old.ndim
    if each or isinstance(value, list):
        return take_own(value, index) if each else take_values(value, index)
    return value


def doubled(one: Any, two: Any, shared: Mapping[str, Any]) -> ScoreModel:
    """A model with two sets of conditions, for a batch twice as long.

    ValueError where they cannot be put together.
    """
    if not isinstance(one, ScoreModel):
        raise ValueError(
            f"together=True puts the conditions of a ScoreModel together, but inside is {one!r}: "
            "leave it out."
        )
    each = [name for name in one.conditions if name not in one.shared]
    values = [m.conditions[name] for m in (one, two) for name in each]
    if shared or not all(isinstance(v, Tensor) and v.ndim for v in values):
        raise ValueError(
            "together=True takes conditions that are tensors with the batch's axis, and changes "
            "none that is shared: leave it out."
        )
    both = {name: torch.cat([one.conditions[name], two.conditions[name]]) for name in each}
    return one.given(**both)


def rescaled(cfg: CFG, x: Tensor, F: Tensor, c: Tensor, level: Instant) -> Tensor:
    """F of the guided x0 with a part of the conditional one's standard deviation."""
    a, b = cfg.target(level)  # type: ignore[arg-type]
    guided, plain = (LinearPrediction(x, each, level, a, b) for each in (F, c))  # type: ignore[arg-type]
    x0 = guided.x0
    top, std = (each.reshape(len(x), -1).std(1, correction=0) for each in (plain.x0, x0))
    ratio = torch.where(std > 0, top / torch.where(std > 0, std, 1), 1)
    return guided.pushed(expand(cfg.rescale * (ratio - 1), x) * x0)


class Contrast(Wrapped):
    """F_0 + sum_k scale_k (F_k - F_{k-1}) of several models on one SDE, from the weakest up.

    Two are autoguidance (Karras et al. 2024): ``Contrast([weak, strong], [2.0])``. Three, with no
    condition, an image, and an image and a text, are InstructPix2Pix (Brooks et al. 2023, eq. 3).
    The targets may differ: all are turned into the last one's. An evaluation of each.

    ValueError for models of other SDEs, and numbers of models and scales that do not fit.
    """

    own = ("scales",)

    def __init__(self, models: Sequence[Denoiser], scales: Sequence[Strength]) -> None:
        for given in (models, scales):
            if not isinstance(given, list | tuple):
                raise ValueError(
                    f"Contrast takes lists, [weak, strong] and [scale], but one is {given!r}."
                )
        if len(models) != len(scales) + 1 or not scales:
            raise ValueError(
                f"Contrast takes a scale for each step from one model to the next, but there are "
                f"{len(models)} models and {len(scales)} scales."
            )
        super().__init__(models[-1])
        for each in models:
            if each.sde != self.sde:
                raise ValueError(f"Contrast is of models on one SDE, not {each.sde}, {self.sde}.")
        self.ladder = tuple(models)
        self.scales = tuple(check_strength(s, self.model) for s in scales)
        told = [getattr(each, "conditions", {}) for each in models]
        # What a model was told as the last one was is told anew with it; other things stay.
        self.alike = [{n for n in mine if mine[n] is told[-1].get(n)} for mine in told]

    def __repr__(self) -> str:
        return f"Contrast({list(self.ladder)!r}, {list(self.scales)!r})"

    @property
    def cost(self) -> int:
        """The models' together."""
        return sum(map(cost_of, self.ladder))

    @property
    def strength(self) -> float:
        """The sum of the models' positive weights at its largest, or that of one of the models."""
        ends = product(*(extremes(s, self.sde) for s in self.scales))  # convex: largest at ends
        return max(*map(strength_of, self.ladder), *(beyond(*each) for each in ends))

    @property
    def jumps(self) -> bool:
        """As one of the scales says, or one of the models."""
        return any(map(jumps, (*self.scales, *self.ladder)))

    def of(self, ladder: list[Any], scales: Any = None) -> Contrast:
        """The contrast of other models that are told alike as these are."""
        scales = self.scales if scales is None else scales
        return self.changed(ladder=tuple(ladder), model=ladder[-1], scales=tuple(scales))  # type: ignore[no-any-return]

    def given(self, shared: Mapping[str, Any] | None = None, /, **conditions: Any) -> Contrast:
        """The same with other conditions for the last model, and for those that were told the
        same as it; what a weaker one was told otherwise, as no text, stays."""
        known, given = self.conditions, []
        for each, alike in zip(self.ladder, self.alike, strict=True):
            new = [
                {n: c for n, c in told.items() if n in alike or n not in known}
                for told in (dict(shared or {}), conditions)
            ]
            given.append(each.given(new[0], **new[1]))  # type: ignore[attr-defined]
        return self.of(given)

    def take(self, index: Tensor) -> Contrast:
        """The contrast of some samples of the batch."""
        return self.of(
            [m.take(index) for m in self.ladder], [take_own(s, index) for s in self.scales]
        )

    def with_values(self, change: Callable[[Tensor], Tensor]) -> Contrast:
        """The contrast with other tensors."""
        models = [m.with_values(change) for m in self.ladder]  # type: ignore[attr-defined]
        return self.of(models, changed_values(self.scales, change))

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of the guided model, in the last one's target."""
        outputs = [counted(self.model, each, x, level) for each in self.ladder]
        F = outputs[0]
        for s, (low, high) in zip(self.scales, pairwise(outputs), strict=True):
            F = F + expand(strength(s, x, level), x) * (high - low)
        return F


def counted(model: Denoiser, other: Denoiser, x: Tensor, level: Instant) -> Tensor:
    """Another model's output in a model's target, counted by that model too."""
    before, others = (model.nfe, model.vjps), (other.nfe, other.vjps)
    F = other.output(x, level)
    if other is not model and (model.nfe, model.vjps) == before:  # they do not count together
        model.count(other.nfe - others[0], other.vjps - others[1])
    if other.target is model.target or not isinstance(model.sde, LinearSDE):
        return F
    seen = LinearPrediction(x, F, level, *other.target(level))  # type: ignore[arg-type]
    return seen.view(*model.target(level))  # type: ignore[arg-type]

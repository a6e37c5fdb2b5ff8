"""Prompt-to-Prompt: maps of attention that one sample takes over from another."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from sdegen.checks import number, optional, whole
from sdegen.guidance.wrapped import Wrapped, noise_of, take_own
from sdegen.model.denoiser import Denoiser
from sdegen.networks.attention import Edit, Place
from sdegen.sde.level import Instant

Maps = dict[Place, Tensor]
"""Maps (b, heads, P, L) of one evaluation, by where they were made."""


@runtime_checkable
class MapEdit(Protocol):
    """What an edited sample's maps become, of its own and those of the sample it is edited from:
    a pure function, called at each place of each evaluation.

    ``maps`` itself where nothing changes. ``take`` and ``with_values`` are a wrapper's: of what it
    knows of each sample some, and with other tensors.
    """

    def __call__(self, source: Tensor, maps: Tensor, place: Place, level: Instant) -> Tensor: ...

    def take(self, index: Tensor) -> MapEdit: ...

    def with_values(self, change: Callable[[Tensor], Tensor]) -> MapEdit: ...


@dataclass(frozen=True)
class PromptToPrompt:
    """Maps of two captions mixed at high noise: the layout of the one, the words of the other.

        cross, rho > until:       M'_j = c_j (sum_i M_i W_ij + (1 - sum_i W_ij) M*_j)
        self,  rho > until_self:  M' = M

    with M of the sample, M* of its edit, columns i, j of their tokens, rho = sigma / alpha.
    Hertz et al. (2022), section 3.2 and algorithm 1, who say how long by shares of the steps.
    As theirs the rows are not made to sum to one again.

    words:      W (1 or b, n, m): ``replacement``, ``refinement``, or yours, whose columns sum to 1
                or, where a word is new, to 0. Columns behind the m are the edit's own.
    weights:    c (1 or b, m): ``reweighting``; None for ones.
    until, until_self: None never mixes, 0 always.
    most:       places of a map of self-attention that is replaced, at most.

    ValueError for shapes and numbers that are not these, and, before a step, for words beyond the
    tokens.
    """

    words: Tensor
    weights: Tensor | None = None
    until: float | None = 0.0
    until_self: float | None = None
    most: int = 256

    def __post_init__(self) -> None:
        W, c = self.words, self.weights
        if not isinstance(W, Tensor) or W.ndim != 3 or not W.is_floating_point():
            raise ValueError(f"words are floating-point (1 or b, n, m), but they are {said(W)}.")
        if not W.numel() or not bool(W.isfinite().all()):
            raise ValueError(f"words are finite, and of a word at least, but they are {said(W)}.")
        if bool(((W < 0) | (W.sum(1, keepdim=True) > 1 + 1e-6)).any()):
            raise ValueError(
                "A column of words is of shares of the words that it comes from: not negative, "
                f"and at most 1 together, but the largest sum is {float(W.sum(1).max()):g}."
            )
        shapes = [(k, W.shape[2]) for k in {1, len(W)}]
        if c is not None and (
            not isinstance(c, Tensor) or c.shape not in shapes or not c.is_floating_point()
        ):
            raise ValueError(
                f"weights are floating-point (1 or b, {W.shape[2]}), one for each column of "
                f"words, but they are {said(c)}."
            )
        optional(number, "until", self.until, 0.0)
        optional(number, "until_self", self.until_self, 0.0)
        whole("most", self.most)

    def __call__(self, source: Tensor, maps: Tensor, place: Place, level: Instant) -> Tensor:
        """The edit's maps."""
        until = self.until if place.cross else self.until_self
        here = place.cross or math.prod(place.space) <= self.most
        above = until is not None and here and above_noise(level, until)
        if above is False:
            return maps
        mixed = self.mixed(source, maps, place) if place.cross else source
        if above is True:
            return mixed
        return torch.where(above.to(maps.device)[:, None, None, None], mixed, maps)  # type: ignore[union-attr]

    def mixed(self, source: Tensor, maps: Tensor, place: Place) -> Tensor:
        """Of cross-attention, as above."""
        W = self.words.to(maps)[:, None]
        n, m = W.shape[-2:]
        if n > source.shape[-1] or m > maps.shape[-1]:
            raise ValueError(
                f"words are of {n} and {m} tokens, but the maps of {place.layer} are of "
                f"{source.shape[-1]} and {maps.shape[-1]}."
            )
        new = source[..., :n] @ W + (1 - W.sum(-2, keepdim=True)) * maps[..., :m]
        if self.weights is not None:
            new = self.weights.to(maps)[:, None, None] * new
        return torch.cat([new, maps[..., m:]], -1)

    def take(self, index: Tensor) -> PromptToPrompt:
        """Of some samples of the batch."""
        return replace(
            self, words=take_own(self.words, index), weights=take_own(self.weights, index)
        )

    def with_values(self, change: Callable[[Tensor], Tensor]) -> PromptToPrompt:
        """With other tensors."""
        c = self.weights
        return replace(self, words=change(self.words), weights=None if c is None else change(c))


@dataclass(frozen=True)
class LocalBlend:
    """Where the chosen words of two captions are looked at: the mask of an edit, anew at each
    evaluation.

    Maps of cross-attention, the mean of those of ``most`` places at most over heads and chosen
    words, in the state's space and divided by their largest: true where the sample's or the edit's
    is above ``threshold``. Hertz et al. (2022), section 3.2, local editing; theirs is of the mean
    over all steps so far.

    words, edited: booleans (1 or b, n) and (1 or b, m), ``marking`` of the two captions.

    ValueError for what is none, a threshold outside [0, 1), and, before a step, for words beyond
    the tokens and a network without such maps.
    """

    words: Tensor
    edited: Tensor
    threshold: float = 0.3
    most: int = 256

    def __post_init__(self) -> None:
        for each in (self.words, self.edited):
            if not isinstance(each, Tensor) or each.ndim != 2 or each.dtype is not torch.bool:
                raise ValueError(f"Words are marked by booleans (1 or b, n), not {said(each)}.")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold lies in [0, 1), but it is {self.threshold!r}.")
        whole("most", self.most)

    def __call__(self, source: Maps, maps: Maps, x: Tensor) -> Tensor:
        """The mask (b, 1, *space) of states x (b, channels, *space)."""
        return self.seen(source, self.words, x) | self.seen(maps, self.edited, x)

    def seen(self, maps: Maps, words: Tensor, x: Tensor) -> Tensor:
        """Where chosen words are looked at."""
        found, n = list[Tensor](), words.shape[1]
        how = {1: "linear", 2: "bilinear", 3: "trilinear"}[x.ndim - 2]
        for place, each in maps.items():
            if not place.cross or math.prod(place.space) > self.most:
                continue
            if n > each.shape[-1]:
                raise ValueError(
                    f"{n} words are marked, but the maps of {place.layer} are of "
                    f"{each.shape[-1]} tokens."
                )
            chosen = words.to(each)[:, None, None]
            looked = (each[..., :n] * chosen).sum(-1).mean(1)  # (b, P)
            there = looked.unflatten(1, (1, *place.space))
            found.append(F.interpolate(there, x.shape[2:], mode=how, align_corners=False))
        if not found:
            raise ValueError(
                f"No map of cross-attention has at most {self.most} places: give LocalBlend more."
            )
        mean = torch.stack(found).mean(0)
        return mean > self.threshold * mean.flatten(1).amax(1).reshape(-1, *[1] * (mean.ndim - 1))

    def take(self, index: Tensor) -> LocalBlend:
        """Of some samples of the batch."""
        return replace(
            self, words=take_own(self.words, index), edited=take_own(self.edited, index)
        )

    def with_values(self, change: Callable[[Tensor], Tensor]) -> LocalBlend:
        """With other tensors."""
        return replace(self, words=change(self.words), edited=change(self.edited))


def said(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return f"{value!r:.60}"


def above_noise(level: Instant, until: float) -> bool | Tensor:
    """Whether rho > until, of one time or of each sample (b,); decided where levels are, on the
    host, so that nothing waits."""
    above = noise_of(level) > until
    if not above.ndim:
        return bool(above)
    return bool(above.all()) if bool(above.all()) or not bool(above.any()) else above


# ---------------------------------------------------------------- where a model is told a caption


def told(model: Denoiser) -> Any:
    """The model inside all guidance, which is told the caption."""
    while isinstance(model, Wrapped):
        model = model.model
    return model


def with_edit(model: Denoiser, edit: Edit) -> Any:
    """A model whose maps are edited where it is told the caption: what guidance asks beside it,
    told something else in its place, is left as it is."""
    if isinstance(model, Wrapped):
        return model.changed(model=with_edit(model.model, edit))
    return model.given(edit=edit)  # type: ignore[attr-defined]


def keeping(maps: Maps, edit: Callable[[Tensor, Place], Tensor] = lambda maps, _: maps) -> Edit:
    """An edit whose results are kept by place."""

    def edited(made: Tensor, place: Place) -> Tensor:
        maps[place] = edit(made, place)
        return maps[place]

    return edited


def check_told(model: Denoiser, who: str) -> None:
    """ValueError for a model without tokens, or whose network's maps cannot be edited."""
    inside = told(model)
    conditions: Mapping[str, Any] = getattr(inside, "conditions", {})
    if conditions.get("tokens") is None:
        raise ValueError(
            f"{who} works with the maps of tokens, but the model was given none: "
            "model.given(tokens=..., mask=...)."
        )
    if conditions.get("edit") is not None:
        raise ValueError(
            f"{who} edits the maps of a model that was told an edit of its own already: leave one "
            "of them out, model.given(edit=None)."
        )
    net = inside.net
    known = inspect.signature(getattr(net, "forward", net)).parameters.values()
    if not any(each.name == "edit" or each.kind is each.VAR_KEYWORD for each in known):
        raise ValueError(
            f"{who} works with the maps of attention, but {type(net).__name__} takes no edit= of "
            "them: build one of sdegen.networks with token_width > 0."
        )


def check_made(maps: Maps, who: str) -> None:
    """ValueError where a model has been asked, and no map of tokens was edited."""
    if not any(place.cross for place in maps):
        raise ValueError(
            f"{who} works with the maps of attention to tokens, but the model made none that an "
            "edit reached: take a network with token_width > 0, guided by CFG in two calls, "
            "together=False, if at all."
        )

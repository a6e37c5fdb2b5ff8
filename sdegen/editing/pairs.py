"""A state that is a pair: a sample, and beside it what an edit makes of the same noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sdegen.editing.prompt import (
    LocalBlend,
    MapEdit,
    Maps,
    check_made,
    check_told,
    keeping,
    with_edit,
)
from sdegen.guidance.free import counted
from sdegen.guidance.wrapped import Wrapped, fits, refuse_where_eps_is_lost, take_own
from sdegen.model.denoiser import Denoiser, cost_of
from sdegen.model.prediction import same
from sdegen.networks.attention import Edit, Place
from sdegen.noise.source import Noise
from sdegen.sde.level import Instant, Level, expand
from sdegen.sde.process import linear


class Paired(Wrapped):
    """Two models of one pair of states (b, 2, *): the first moves the first, ``edited`` the other.

    Both halves stay one sample: every solver, walk, program and graph takes them, and one that
    measures a step measures the pair's. An evaluation of each model is spent on a sample.

    mask: booleans (b, *) or (1, *), where the edit may be seen; without it everywhere. Outside
          the second half is told what the first is, so that, begun alike and with noise alike
          (``Alike``), it is the first's to the last bit, for any solver: what DiffEdit of
          Couairon et al. (2023) does to each step of DDIM. Or a ``LocalBlend``, which finds it
          in the maps of attention at each evaluation: outside, both have one x0.
    maps: how the second's maps of attention are made of both, as ``PromptToPrompt``: where the
          models are told their captions, not in what guidance asks beside them. The first is what
          it is alone, to the last bit.

    Guidance goes inside: ``Paired(CFG(one, ...), CFG(two, ...))``.

    ``given`` tells both models what they were told alike, and the first alone what the edit was
    told otherwise. ValueError for two SDEs, a mask that is not boolean or does not broadcast, and
    a state that is no pair; with maps, for a model that was told no tokens and a network whose
    maps cannot be edited.
    """

    models = ("model", "edited")

    def __init__(
        self,
        model: Denoiser,
        edited: Denoiser,
        *,
        mask: Tensor | LocalBlend | None = None,
        maps: MapEdit | None = None,
    ) -> None:
        super().__init__(model)
        if not isinstance(edited, Denoiser) or edited.sde != model.sde:
            raise ValueError(f"Paired is of two models on {model.sde}, not {edited!r}.")
        if isinstance(mask, Tensor) and mask.dtype is not torch.bool:
            raise ValueError(f"A mask is boolean, true where an edit may be, but is {mask.dtype}.")
        if maps is not None and not isinstance(maps, MapEdit):
            raise ValueError(f"maps is an edit of them, as PromptToPrompt, but it is {maps!r}.")
        self.edited, self.mask, self.maps = edited, mask, maps
        if self.looks:
            linear(model.sde, "An edit of maps", "take a LinearSDE")
            for each in (model, edited):
                check_told(each, "An edit of maps")
        self.mask, self.maps = self.own_values(lambda value: value.to(model.device))
        told = getattr(edited, "conditions", {})
        self.alike = {name for name, c in self.conditions.items() if told.get(name) is c}

    def __repr__(self) -> str:
        return f"Paired({self.model!r}, {self.edited!r})"

    @property
    def cost(self) -> int:
        """The two models' together."""
        return cost_of(self.model) + cost_of(self.edited)

    @property
    def apart(self) -> frozenset[str]:
        """Conditions that the edit was told otherwise, or not at all."""
        return super().apart | (self.conditions.keys() - self.alike)

    @property
    def looks(self) -> bool:
        """Whether maps of attention are looked at."""
        return self.maps is not None or isinstance(self.mask, LocalBlend)

    def own_values(self, change: Callable[[Tensor], Tensor]) -> tuple[Any, Any]:
        """Mask and edit with other tensors."""
        mask, maps = self.mask, self.maps
        if mask is not None:
            mask = change(mask) if isinstance(mask, Tensor) else mask.with_values(change)
        return mask, None if maps is None else maps.with_values(change)

    def take(self, index: Tensor) -> Paired:
        """The pairs of some samples of the batch."""
        mask, maps = self.mask, None if self.maps is None else self.maps.take(index)
        mask = mask.take(index) if isinstance(mask, LocalBlend) else take_own(mask, index)
        return super().take(index).changed(mask=mask, maps=maps)  # type: ignore[no-any-return]

    def with_values(self, change: Callable[[Tensor], Tensor]) -> Paired:
        """The pair with other tensors."""
        new = {name: getattr(self, name).with_values(change) for name in self.models}
        mask, maps = self.own_values(change)
        return self.changed(**new, mask=mask, maps=maps)  # type: ignore[no-any-return]

    def given(self, shared: Mapping[str, Any] | None = None, /, **conditions: Any) -> Paired:
        """The pair with other conditions; what the edit was told otherwise stays."""
        apart = self.apart
        told = [{n: c for n, c in m.items() if n not in apart} for m in (shared or {}, conditions)]
        model = self.model.given(shared, **conditions)  # type: ignore[attr-defined]
        return self.changed(model=model, edited=self.edited.given(told[0], **told[1]))  # type: ignore[no-any-return,attr-defined]

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of both halves (b, 2, *), in the target of the first."""
        if x.ndim < 2 or x.shape[1] != 2:
            raise ValueError(f"A pair of states is (b, 2, *), but the state is {tuple(x.shape)}.")
        one, two = x.unbind(1)
        model, edited = self.model, self.edited
        seen, made = Maps(), Maps()
        if self.looks:
            model = with_edit(model, keeping(seen))
            edited = with_edit(edited, keeping(made, self.edit_of(seen, level)))
        F, G = model.output(one, level), counted(self.model, edited, two, level)
        if self.looks:
            check_made(made, "An edit of maps")
        if isinstance(self.mask, LocalBlend):
            G = torch.where(self.mask(seen, made, one), G, self.told_alike(F, two - one, level))
        G = self.outside(F, G)
        return torch.stack([F, G], 1)

    def outside(self, first: Tensor, second: Tensor) -> Tensor:
        """The second half, which outside a mask of places is the first."""
        if not isinstance(self.mask, Tensor):
            return second
        return torch.where(fits(self.mask, first, "A mask"), second, first)

    def edit_of(self, seen: Maps, level: Instant) -> Edit:
        """The edit of the second half's maps, where those of the first are known."""

        def edit(maps: Tensor, place: Place) -> Tensor:
            source = seen.get(place)
            if source is None or source.shape[:3] != maps.shape[:3]:
                raise ValueError(
                    f"The maps of {place.layer} are those of two networks, or none was made for "
                    "the first half: a pair whose maps are edited is of one."
                )
            return maps if self.maps is None else self.maps(source, maps, place, level)

        return edit

    def told_alike(self, F: Tensor, off: Tensor, level: Instant) -> Tensor:
        """F at a state that is off by so much, with the same x0: F + b off / sigma."""
        refuse_where_eps_is_lost(self.model, level, "A blend of two samples")
        assert isinstance(level, Level)
        _, b = self.target(level)
        return F if same(b, 0.0) else F + expand(b / level.sigma, off) * off


@dataclass(frozen=True)
class Alike(Noise):
    """One draw for both halves of a pair (b, 2, *): those that a seed gives to a single state.

    ``sg.sample(Paired(a, b), (n, 2, *shape), noise=Alike(sg.Seeded(0)))`` draws what ``a`` and
    ``b`` draw from seed 0, side by side.
    """

    source: Noise

    @property
    def path(self) -> bool:  # type: ignore[override]
        """As the source."""
        return self.source.path

    @property
    def end(self) -> float:  # type: ignore[override]
        """As the source."""
        return self.source.end

    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The source's draw for a half, twice."""
        return both(self.source(x[:, 0], t, s))

    def area(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The source's for a half, twice."""
        return both(self.source.area(x[:, 0], t, s))

    def take(self, index: Tensor) -> Alike:
        """The source's, for both halves."""
        return replace(self, source=self.source.take(index))

    def stream(self, name: str) -> Alike:
        """The source's, for both halves."""
        return replace(self, source=self.source.stream(name))

    def begun(self) -> Alike:
        """The source's, for both halves."""
        return replace(self, source=self.source.begun())


def both(x: Tensor) -> Tensor:
    """A pair (b, 2, *) of a state (b, *) and itself."""
    return torch.stack([x, x], 1)

"""A state that is a pair: a sample, and beside it what an edit makes of the same noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sdegen.guidance.free import counted
from sdegen.guidance.wrapped import Wrapped, fits
from sdegen.model.denoiser import Denoiser, cost_of
from sdegen.noise.source import Noise
from sdegen.sde.level import Instant


class Paired(Wrapped):
    """Two models of one pair of states (b, 2, *): the first moves the first, ``edited`` the other.

    Both halves stay one sample: every solver, walk, program and graph takes them, and one that
    measures a step measures the pair's. An evaluation of each model is spent on a sample.

    mask: booleans (b, *) or (1, *), where the edit may be seen; without it everywhere. Outside
          the second half is told what the first is, so that, begun alike and with noise alike
          (``Alike``), it is the first's to the last bit, for any solver: what DiffEdit of
          Couairon et al. (2023) does to each step of DDIM.

    ``given`` tells both models what they were told alike, and the first alone what the edit was
    told otherwise. ValueError for two SDEs, a mask that is not boolean or does not broadcast, and
    a state that is no pair.
    """

    models = ("model", "edited")
    own = ("mask",)

    def __init__(self, model: Denoiser, edited: Denoiser, *, mask: Tensor | None = None) -> None:
        super().__init__(model)
        if not isinstance(edited, Denoiser) or edited.sde != model.sde:
            raise ValueError(f"Paired is of two models on {model.sde}, not {edited!r}.")
        if mask is not None and mask.dtype is not torch.bool:
            raise ValueError(f"A mask is boolean, true where an edit may be, but is {mask.dtype}.")
        self.edited, self.mask = edited, None if mask is None else mask.to(model.device)
        told = getattr(edited, "conditions", {})
        self.alike = {name for name, c in self.conditions.items() if told.get(name) is c}

    def __repr__(self) -> str:
        return f"Paired({self.model!r}, {self.edited!r})"

    @property
    def cost(self) -> int:
        """The two models' together."""
        return cost_of(self.model) + cost_of(self.edited)

    def given(self, shared: Mapping[str, Any] | None = None, /, **conditions: Any) -> Paired:
        """The pair with other conditions; what the edit was told otherwise stays."""
        apart = self.conditions.keys() - self.alike
        told = [{n: c for n, c in m.items() if n not in apart} for m in (shared or {}, conditions)]
        model = self.model.given(shared, **conditions)  # type: ignore[attr-defined]
        return self.changed(model=model, edited=self.edited.given(told[0], **told[1]))  # type: ignore[no-any-return,attr-defined]

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of both halves (b, 2, *), in the target of the first."""
        if x.ndim < 2 or x.shape[1] != 2:
            raise ValueError(f"A pair of states is (b, 2, *), but the state is {tuple(x.shape)}.")
        one, two = x.unbind(1)
        F, G = self.model.output(one, level), counted(self.model, self.edited, two, level)
        if self.mask is not None:
            G = torch.where(fits(self.mask, one, "A mask"), G, F)
        return torch.stack([F, G], 1)


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

"""Clips: images beside their frames in training, and frames that are hidden and to be found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import whole
from sdegen.guidance import Mask
from sdegen.losses.degradations import Degradation, Degraded, unknown
from sdegen.losses.dsm import check_data, dsm_loss


def with_images(
    model: Any,
    x0: Tensor,
    *,
    images: int,
    loss: Callable[..., Tensor] = dsm_loss,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A loss (b,) of clips x0 (b, c, f, h, w) with so many images behind each, frames of any clips
    of the batch that are told the same: of all where the model is told nothing, of those of a
    clip's class where it is told classes.

    The model is told which they are, ``given(images=...)``, (b, f + images): attention over time
    neither reaches them nor sees them, so that they train the image network alone, of pictures
    more different than those of one clip.  Ho et al. (2022b), section 3.

    The draws are torch's generator's, or those of ``generator``, on x0's device. ValueError for
    data that are no clips, images < 0, and a model that is shown something beside the frames.
    """
    check_data(x0)
    whole("images", images, 0)
    f, b = as_clips(x0, "with_images"), len(x0)
    told: Mapping[str, Any] = model.conditions
    if images and told.get("c") is not None:
        raise ValueError(
            "with_images has nothing to show beside its images, but the model is given c, what is "
            "seen of the frames: leave the task or the images out."
        )
    frames = x0.transpose(1, 2).flatten(0, 1)  # (b f, c, h, w)
    same = alike(told, x0).repeat_interleave(f, 1)  # (b, b f)
    picks = same.multinomial(max(images, 1), True, generator=generator)[:, :images]
    more = frames[picks].transpose(1, 2)
    mask = (torch.arange(f + images, device=x0.device) >= f).expand(b, -1)
    return loss(model.given(images=mask), torch.cat([x0, more], 2))


def alike(told: Mapping[str, Any], x0: Tensor) -> Tensor:
    """Which samples of x0 (b, *) are told the same, (b, b): 1, and 0 for others."""
    b, same = len(x0), torch.ones(len(x0), len(x0), dtype=torch.bool, device=x0.device)
    for value in told.values():
        if isinstance(value, Tensor) and value.ndim and len(value) == b:
            each = value.to(x0.device).reshape(b, -1)
            same &= (each[:, None] == each).all(2)
    return same.float()


@dataclass(frozen=True)
class Extend(Degradation):
    """The first frames are known, all that follow are not: prediction, and by repetition clips of
    any length.

    known: how many.
    """

    known: int = 4

    def __post_init__(self) -> None:
        whole("Extend's known", self.known)

    def __call__(self, x0: Tensor, generator: torch.Generator | None = None) -> Degraded:
        """(b, channels, f, h, w), and the frames that follow; ValueError where none does."""
        f = as_clips(x0, "Extend")
        if self.known >= f:
            raise ValueError(f"Extend(known={self.known}) leaves nothing of {f} frames to draw.")
        return hidden(x0, torch.arange(f, device=x0.device) >= self.known, generator)

    def operator(self, x0: Tensor, hole: Tensor | None) -> Mask:
        """The first frames."""
        assert hole is not None
        return Mask(~hole)


@dataclass(frozen=True)
class Between(Degradation):
    """Every k-th frame is known, from the first on, those between are not: temporal
    super-resolution.

    every: k.
    """

    every: int = 2

    def __post_init__(self) -> None:
        whole("Between's every", self.every, 2)

    def __call__(self, x0: Tensor, generator: torch.Generator | None = None) -> Degraded:
        """(b, channels, f, h, w), and the frames between; ValueError where there are none."""
        f = as_clips(x0, "Between")
        if f < 2:
            raise ValueError("Between is of frames between others, but clips have one frame.")
        return hidden(x0, torch.arange(f, device=x0.device) % self.every > 0, generator)

    def operator(self, x0: Tensor, hole: Tensor | None) -> Mask:
        """Every k-th frame."""
        assert hole is not None
        return Mask(~hole)


def as_clips(x0: Tensor, who: str) -> int:
    """The number of frames; ValueError for data that are no clips."""
    if x0.ndim != 5:
        raise ValueError(
            f"{who} is of clips (b, channels, f, h, w), but data are {tuple(x0.shape)}."
        )
    return x0.shape[2]


def hidden(x0: Tensor, frames: Tensor, generator: torch.Generator | None) -> Degraded:
    """Clips with noise in some frames (f,)."""
    hole = frames[:, None, None].expand(len(x0), 1, *x0.shape[2:])
    return unknown(x0, hole, generator)

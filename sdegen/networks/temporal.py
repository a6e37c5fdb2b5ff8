"""Attention over the frames of a clip, and the blocks of image networks that it may follow."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from sdegen.networks.attention import Context, SelfAttention, head_width
from sdegen.networks.layers import zeroed
from sdegen.networks.patches import rotary

BASE = 100.0
"""The rotary angles' base: a clip has few frames, as an image has few places along a side."""


class TemporalAttention(nn.Module):
    """h + Attention(LN h) of each place, over the frames of its clip: (b f, *places, C) -> the
    same; zero at first.

    Frames are turned by their number (``turned``): only differences of time count, so that a clip
    may be longer than those of training. Of a frame that is an image it is h itself, whatever the
    weights.  Ho et al. (2022b), section 3, whose positions are relative too.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.head = head_width(channels, heads)
        if self.head % 2:
            raise ValueError(
                f"heads = {heads} of {channels} channels are {self.head} wide, expected an even "
                "number: pairs are turned by time."
            )
        self.norm = nn.LayerNorm(channels)
        self.attention = SelfAttention(channels, heads)
        zeroed(self.attention.leave)

    def forward(self, h: Tensor, context: Context) -> Tensor:
        clip = context.clip
        if clip is None:
            return h
        x = self.norm(h).flatten(1, -2).unflatten(0, (-1, clip.frames)).transpose(1, 2)
        b, places = x.shape[:2]
        keep = clip.keep()
        if keep is not None:
            keep = keep.repeat_interleave(places, 0)[:, None]  # of all heads
        turn = rotary((clip.frames,), self.head, BASE, h)
        out = self.attention(x.flatten(0, 1), context, (clip.frames,), turn, keep)
        out = out.unflatten(0, (b, places)).transpose(1, 2)  # (b, f, places, C)
        if clip.images is not None:
            out = torch.where(clip.images[:, :, None, None], 0, out)
        return h + out.reshape(h.shape)


class Framewise(nn.Module):
    """A block of an image network, whose output of ``leaves`` channels attention over frames may
    follow: ``temporal``, None in a network of images.  axis: of its channels."""

    leaves: int
    axis: ClassVar[int] = -1

    def __init__(self) -> None:
        super().__init__()
        self.temporal: TemporalAttention | None = None

    def over_time(self, h: Tensor, context: Context) -> Tensor:
        """The output of the block, and of what follows."""
        if self.temporal is None:
            return h
        out: Tensor = self.temporal(h.movedim(self.axis, -1), context)
        return out.movedim(-1, self.axis)

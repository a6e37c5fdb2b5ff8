"""Attention: of places to each other, and of places to tokens that are given.

    maps = softmax(q k^T / sqrt(d))   (B, heads, P, L)        h = maps v

Vaswani et al. (2017), section 3.2. Without an edit the maps are never made: a fused kernel
gives h. With one h + (edited - maps) v is used, so that maps left as they are change no bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.checks import whole
from sdegen.networks.layers import group_norm, zeroed


@dataclass(frozen=True)
class Place:
    """Where maps are made.

    layer: the attention's name in its network, as ``named_modules`` has it.
    cross: whether tokens are attended to, and not places.
    space: the places, as (H, W); P is their product, and L too unless ``cross``.
    """

    layer: str
    cross: bool
    space: tuple[int, ...]


Edit = Callable[[Tensor, Place], Tensor]
"""Maps (B, heads, P, L) and where they are made -> the maps that are used, of the same shape."""


@dataclass(frozen=True)
class Clip:
    """Which images of a batch are frames of one clip.

    frames: f, so that a batch of (b f) images is of b clips, one frame after another.
    images: (b, f), true where a frame is an image by itself: nothing of others reaches it, and it
            reaches no other; None where all are of clips.
    """

    frames: int
    images: Tensor | None = None

    def keep(self) -> Tensor | None:
        """(b, f, f), true where a frame is seen by another; itself always, so that what is not
        used of an image has a value."""
        if self.images is None:
            return None
        moving = ~self.images
        itself = torch.eye(self.frames, dtype=torch.bool, device=moving.device)
        return (moving[:, :, None] & moving[:, None, :]) | itself


@dataclass(frozen=True)
class Context:
    """What a network's attention is told.

    tokens: (B, L, e), the last of which is that of "no tokens".
    keep:   (B, 1, 1, L), True where a token is seen.
    edit:   of the maps, given as ``model.given(edit=...)``; None for the fused kernel.
    clip:   which images of the batch are frames of one clip; None where none are.
    """

    tokens: Tensor | None = None
    keep: Tensor | None = None
    edit: Edit | None = None
    clip: Clip | None = None


NOTHING = Context()
"""No tokens, no edit."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    place: Place,
    keep: Tensor | None = None,
    edit: Edit | None = None,
) -> Tensor:
    """h (B, heads, P, d) of q (B, heads, P, d) and k, v (B, heads, L, d), seen where ``keep``.

    The fused kernels have no forward mode and no second derivatives; who needs them calls the
    network inside ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.
    Raises ValueError for an edit that returns another shape.
    """
    h = F.scaled_dot_product_attention(q, k, v, attn_mask=keep)
    if edit is None:
        return h
    # Divided before: float16 ends at 65504, which a sum of products over a head may pass.
    scores = q / math.sqrt(q.shape[-1]) @ k.transpose(-2, -1)
    if keep is not None:
        scores = scores.masked_fill(~keep, -math.inf)
    maps = scores.softmax(-1)
    edited = edit(maps, place)
    if edited.shape != maps.shape:
        raise ValueError(
            f"The edit of {place.layer} returns maps of shape {tuple(edited.shape)}, expected "
            f"{tuple(maps.shape)}: (B, heads, places, {'tokens' if place.cross else 'places'})."
        )
    return h if edited is maps else h + (edited - maps).to(v.dtype) @ v


def head_width(width: int, heads: int) -> int:
    """The width of a head; ValueError unless the heads divide the whole width."""
    if whole("heads", heads) and width % heads:
        raise ValueError(f"heads = {heads} does not divide a level of {width} channels.")
    return width // heads


def of_heads(x: Tensor, parts: int, heads: int) -> Tensor:
    """(B, n, parts heads d) as (parts, B, heads, n, d)."""
    return x.unflatten(2, (parts, heads, -1)).permute(2, 0, 3, 1, 4)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Vectors (*, n, d) with entries i and i + d/2 turned by an angle, as a pair.

    turn: cosines and sines of the angles, (2, n, d/2).  Su et al. (2021), eq. 34, whose pairs
          are neighbours.
    """
    cos, sin = turn.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class SelfAttention(nn.Module):
    """Every token attends to every token: (B, n, width) -> (B, n, width), no skip around it.

    head_norm: makes a norm of vectors of a head's width, for queries and for keys.  Henry et al.
               (2020), section 3.
    ``turn`` of the call: rotary positions, see ``turned``; after the norms.  ``keep``: (B, 1, n,
    n), true where a token is seen by another.
    Raises ValueError where the heads do not divide the width.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        bias: bool = True,
        head_norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        d = head_width(width, heads)
        self.heads, self.layer = heads, ""
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.norm_q = nn.Identity() if head_norm is None else head_norm(d)
        self.norm_k = nn.Identity() if head_norm is None else head_norm(d)
        self.leave = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        x: Tensor,
        context: Context,
        space: tuple[int, ...],
        turn: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        q, k, v = of_heads(self.qkv(x), 3, self.heads)
        q, k = self.norm_q(q), self.norm_k(k)
        if turn is not None:
            q, k = turned(q, turn), turned(k, turn)
        h = attend(q, k, v, Place(self.layer, False, space), keep, context.edit)
        out: Tensor = self.leave(h.transpose(1, 2).flatten(2))
        return out


class CrossAttention(nn.Module):
    """Every place attends to every token: (B, n, width) -> (B, n, width), no skip around it; zero
    at first.

    The tokens are the context's, (B, m, token_width).  Rombach et al. (2022), section 3.3.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        token_width: int,
        *,
        bias: bool = True,
        head_norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        d = head_width(width, heads)
        self.heads, self.layer = heads, ""
        self.query = nn.Linear(width, width, bias=bias)
        self.tell = nn.Linear(token_width, 2 * width, bias=bias)
        self.norm_q = nn.Identity() if head_norm is None else head_norm(d)
        self.norm_k = nn.Identity() if head_norm is None else head_norm(d)
        self.leave = zeroed(nn.Linear(width, width, bias=bias))

    def forward(self, x: Tensor, context: Context, space: tuple[int, ...]) -> Tensor:
        (q,) = of_heads(self.query(x), 1, self.heads)
        k, v = of_heads(self.tell(context.tokens), 2, self.heads)
        place = Place(self.layer, True, space)
        h = attend(self.norm_q(q), self.norm_k(k), v, place, context.keep, context.edit)
        out: Tensor = self.leave(h.transpose(1, 2).flatten(2))
        return out


class PixelAttention(nn.Module):
    """Every pixel attends to every pixel: (B, C, *space) -> (B, C, *space), a skip around it."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        head_width(channels, heads)
        self.heads, self.layer = heads, ""
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.leave = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Context = NOTHING) -> Tensor:
        space = tuple(x.shape[2:])
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (B, pixels, C)
        q, k, v = of_heads(self.qkv(pixels), 3, self.heads)
        h = attend(q, k, v, Place(self.layer, False, space), edit=context.edit)
        h = self.leave(h.transpose(1, 2).flatten(2))
        return x + h.transpose(1, 2).unflatten(2, space)


class PixelCrossAttention(nn.Module):
    """Every pixel attends to every token: (B, C, *space) -> (B, C, *space), a skip around it."""

    def __init__(self, channels: int, heads: int, token_width: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.attention = CrossAttention(channels, heads, token_width)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        space = tuple(x.shape[2:])
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        h: Tensor = self.attention(pixels, context, space)
        return x + h.transpose(1, 2).unflatten(2, space)


def name_layers(net: nn.Module) -> None:
    """Tell the attention of a network its name there, which is a ``Place``'s."""
    for name, module in net.named_modules():
        kinds: Any = (SelfAttention, CrossAttention, PixelAttention)
        if isinstance(module, kinds):
            module.layer = name

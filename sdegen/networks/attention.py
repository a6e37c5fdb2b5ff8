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
class Context:
    """What a network's attention is told.

    tokens: (B, m, e).  keep: (B, 1, 1, m), True where a token is one; None for all.
    edit:   of the maps, given as ``model.given(edit=...)``; None for the fused kernel.
    """

    tokens: Tensor | None = None
    keep: Tensor | None = None
    edit: Edit | None = None


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
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
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
    ``turn`` of the call: rotary positions, see ``turned``; after the norms.
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
        self, x: Tensor, context: Context, space: tuple[int, ...], turn: Tensor | None = None
    ) -> Tensor:
        q, k, v = of_heads(self.qkv(x), 3, self.heads)
        q, k = self.norm_q(q), self.norm_k(k)
        if turn is not None:
            q, k = turned(q, turn), turned(k, turn)
        h = attend(q, k, v, Place(self.layer, False, space), edit=context.edit)
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


class Tokens(nn.Module):
    """What a network is given as ``tokens`` and ``mask``, as its attention's Context.

    tokens: (B, m, width), vectors of an encoder. With ``words = n > 0`` int64 (B, m) instead, word
            k of n as k + 1 and 0 where there is none: a table of vectors and one of places is
            learned with the network; or the vectors that these have there (``vectors``).
    mask:   (B, m), True where a token is one; without it all are, or all words but 0.
    length: how many tokens there may be, at most.

    A sample without any token attends to one that is learned, and that nobody else sees. So
    "no tokens" is: tokens not given, or a mask of False alone, or words of 0 alone.

    Raises ValueError, in a sentence, for tokens of another shape or type, too many of them, words
    out of range (on the CPU only: elsewhere the check would wait for the device), and a mask of
    another shape or type.
    """

    def __init__(self, width: int, words: int = 0, length: int = 77) -> None:
        super().__init__()
        self.width = whole("token_width", width)
        self.words, self.length = whole("words", words, 0), whole("length", length)
        self.none = nn.Parameter(0.02 * torch.randn(width))
        if words:
            self.table = nn.Embedding(words + 1, width)
            self.places = nn.Parameter(0.02 * torch.randn(length, width))
            nn.init.normal_(self.table.weight, std=0.02)

    def forward(
        self, batch: int, tokens: Tensor | None, mask: Tensor | None, edit: Edit | None
    ) -> Context:
        none = self.none.expand(batch, 1, -1)
        if tokens is None:
            if mask is not None:
                raise ValueError("mask was given, but no tokens: give both, or neither.")
            return Context(none, None, edit)
        self._check(batch, tokens, mask)
        if self.words and not tokens.is_floating_point():
            mask = tokens != 0 if mask is None else mask & (tokens != 0)
        vectors = self.vectors(tokens)
        if mask is None:
            return Context(vectors if tokens.shape[1] else none, None, edit)
        # Behind the others, so that column j of a map is token j.
        keep = torch.cat([mask, ~mask.any(1, keepdim=True)], dim=1)
        return Context(torch.cat([vectors, none.to(vectors)], dim=1), keep[:, None, None], edit)

    def vectors(self, tokens: Tensor) -> Tensor:
        """The vectors (B, m, width) of tokens: those of words, at their places, others as they
        are."""
        if self.words and not tokens.is_floating_point():
            return self._looked_up(tokens) + self.places[: tokens.shape[1]]
        return tokens.to(self.none.dtype)

    def _check(self, batch: int, tokens: Tensor, mask: Tensor | None) -> None:
        said = f"tokens are {tokens.dtype} of shape {tuple(tokens.shape)}"
        vectors = not self.words or (tokens.is_floating_point() and tokens.ndim == 3)
        shape = (batch, "m", self.width) if vectors else (batch, "m")
        fits = tokens.ndim == len(shape) and all(
            n == wanted for n, wanted in zip(tokens.shape, shape, strict=True) if wanted != "m"
        )
        right = tokens.is_floating_point() if vectors else tokens.dtype == torch.int64
        if not (fits and right):
            kind = "vectors" if vectors else "torch.int64, numbers of words,"
            raise ValueError(f"{said}, expected {kind} of ({', '.join(map(str, shape))}).")
        if tokens.shape[1] > self.length:
            raise ValueError(
                f"{said}, which are more than length = {self.length}: cut them, or build the "
                "network for more."
            )
        if mask is not None and (mask.shape != tokens.shape[:2] or mask.dtype != torch.bool):
            raise ValueError(
                f"mask is {mask.dtype} of shape {tuple(mask.shape)}, expected torch.bool of "
                f"{tuple(tokens.shape[:2])}: True where a token is one."
            )

    def _looked_up(self, tokens: Tensor) -> Tensor:
        try:  # the CPU's lookup checks the range by itself, and nothing has to be waited for
            vectors: Tensor = self.table(tokens)
        except IndexError:
            raise ValueError(
                f"tokens have numbers outside 0 .. {self.words}: 0 for none, then "
                f"{self.words} words."
            ) from None
        return vectors


def context_of(
    told: Tokens | None,
    batch: int,
    tokens: Tensor | None,
    mask: Tensor | None,
    edit: Edit | None,
) -> Context:
    """The context of a network that may have no tokens; ValueError where it has none and is
    given some."""
    if edit is not None and not callable(edit):
        raise ValueError(f"edit is a function of maps and their place, but it is {edit!r:.60}.")
    if told is not None:
        context: Context = told(batch, tokens, mask, edit)
        return context
    if tokens is not None or mask is not None:
        raise ValueError(
            "tokens were given, but the network takes none: build it with token_width > 0, or "
            "call it without."
        )
    return Context(edit=edit)


def tokens_of(width: int, words: int, length: int) -> Tokens | None:
    """The tokens of a network that is built for some, None for one that is not."""
    if words and not width:
        raise ValueError(f"words = {words} have vectors: say their token_width, above 0.")
    return Tokens(width, words, length) if whole("token_width", width, 0) else None


def name_layers(net: nn.Module) -> None:
    """Tell the attention of a network its name there, which is a ``Place``'s."""
    for name, module in net.named_modules():
        kinds: Any = (SelfAttention, CrossAttention, PixelAttention)
        if isinstance(module, kinds):
            module.layer = name

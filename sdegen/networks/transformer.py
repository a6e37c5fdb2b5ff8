"""A transformer as they are built since: RMS norms, normed queries and keys, rotary positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.networks.attention import (
    Context,
    CrossAttention,
    SelfAttention,
    head_width,
    name_layers,
)
from sdegen.networks.conditioned import Conditioned
from sdegen.networks.layers import refuse_sizes, zeroed
from sdegen.networks.patches import patchify, rotary, sincos, unpatchify
from sdegen.networks.temporal import Framewise

BASE = {1: 10_000.0, 2: 100.0}
"""The rotary angles' base by the number of axes: long series turn slowly, images have few places
along a side.  Su et al. (2021), section 3.2.2; Heo et al. (2024), section 3.1."""


def plain_norm(width: int) -> nn.RMSNorm:
    """x / root mean square, without weights of its own.  Zhang and Sennrich (2019), eq. 4."""
    return nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)


class HeadNorm(nn.Module):
    """The norm of a head's queries or keys, with a weight for each of their numbers; in float32 at
    least, as a product of two bfloat16 norms would be off by a part in a hundred."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        kind = torch.promote_types(x.dtype, torch.float32)
        normed = F.rms_norm(x.to(kind), self.weight.shape, self.weight.to(kind), eps=1e-6)
        return normed.to(x.dtype)


class SwiGLU(nn.Module):
    """W3 (silu(W1 x) * W2 x), without biases, inside 8/3 of the width rounded up to a multiple of
    8, so that it has as many weights as an MLP of four times the width.  Shazeer (2020), eq. 6."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inside = -(-8 * width // 24) * 8
        self.enter = nn.Linear(width, 2 * inside, bias=False)
        self.leave = nn.Linear(inside, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, h = self.enter(x).chunk(2, dim=-1)
        out: Tensor = self.leave(F.silu(gate) * h)
        return out


class Block(Framewise):
    """x + g1 Attention((1 + s1) RMS(x) + b1), then + g2 SwiGLU((1 + s2) RMS(x) + b2).

    b, s and g are what all blocks are told, plus a vector of the block's own; zero at first, so
    that the block starts as the identity (adaLN-single). Between the two halves
    + CrossAttention(RMS(x)), where there are tokens.  Chen et al. (2023), section 2.3.
    """

    def __init__(self, width: int, heads: int, token_width: int) -> None:
        super().__init__()
        self.norm = plain_norm(width)
        self.attention = SelfAttention(width, heads, bias=False, head_norm=HeadNorm)
        self.cross = (
            CrossAttention(width, heads, token_width, bias=False, head_norm=HeadNorm)
            if token_width
            else None
        )
        self.mlp = SwiGLU(width)
        self.own = nn.Parameter(torch.zeros(6 * width))
        self.leaves = width

    def forward(
        self, x: Tensor, told: Tensor, context: Context, grid: tuple[int, ...], turn: Tensor
    ) -> Tensor:
        b1, s1, g1, b2, s2, g2 = (told + self.own)[:, None].chunk(6, dim=2)
        x = x + g1 * self.attention(self.norm(x) * (1 + s1) + b1, context, grid, turn)
        if self.cross is not None:
            x = x + self.cross(self.norm(x), context, grid)
        return self.over_time(x + g2 * self.mlp(self.norm(x) * (1 + s2) + b2), context)


class Transformer(Conditioned):
    """A transformer for states x (B, channels, *space), series or images by ``dims``; its output
    starts at zero.

    As DiT it cuts a state into patches, adds sines and cosines of their places, and makes patches
    again at its end. In its attention places are rotary: queries and keys are turned by them, so
    that there only differences of places count; along each axis an equal share of a head turns.
    Queries and keys are normed before that, head by head. There are no biases but in what the
    network is told. For series, a patch of 1 is a token a time.

    How it is called, and what it can be told, is ``Conditioned``'s.
    Raises ValueError for settings that make no network, as heads that do not divide the width or
    whose width the axes cannot share in pairs, and as ``Conditioned`` does.
    """

    remedy = "smaller patches"

    def __init__(
        self,
        channels: int,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        patch: int = 2,
        classes: int = 0,
        dims: int = 2,
        beside: int = 0,
        numbers: Sequence[str] = (),
        out: int | None = None,
        token_width: int = 0,
        words: int = 0,
        length: int = 77,
    ) -> None:
        refuse_sizes(dims, 2, channels=channels, width=width, depth=depth, patch=patch, out=out)
        head = head_width(width, heads)
        if head % (2 * dims):
            raise ValueError(
                f"A head of width / heads = {head} numbers, expected a multiple of "
                f"{2 * dims}: its pairs are shared by {dims} axes."
            )
        super().__init__(
            channels, dims, patch, width, classes, numbers, beside, token_width, words, length
        )
        self.width, self.patch, self.head = width, patch, head
        self.enter = nn.Linear((channels + beside) * patch**dims, width, bias=False)
        self.told = zeroed(nn.Linear(width, 6 * width))
        self.blocks = nn.ModuleList(Block(width, heads, token_width) for _ in range(depth))
        self.norm = plain_norm(width)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.leave = zeroed(nn.Linear(width, (out or channels) * patch**dims, bias=False))
        name_layers(self)

    def enters(self, x: Tensor) -> tuple[Tensor, tuple[int, ...], Tensor]:
        """The tokens of a state, with their places, the grid of these, and how they are turned."""
        grid = tuple(side // self.patch for side in x.shape[2:])
        h: Tensor = self.enter(patchify(x, self.patch))
        return h + sincos(grid, self.width, h), grid, rotary(grid, self.head, BASE[self.dims], h)

    def encode(
        self, x: Tensor, e: Tensor, context: Context, hint: Tensor | None = None
    ) -> list[Tensor]:
        """What the blocks make, one after another, of the tokens and a hint (B, n, width)."""
        h, grid, turn = self.enters(x)
        told: Tensor = self.told(e)
        h, seen = h if hint is None else h + hint, list[Tensor]()
        for block in self.blocks:
            h = block(h, told, context, grid, turn)
            seen.append(h)
        return seen

    def through(
        self, x: Tensor, e: Tensor, context: Context, added: Sequence[Tensor] = ()
    ) -> Tensor:
        h, grid, turn = self.enters(x)
        told: Tensor = self.told(e)
        for i, block in enumerate(self.blocks):
            h = block(h, told, context, grid, turn)
            h = h + added[i] if i < len(added) else h
        shift, scale = self.modulation(e)[:, None].chunk(2, dim=2)
        h = self.leave(self.norm(h) * (1 + scale) + shift)
        return unpatchify(h, self.patch, grid)

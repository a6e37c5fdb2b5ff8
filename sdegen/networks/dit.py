"""DiT: a transformer over patches, told time and class by scales, shifts and gates."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.networks.attention import (
    Context,
    CrossAttention,
    SelfAttention,
    name_layers,
)
from sdegen.networks.conditioned import Conditioned
from sdegen.networks.layers import refuse_sizes, zeroed
from sdegen.networks.patches import patchify, sincos, unpatchify
from sdegen.networks.temporal import Framewise

SILENT = ("modulation", "cross.leave")
"""Layers of a block that start at zero."""


def plain_norm(width: int) -> nn.LayerNorm:
    """Layer normalisation without weights of its own."""
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


class Block(Framewise):
    """x + g1 Attention((1 + s1) LN(x) + b1), then + g2 MLP((1 + s2) LN(x) + b2).

    b, s and g are linear in what the network is told, and zero at first, so that the block starts
    as the identity (adaLN-Zero). Between the two halves + CrossAttention(LN(x)), where there are
    tokens.  Peebles and Xie (2023), section 3.2 and figure 3; Chen et al. (2023), figure 4.
    """

    def __init__(self, width: int, heads: int, token_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = plain_norm(width), plain_norm(width)
        self.attention = SelfAttention(width, heads)
        self.norm3 = plain_norm(width) if token_width else None
        self.cross = CrossAttention(width, heads, token_width) if token_width else None
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.enter = nn.Linear(width, 4 * width)
        self.leave = nn.Linear(4 * width, width)
        self.leaves = width

    def forward(self, x: Tensor, c: Tensor, context: Context, grid: tuple[int, ...]) -> Tensor:
        b1, s1, g1, b2, s2, g2 = self.modulation(c)[:, None].chunk(6, dim=2)
        x = x + g1 * self.attention(self.norm1(x) * (1 + s1) + b1, context, grid)
        if self.cross is not None and self.norm3 is not None:
            x = x + self.cross(self.norm3(x), context, grid)
        h = self.enter(self.norm2(x) * (1 + s2) + b2)
        h = self.leave(F.gelu(h, approximate="tanh"))
        return self.over_time(x + g2 * h, context)


class DiT(Conditioned):
    """A transformer for states x (B, channels, *space), images or series by ``dims``; its output
    starts at zero.

    A state is cut into patches of side ``patch``, n = H W / patch**2 of them; each is a token of
    ``width`` numbers, to which sines and cosines of its place are added, made for the grid at
    hand. ``depth`` blocks follow, whose MLPs are four times as wide, and one layer that makes
    patches again.  Peebles and Xie (2023), table 1: depth, width and heads are 12, 384, 6 (S),
    12, 768, 12 (B), 24, 1024, 16 (L) and 28, 1152, 16 (XL), each with patches of 2, 4 or 8.

    How it is called, and what it can be told, is ``Conditioned``'s.
    Raises ValueError for settings that make no network, as heads that do not divide the width,
    and as ``Conditioned`` does.
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
        if width % (2 * dims):
            raise ValueError(
                f"width = {width}, expected a multiple of {2 * dims}: a place has as many sines "
                f"as cosines of each of its {dims} coordinates."
            )
        super().__init__(
            channels, dims, patch, width, classes, numbers, beside, token_width, words, length
        )
        self.width, self.patch = width, patch
        self.enter = nn.Linear((channels + beside) * patch**dims, width)
        self.blocks = nn.ModuleList(Block(width, heads, token_width) for _ in range(depth))
        self.norm = plain_norm(width)
        self.modulation = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, (out or channels) * patch**dims)
        self._start()
        name_layers(self)

    def _start(self) -> None:
        """Weights as published, Glorot's and zero at the end; but not N(0, 0.02) for what is told,
        which at a tenth of the published width would be as good as silent."""
        named = [("enter", self.enter), *self.blocks.named_modules()]
        for name, layer in named:
            if isinstance(layer, nn.Linear) and not name.endswith(SILENT):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        zeroed(self.modulation)
        zeroed(self.leave)

    def enters(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The tokens of a state, with their places, and the grid of these."""
        grid = tuple(side // self.patch for side in x.shape[2:])
        h: Tensor = self.enter(patchify(x, self.patch))
        return h + sincos(grid, self.width, h), grid

    def encode(
        self, x: Tensor, e: Tensor, context: Context, hint: Tensor | None = None
    ) -> list[Tensor]:
        """What the blocks make, one after another, of the tokens and a hint (B, n, width)."""
        h, grid = self.enters(x)
        h, seen = h if hint is None else h + hint, list[Tensor]()
        for block in self.blocks:
            h = block(h, e, context, grid)
            seen.append(h)
        return seen

    def through(
        self, x: Tensor, e: Tensor, context: Context, added: Sequence[Tensor] = ()
    ) -> Tensor:
        h, grid = self.enters(x)
        for i, block in enumerate(self.blocks):
            h = block(h, e, context, grid)
            h = h + added[i] if i < len(added) else h
        shift, scale = self.modulation(e)[:, None].chunk(2, dim=2)
        h = self.leave(self.norm(h) * (1 + scale) + shift)
        return unpatchify(h, self.patch, grid)

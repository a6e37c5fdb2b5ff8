"""A compact U-Net, for states that are images, series or volumes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.networks.attention import (
    NOTHING,
    Context,
    PixelAttention,
    PixelCrossAttention,
    name_layers,
)
from sdegen.networks.conditioned import Conditioned
from sdegen.networks.layers import (
    CONV,
    group_norm,
    refuse_levels,
    refuse_sizes,
    zeroed,
)
from sdegen.networks.temporal import Framewise
from sdegen.networks.wavelet import Gated


class Residual(nn.Module):
    """Two convolutions of width 3 beside a skip; (t, y) scales and shifts the second
    normalisation.

    (B, enter, *space), (B, width) -> (B, leave, *space), or what ``resample``, a module without
    parameters or ``Gated``, makes of that space: of the state inside, before the first
    convolution, and of the skip. ``join`` puts skip and change together, x + h where it is None.
    Adaptive group normalisation and resampling as in Dhariwal and Nichol (2021), sections 3, 3.1.
    """

    def __init__(
        self,
        enter: int,
        leave: int,
        width: int,
        dropout: float,
        dims: int = 2,
        resample: nn.Module | None = None,
        join: nn.Module | None = None,
    ) -> None:
        super().__init__()
        conv = CONV[dims]
        self.norm1 = group_norm(enter)
        self.conv1 = conv(enter, leave, 3, padding=1)
        self.condition = nn.Linear(width, 2 * leave)
        self.norm2 = group_norm(leave)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(conv(leave, leave, 3, padding=1))
        self.skip = nn.Identity() if enter == leave else conv(enter, leave, 1)
        self.resample, self.join, self.leaves = resample, join, leave

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        per_channel: Tensor = self.condition(c)
        scale, shift = per_channel.unflatten(1, (-1, *[1] * (x.ndim - 2))).chunk(2, dim=1)
        h: Tensor = F.silu(self.norm1(x))
        if self.resample is not None:
            told = (c,) if isinstance(self.resample, Gated) else ()
            h, x = self.resample(h, *told), self.resample(x, *told)
        h = self.conv1(h)
        h = self.norm2(h) * (1 + scale) + shift
        h = self.conv2(self.dropout(F.silu(h)))
        x = self.skip(x)
        return x + h if self.join is None else self.join(x, h)


class Stage(Framewise):
    """A residual block and, where asked for, attention to all pixels, then to tokens."""

    axis = 1

    def __init__(
        self,
        residual: Residual,
        attention: PixelAttention | None,
        cross: PixelCrossAttention | None = None,
    ) -> None:
        super().__init__()
        self.residual, self.attention, self.cross = residual, attention, cross
        self.leaves = residual.leaves

    def forward(self, x: Tensor, c: Tensor, context: Context = NOTHING) -> Tensor:
        h: Tensor = self.residual(x, c)
        if self.attention is not None:
            h = self.attention(h, context)
        if self.cross is not None:
            h = self.cross(h, context)
        return self.over_time(h, context)


def plus(parts: list[Tensor], added: Sequence[Tensor]) -> list[Tensor]:
    """Sums of each part and what is added to it; the parts themselves where that is nothing."""
    return [a + b for a, b in zip(parts, added, strict=True)] if added else parts


class UNet(Conditioned):
    """A network for states x (B, channels, *space): images, or series and volumes by ``dims``; its
    output starts at zero.

    ``dims`` is the number of spatial dimensions: 1 for series (B, channels, L), 2 for images
    (B, channels, H, W), 3 for volumes (B, channels, D, H, W). Level i has width * mults[i]
    channels and 1 / 2**i of the resolution, so each of L, H, W, D must be a multiple of
    2**(len(mults) - 1): nothing is padded, since what is made up at an edge would be learned.
    On its way down and on its way up each level runs ``blocks`` residual blocks, with attention
    where ``attention`` lists i; one more block with attention stands at the bottom. Every block
    on the way up also sees what its counterpart on the way down has made. Ho et al. (2020),
    appendix B.

    How it is called, and what it can be told, is ``Conditioned``'s.
    Raises ValueError for settings that make no network, and as ``Conditioned`` does.
    """

    remedy = "fewer mults"

    def __init__(
        self,
        channels: int,
        width: int = 64,
        mults: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (1,),
        classes: int = 0,
        dropout: float = 0.0,
        heads: int = 4,
        dims: int = 2,
        beside: int = 0,
        numbers: Sequence[str] = (),
        out: int | None = None,
        token_width: int = 0,
        words: int = 0,
        length: int = 77,
    ) -> None:
        refuse_sizes(dims, channels=channels, width=width, out=out)
        refuse_levels(mults, blocks, attention, dropout)
        multiple = 2 ** (len(mults) - 1)
        super().__init__(
            channels, dims, multiple, width, classes, numbers, beside, token_width, words, length
        )

        def stage(enter: int, leave: int, attend: bool) -> Stage:
            residual = Residual(enter, leave, width, dropout, dims)
            if not attend:
                return Stage(residual, None)
            cross = PixelCrossAttention(leave, heads, token_width) if token_width else None
            return Stage(residual, PixelAttention(leave, heads), cross)

        # Before each stage of the way down stands a module that makes its input, after each of
        # the way up one that passes its output on: they change the level, or do nothing.
        self.shrink, self.down = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        finer = channels  # of the level above; above the first stands the state itself
        for i, mult in enumerate(mults):
            here, attend = width * mult, i in attention
            enter = finer if i else channels + beside
            shrink = CONV[dims](enter, here, 3, stride=2 if i else 1, padding=1)
            grow = self._upsample(here, finer) if i else self._head(here, out or finer)
            self.shrink += [shrink, *(nn.Identity() for _ in range(blocks - 1))]
            self.down += [stage(here, here, attend) for _ in range(blocks)]
            self.up += [stage(2 * here, here, attend) for _ in range(blocks)]
            self.grow += [grow, *(nn.Identity() for _ in range(blocks - 1))]
            finer = here
        self.middle = stage(finer, finer, True)
        name_layers(self)

    def _upsample(self, enter: int, leave: int) -> nn.Module:
        conv = CONV[self.dims](enter, leave, 3, padding=1)
        return nn.Sequential(nn.Upsample(scale_factor=2), conv)

    def _head(self, enter: int, leave: int) -> nn.Module:
        conv = zeroed(CONV[self.dims](enter, leave, 3, padding=1))
        return nn.Sequential(group_norm(enter), nn.SiLU(), conv)

    def through(
        self, x: Tensor, e: Tensor, context: Context, added: Sequence[Tensor] = ()
    ) -> Tensor:
        *seen, h = plus(self.encode(x, e, context), added)
        for stage, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            h = grow(stage(torch.cat([h, seen.pop()], dim=1), e, context))
        return h

    def encode(
        self, x: Tensor, e: Tensor, context: Context, hint: Tensor | None = None
    ) -> list[Tensor]:
        """What the way down makes, block by block, and the middle last; a hint is added to the
        first convolution's output."""
        h, seen = x, list[Tensor]()
        for shrink, stage in zip(self.shrink, self.down, strict=True):
            h = shrink(h) if seen or hint is None else shrink(h) + hint
            h = stage(h, e, context)
            seen.append(h)
        return [*seen, self.middle(h, e, context)]

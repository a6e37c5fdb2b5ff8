"""A compact U-Net, for states that are images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.networks.embedding import Conditioning


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with about four channels a group, and at most 32 groups."""
    return nn.GroupNorm(math.gcd(channels, min(32, max(1, channels // 4))), channels)


def zeroed(layer: nn.Module) -> nn.Module:
    """The same layer with its parameters at zero, so that what it ends starts out silent."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a skip; (t, y) scales and shifts the second normalisation.

    (B, enter, H, W), (B, width) -> (B, leave, H, W). Adaptive group normalisation as in Dhariwal
    and Nichol (2021), section 3.1.
    """

    def __init__(self, enter: int, leave: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = group_norm(enter)
        self.conv1 = nn.Conv2d(enter, leave, 3, padding=1)
        self.condition = nn.Linear(width, 2 * leave)
        self.norm2 = group_norm(leave)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(leave, leave, 3, padding=1))
        self.skip = nn.Identity() if enter == leave else nn.Conv2d(enter, leave, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.condition(c)[:, :, None, None].chunk(2, dim=1)
        h: Tensor = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h) * (1 + scale) + shift
        h = self.conv2(self.dropout(F.silu(h)))
        x = self.skip(x)
        return x + h


class Attention(nn.Module):
    """Every pixel attends to every pixel: (B, C, H, W) -> (B, C, H, W), with a skip around it.

    The fused kernels have no forward mode and no second derivatives; who needs them calls the
    network inside ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"heads = {heads} does not divide a level of {channels} channels.")
        self.heads = heads
        self.norm = group_norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.leave = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (B, H W, C)
        q, k, v = self.qkv(pixels).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v)  # (B, heads, H W, C / heads)
        h = self.leave(h.transpose(1, 2).flatten(2))
        return x + h.transpose(1, 2).unflatten(2, x.shape[2:])


class Stage(nn.Module):
    """A residual block and, where asked for, attention."""

    def __init__(self, residual: Residual, attention: Attention | None) -> None:
        super().__init__()
        self.residual = residual
        self.attention = attention or nn.Identity()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        h: Tensor = self.attention(self.residual(x, c))
        return h


class UNet(nn.Module):
    """A network for images x (B, channels, H, W); its output starts at zero.

    Level i has width * mults[i] channels and 1 / 2**i of the resolution, so H and W must be
    multiples of 2**(len(mults) - 1). On its way down and on its way up each level runs ``blocks``
    residual blocks, with attention where ``attention`` lists i; one more block with attention
    stands at the bottom. Every block on the way up also sees what its counterpart on the way
    down has made. Ho et al. (2020), appendix B.

    ``net(x, t, y=None)``; see Conditioning for t (B,) and the class labels y (B,).
    Raises ValueError for an x of another shape.
    """

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
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise ValueError(f"blocks = {blocks}, expected 1 or more in each level.")
        if not mults or not set(attention) <= set(range(len(mults))):
            raise ValueError(
                f"attention = {list(attention)} must list levels among the {len(mults)} of "
                f"mults = {list(mults)}, which needs at least one."
            )
        self.channels = channels
        self.multiple = 2 ** (len(mults) - 1)
        self.conditioning = Conditioning(width, classes)

        def stage(enter: int, leave: int, attend: bool) -> Stage:
            residual = Residual(enter, leave, width, dropout)
            return Stage(residual, Attention(leave, heads) if attend else None)

        # Before each stage of the way down stands a module that makes its input, after each of
        # the way up one that passes its output on: they change the level, or do nothing.
        self.shrink, self.down = nn.ModuleList(), nn.ModuleList()
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        finer = channels  # of the level above; above the first stands the image itself
        for i, mult in enumerate(mults):
            here, attend = width * mult, i in attention
            shrink = nn.Conv2d(finer, here, 3, stride=2 if i else 1, padding=1)
            grow = self._upsample(here, finer) if i else self._head(here, finer)
            self.shrink += [shrink, *(nn.Identity() for _ in range(blocks - 1))]
            self.down += [stage(here, here, attend) for _ in range(blocks)]
            self.up += [stage(2 * here, here, attend) for _ in range(blocks)]
            self.grow += [grow, *(nn.Identity() for _ in range(blocks - 1))]
            finer = here
        self.middle = stage(finer, finer, True)

    @staticmethod
    def _upsample(enter: int, leave: int) -> nn.Module:
        return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(enter, leave, 3, padding=1))

    @staticmethod
    def _head(enter: int, leave: int) -> nn.Module:
        conv = zeroed(nn.Conv2d(enter, leave, 3, padding=1))
        return nn.Sequential(group_norm(enter), nn.SiLU(), conv)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        n = self.multiple
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % n or x.shape[3] % n:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (B, {self.channels}, H, W) "
                f"with H and W multiples of {n}."
            )
        c = self.conditioning(t, y, len(x))
        h: Tensor = x
        seen: list[Tensor] = []
        for shrink, stage in zip(self.shrink, self.down, strict=True):
            h = stage(shrink(h), c)
            seen.append(h)
        h = self.middle(h, c)
        for stage, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            h = grow(stage(torch.cat([h, seen.pop()], dim=1), c))
        return h

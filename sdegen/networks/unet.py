"""A compact U-Net, for states that are images, series or volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.checks import whole
from sdegen.networks.embedding import Conditioning


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with about four channels a group, and at most 32 groups."""
    return nn.GroupNorm(math.gcd(channels, min(32, max(1, channels // 4))), channels)


def zeroed(layer: nn.Module) -> nn.Module:
    """The same layer with its parameters at zero, so that what it ends starts out silent."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


CONV: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
"""A convolution by its number of spatial dimensions."""

AXES = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}
"""The letters of the spatial dimensions."""


class Residual(nn.Module):
    """Two convolutions of width 3 beside a skip; (t, y) scales and shifts the second
    normalisation.

    (B, enter, *space), (B, width) -> (B, leave, *space). Adaptive group normalisation as in
    Dhariwal and Nichol (2021), section 3.1.
    """

    def __init__(self, enter: int, leave: int, width: int, dropout: float, dims: int = 2) -> None:
        super().__init__()
        conv = CONV[dims]
        self.norm1 = group_norm(enter)
        self.conv1 = conv(enter, leave, 3, padding=1)
        self.condition = nn.Linear(width, 2 * leave)
        self.norm2 = group_norm(leave)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(conv(leave, leave, 3, padding=1))
        self.skip = nn.Identity() if enter == leave else conv(enter, leave, 1)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        per_channel: Tensor = self.condition(c)
        scale, shift = per_channel.unflatten(1, (-1, *[1] * (x.ndim - 2))).chunk(2, dim=1)
        h: Tensor = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h) * (1 + scale) + shift
        h = self.conv2(self.dropout(F.silu(h)))
        x = self.skip(x)
        return x + h


class Attention(nn.Module):
    """Every pixel attends to every pixel: (B, C, *space) -> (B, C, *space), a skip around it.

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
        pixels = self.norm(x).flatten(2).transpose(1, 2)  # (B, pixels, C)
        q, k, v = self.qkv(pixels).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v)  # (B, heads, pixels, C / heads)
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

    ``net(x, t, y=None, c=None)``; see Conditioning for t (B,), the class labels y (B,) and further
    numbers by name. With ``beside = k > 0`` it also sees a picture c (B, k, *space) beside x, as
    Palette's does what it restores: Saharia et al. (2022b), section 3. c is not scaled with x.
    ``out``: channels of its output, where they are not x's, as twice as many for two heads.
    Raises ValueError for an x or c of another shape, and for a c that is missing or not expected.
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
        dims: int = 2,
        beside: int = 0,
        numbers: Sequence[str] = (),
        out: int | None = None,
    ) -> None:
        super().__init__()
        whole("beside", beside, 0)
        if dims not in CONV:
            raise ValueError(f"dims = {dims}, expected 1 (series), 2 (images) or 3 (volumes).")
        if blocks < 1:
            raise ValueError(f"blocks = {blocks}, expected 1 or more in each level.")
        if not mults or not set(attention) <= set(range(len(mults))):
            raise ValueError(
                f"attention = {list(attention)} must list levels among the {len(mults)} of "
                f"mults = {list(mults)}, which needs at least one."
            )
        self.channels, self.dims, self.beside = channels, dims, beside
        self.multiple = 2 ** (len(mults) - 1)
        self.conditioning = Conditioning(width, classes, numbers)

        def stage(enter: int, leave: int, attend: bool) -> Stage:
            residual = Residual(enter, leave, width, dropout, dims)
            return Stage(residual, Attention(leave, heads) if attend else None)

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

    def _upsample(self, enter: int, leave: int) -> nn.Module:
        conv = CONV[self.dims](enter, leave, 3, padding=1)
        return nn.Sequential(nn.Upsample(scale_factor=2), conv)

    def _head(self, enter: int, leave: int) -> nn.Module:
        conv = zeroed(CONV[self.dims](enter, leave, 3, padding=1))
        return nn.Sequential(group_norm(enter), nn.SiLU(), conv)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | int | None = None,
        c: Tensor | None = None,
        **numbers: Tensor | float,
    ) -> Tensor:
        self._check(x.shape)
        e = self.conditioning(t, y, len(x), numbers)
        h: Tensor = self._with(x, c)
        seen: list[Tensor] = []
        for shrink, stage in zip(self.shrink, self.down, strict=True):
            h = stage(shrink(h), e)
            seen.append(h)
        h = self.middle(h, e)
        for stage, grow in zip(reversed(self.up), reversed(self.grow), strict=True):
            h = grow(stage(torch.cat([h, seen.pop()], dim=1), e))
        return h

    def _with(self, x: Tensor, c: Tensor | None) -> Tensor:
        """x and what stands beside it, (B, channels + beside, *space)."""
        wanted = (len(x), self.beside, *x.shape[2:])
        if c is None and not self.beside:
            return x
        if c is None:
            raise ValueError(
                f"This network has beside = {self.beside}: it is given c of shape {wanted}, what "
                "is seen of the data, as model.given(c=...)."
            )
        if not self.beside:
            raise ValueError(
                "c was given, but the network sees nothing beside x: build it with beside > 0, "
                "or call it without c."
            )
        if c.shape != wanted:
            raise ValueError(f"c has shape {tuple(c.shape)}, expected {wanted}.")
        return torch.cat([x, c.to(x)], dim=1)

    def _check(self, shape: torch.Size) -> None:
        """ValueError unless states of this shape go down to the lowest level and up again."""
        n, names = self.multiple, AXES[self.dims]
        fits = len(shape) == 2 + self.dims and shape[1] == self.channels
        wrong = next((size for size in shape[2:] if size % n), 0) if fits else 0
        if fits and not wrong:
            return
        below, above = wrong // n * n, (wrong // n + 1) * n
        near = f"{below} or {above}" if below else str(above)
        remedy = f": cut or pad {wrong} to {near}, or take fewer mults" if wrong else ""
        raise ValueError(
            f"x has shape {tuple(shape)}, expected (B, {self.channels}, {', '.join(names)}) "
            f"with {' and '.join(names)} multiples of {n}{remedy} (dims = {self.dims})."
        )

"""A U-Net that keeps magnitudes.  Karras et al. (2024b)"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.checks import whole
from sdegen.networks.embedding import OTHERS
from sdegen.networks.layers import refuse_levels, refuse_misfits, refuse_sizes, with_beside
from sdegen.networks.magnitude import (
    POOL,
    MPAttention,
    MPBlock,
    MPConditioning,
    MPConv,
    mp_cat,
    put_back,
)


class EDM2(nn.Module):
    """A network for states x (B, channels, *space) whose weights and activations keep their size;
    its output starts at zero, by a gain.

    Its settings are those of ``UNet``: level i has width * mults[i] channels and 1 / 2**i of the
    resolution, ``blocks`` blocks on the way down and as many on the way up, with attention where
    ``attention`` lists i, and one more block with attention at the bottom. There are no biases: a
    channel of ones beside the input is where an offset comes from.

    ``net(x, t, y=None, c=None, **numbers)``: all as of ``Conditioned``, but it takes no tokens and
    no edit. It is trained with larger learning rates than others, Adam's 1e-2 to 6e-2 (the fewer
    steps, the larger), which have to fall: ``train.schedule=rsqrt``.
    While it trains, a call first puts the weights back to their size (see ``put_back``): copies
    that are not trained are to be in eval mode.

    Raises ValueError for settings that make no network, and as ``Conditioned`` does.
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
        refuse_sizes(dims, channels=channels, width=width, out=out)
        refuse_levels(mults, blocks, attention, dropout)
        self.channels, self.dims, self.beside, self.blocks = channels, dims, beside, blocks
        self.multiple, wide = 2 ** (len(mults) - 1), width * max(mults)
        self.conditioning = MPConditioning(wide, classes, numbers)

        def block(enter: int, leave: int, up: bool, attend: bool) -> MPBlock:
            attention = MPAttention(leave, heads) if attend else None
            return MPBlock(
                enter, leave, wide, dims=dims, up=up, dropout=dropout, attention=attention
            )

        self.enter = MPConv(channels + beside + 1, width * mults[0], 3, dims)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = width * mults[0]
        for i, mult in enumerate(mults):
            for _ in range(blocks):
                self.down.append(block(before, width * mult, False, i in attention))
                before = width * mult
        self.middle = block(before, before, False, True)
        for i, mult in reversed(list(enumerate(mults))):
            for _ in range(blocks):
                self.up.append(block(before + width * mult, width * mult, True, i in attention))
                before = width * mult
        self.leave = MPConv(before, out or channels, 3, dims)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | int | None = None,
        c: Tensor | None = None,
        **numbers: Tensor | float,
    ) -> Tensor:
        refuse_misfits(x.shape, self.channels, self.dims, self.multiple, "fewer mults")
        if self.training:
            put_back(self)
        # As None tokens and edits are those of networks that take some.
        numbers = {k: v for k, v in numbers.items() if k not in OTHERS or v is not None}
        if strange := numbers.keys() & {*OTHERS}:
            raise ValueError(
                f"EDM2 takes no {', '.join(sorted(strange))}: take net=unet, or leave it out."
            )
        e = self.conditioning(t, y, len(x), numbers)
        seen: list[Tensor] = []
        h = with_beside(x, c, self.beside)
        h = self.enter(torch.cat([h, torch.ones_like(x[:, :1])], dim=1))
        for i, block in enumerate(self.down):
            if i and i % self.blocks == 0:
                h = POOL[self.dims](h, 2)
            h = block(h, e)
            seen.append(h)
        h = self.middle(h, e)
        for i, block in enumerate(self.up):
            if i and i % self.blocks == 0:
                h = F.interpolate(h, scale_factor=2)
            h = block(mp_cat(h, seen.pop()), e)
        return self.leave(h, self.gain)  # type: ignore[no-any-return]

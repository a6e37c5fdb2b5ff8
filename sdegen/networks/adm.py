"""ADM's U-Net: residual blocks that resample, heads by channels, attention by level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.checks import flag
from sdegen.networks.attention import (
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
from sdegen.networks.resampling import Nearest, Pool
from sdegen.networks.unet import Residual, Stage, plus
from sdegen.networks.wavelet import Gated


def refuse_learned(name: str, part: object) -> None:
    """ValueError for a part, shared by all levels, that is no module or has parameters."""
    if part is None or (isinstance(part, nn.Module) and not any(True for _ in part.parameters())):
        return
    raise ValueError(
        f"{name} is a module without parameters, as sdegen.networks.FIRDown(), which all levels "
        f"share, but it is {part!r:.80}."
    )


class ADM(Conditioned):
    """A network for states x (B, channels, *space): images, or series and volumes by ``dims``; its
    output starts at zero.

    A U-Net of levels of width * mults[i] channels and 1 / 2**i of the resolution. A level runs
    ``blocks`` residual blocks on its way down and blocks + 1 on its way up, with attention where
    ``attention`` lists i, in heads of ``head_width`` channels; between levels stand residual
    blocks that resample; the bottom has two with attention between them. Every output of the way
    down, those of the resampling blocks and the first convolution's too, is seen once on the way
    up. What the blocks are told is 4 width wide.  Dhariwal and Nichol (2021), section 3 and
    table 4, where width is 192 or 256, blocks 2 or 3, head_width 64.

    down, up: modules without parameters that halve and double the resolution, ``Pool()`` and
              ``Nearest()`` where None; ``FIRDown()`` and ``FIRUp()`` are NCSN++'s.
    join:     a module that puts skip x and change h together, x + h where None; ``Rescaled()`` is
              NCSN++'s.
    wavelets: levels change by Haar's bands instead, each times a gate that is learned (``Gated``).

    How it is called, and what it can be told, is ``Conditioned``'s.
    Raises ValueError for settings that make no network, as a head_width that does not divide a
    level that attends, a down, up or join with parameters, and a down or up beside wavelets, and
    as ``Conditioned`` does.
    """

    remedy = "fewer mults"

    def __init__(
        self,
        channels: int,
        width: int = 128,
        mults: Sequence[int] = (1, 2, 2),
        blocks: int = 2,
        attention: Sequence[int] = (1, 2),
        classes: int = 0,
        dropout: float = 0.0,
        head_width: int = 64,
        dims: int = 2,
        down: nn.Module | None = None,
        up: nn.Module | None = None,
        join: nn.Module | None = None,
        wavelets: bool = False,
        beside: int = 0,
        numbers: Sequence[str] = (),
        out: int | None = None,
        token_width: int = 0,
        words: int = 0,
        length: int = 77,
    ) -> None:
        refuse_sizes(dims, channels=channels, width=width, out=out, head_width=head_width)
        refuse_levels(mults, blocks, attention, dropout)
        multiple, wide = 2 ** (len(mults) - 1), 4 * width
        super().__init__(
            channels, dims, multiple, wide, classes, numbers, beside, token_width, words, length
        )
        for name, part in {"down": down, "up": up, "join": join}.items():
            refuse_learned(name, part)
        if flag("wavelets", wavelets) and not (down is None and up is None):
            raise ValueError("wavelets change the levels by themselves: leave out down and up.")
        down, up = Pool() if down is None else down, Nearest() if up is None else up

        def residual(enter: int, leave: int, resample: nn.Module | None = None) -> Residual:
            return Residual(enter, leave, wide, dropout, dims, resample, join)

        def between(here: int, usual: nn.Module) -> Stage:
            gated = Gated(here, wide, dims, usual is up) if wavelets else usual
            return Stage(residual(here, here, gated), None)

        def stage(enter: int, leave: int, attend: bool) -> Stage:
            if not attend:
                return Stage(residual(enter, leave), None)
            if leave % head_width:
                raise ValueError(
                    f"head_width = {head_width} does not divide a level of {leave} channels."
                )
            heads = leave // head_width
            cross = PixelCrossAttention(leave, heads, token_width) if token_width else None
            return Stage(residual(enter, leave), PixelAttention(leave, heads), cross)

        here = width
        self.enter = CONV[dims](channels + beside, here, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        skips = [here]
        for i, mult in enumerate(mults):
            if i:
                self.down.append(between(here, down))
                skips.append(here)
            for _ in range(blocks):
                self.down.append(stage(here, width * mult, i in attention))
                here = width * mult
                skips.append(here)
        self.middle = nn.ModuleList([stage(here, here, True), Stage(residual(here, here), None)])
        for i, mult in reversed(list(enumerate(mults))):
            level = nn.ModuleList()
            for _ in range(blocks + 1):
                level.append(stage(here + skips.pop(), width * mult, i in attention))
                here = width * mult
            self.up.append(level)
        self.grow = nn.ModuleList(between(width * mult, up) for mult in reversed(mults[1:]))
        self.norm = group_norm(here)
        self.leave = zeroed(CONV[dims](here, out or channels, 3, padding=1))
        name_layers(self)

    def encode(
        self, x: Tensor, e: Tensor, context: Context, hint: Tensor | None = None
    ) -> list[Tensor]:
        """What the way down makes, the first convolution's output and a hint first, and the
        middle last."""
        h: Tensor = self.enter(x)
        h = h if hint is None else h + hint
        seen = [h]
        for stage in self.down:
            h = stage(h, e, context)
            seen.append(h)
        for stage in self.middle:
            h = stage(h, e, context)
        return [*seen, h]

    def through(
        self, x: Tensor, e: Tensor, context: Context, added: Sequence[Tensor] = ()
    ) -> Tensor:
        *seen, h = plus(self.encode(x, e, context), added)
        for i, level in enumerate(self.up):
            if i:
                h = self.grow[i - 1](h, e, context)
            for stage in level:  # type: ignore[attr-defined]
                h = stage(torch.cat([h, seen.pop()], dim=1), e, context)
        out: Tensor = self.leave(F.silu(self.norm(h)))
        return out

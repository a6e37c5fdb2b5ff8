"""Half a U-Net: classifiers and encoders of noisy images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.checks import whole
from sdegen.networks.attention import PixelAttention
from sdegen.networks.embedding import Conditioning
from sdegen.networks.layers import AXES, CONV, group_norm, refuse_levels, refuse_sizes
from sdegen.networks.unet import Residual, Stage


class Trunk(nn.Module):
    """The way down of a ``UNet`` for states (B, channels, *space), and ``out`` numbers of it.

    Level i has width * mults[i] channels and 1 / 2**i of the resolution, rounded up; the mean of
    the lowest over its places goes through a linear layer. Dhariwal and Nichol (2021), sec. 4,
    whose pooling attends.

    ``net(x, t)`` -> (B, out); t the time labels (B,).
    Raises ValueError for an x of another shape, and for settings that make no network.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        width: int = 32,
        mults: Sequence[int] = (1, 2),
        blocks: int = 1,
        attention: Sequence[int] = (1,),
        heads: int = 4,
        dims: int = 2,
    ) -> None:
        super().__init__()
        refuse_sizes(dims, channels=channels, width=width)
        whole("out", out)
        refuse_levels(mults, blocks, attention)
        self.channels, self.dims = channels, dims
        self.conditioning = Conditioning(width)
        self.shrink, self.stages = nn.ModuleList(), nn.ModuleList()
        finer = channels
        for i, mult in enumerate(mults):
            for k in range(blocks):
                here = width * mult
                conv = CONV[dims](finer, here, 3, stride=2 if i and not k else 1, padding=1)
                attend = PixelAttention(here, heads) if i in attention else None
                self.shrink.append(conv)
                self.stages.append(Stage(Residual(here, here, width, 0.0, dims), attend))
                finer = here
        self.norm = group_norm(finer)
        self.leave = nn.Linear(finer, out)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if x.ndim != 2 + self.dims or x.shape[1] != self.channels:
            space = ", ".join(AXES[self.dims])
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (B, {self.channels}, {space})."
            )
        c = self.conditioning(t, None, len(x))
        for shrink, stage in zip(self.shrink, self.stages, strict=True):
            x = stage(shrink(x), c)
        out: Tensor = self.leave(F.silu(self.norm(x)).flatten(2).mean(2))
        return out

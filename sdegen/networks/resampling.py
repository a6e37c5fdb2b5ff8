"""Half and twice the resolution without weights, and how a skip and a change are put together."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
FILTER = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class Pool(nn.Module):
    """Half the resolution: the mean of two places along each axis."""

    def forward(self, x: Tensor) -> Tensor:
        half: Tensor = POOL[x.ndim - 2](x, 2)
        return half


class Nearest(nn.Module):
    """Twice the resolution: every place twice along each axis."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode="nearest")


class FIRDown(nn.Module):
    """Half the resolution, behind the filter (1, 3, 3, 1) / 8 along each axis, which takes away
    what half the places cannot show. Edges are repeated, so that a constant stays one.

    Zhang (2019), section 3; Song et al. (2021), appendix H, whose edges are zero.
    """

    def forward(self, x: Tensor) -> Tensor:
        d, c = x.ndim - 2, x.shape[1]
        taps = torch.full((4,), 3 / 8, dtype=x.dtype, device=x.device)
        taps[::3] = 1 / 8
        kernel = taps
        for _ in range(d - 1):
            kernel = kernel[..., None] * taps
        padded = F.pad(x, [1] * (2 * d), mode="replicate")
        half: Tensor = FILTER[d](padded, kernel.expand(c, 1, *kernel.shape), stride=2, groups=c)
        return half


class FIRUp(nn.Module):
    """Twice the resolution, behind the filter (1, 3, 3, 1) / 4 along each axis: a place is 3/4 of
    the nearest and 1/4 of the next one, which is linear interpolation. Edges are repeated.

    Zhang (2019), section 3; Song et al. (2021), appendix H, whose edges are zero.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2.0, mode=LINEAR[x.ndim - 2], align_corners=False)


class Rescaled(nn.Module):
    """(x + h) / sqrt 2: a skip and a change of equal variance keep it.  Song et al. (2021),
    appendix H."""

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return (x + h) / math.sqrt(2)

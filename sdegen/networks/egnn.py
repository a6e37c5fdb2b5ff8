"""A network of clouds of points, which turns as they turn and has no order, as they have none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.checks import whole
from sdegen.networks.embedding import Conditioning
from sdegen.networks.layers import refuse_sizes

RINGS, REACH = 16, 5.0
"""Distances that messages are told about by bells around them, and the largest of these."""
NEIGHBOURS = 3.0
"""Sums over the other points are divided by it, about as many as a point has near it."""


class Messages(nn.Module):
    """m_ij = f(h_i, h_j, d_ij), d_ij = |p_i - p_j|; sums are over the points that are there,

    p_i + sum_j g(m_ij) (p_i - p_j) / (1 + d_ij) + k(h_i) p_i,    h_i + u(h_i, sum_j m_ij)
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        first = partial(nn.Linear, out_features=width)
        seen = 2 * width + RINGS + 1
        self.pair = nn.Sequential(first(seen), nn.SiLU(), first(width))
        self.point = nn.Sequential(first(2 * width), nn.SiLU(), first(width))
        self.push = nn.Sequential(first(width), nn.SiLU(), zeros(width, 1))
        self.pull = nn.Sequential(first(width), nn.SiLU(), zeros(width, 1))

    def forward(self, p: Tensor, h: Tensor, both: Tensor) -> tuple[Tensor, Tensor]:
        apart = p[:, :, None] - p[:, None]
        far = (apart.square().sum(-1, keepdim=True) + 1e-6).sqrt()  # its root has a gradient at 0
        bells = torch.linspace(0, REACH, RINGS, device=p.device, dtype=p.dtype)
        seen = [each.expand(*far.shape[:3], -1) for each in (h[:, :, None], h[:, None])]
        m = self.pair(torch.cat([*seen, far, (-4 * (far - bells).square()).exp()], -1))
        m = F.silu(m) * both
        moved = (self.push(m) * both * apart / (1 + far)).sum(2) / NEIGHBOURS
        told = torch.cat([h, m.sum(2) / NEIGHBOURS], -1)
        return p + moved + self.pull(h) * p, h + self.point(told)


class EGNN(nn.Module):
    """A network for clouds x (B, dims + features, n): a point's place, then what else it has.
    Satorras et al. (2021), equations 3 to 6, as Hoogeboom et al. (2022) draw molecules with it.

    Places of the output turn and are mirrored with those of x about the origin, where clouds have
    their mean, features stay, and both go with the points' order: F(R x P) = R F(x) P. It begins
    at zero. ``net(x, t, y=None, there=None)`` -> (B, dims + features, n): there, booleans (B, n),
    are the points that a cloud has, all by default; the others are seen by none, and 0. See
    ``Conditioned`` for t, y and further numbers by name. Time and memory are of n^2 pairs.

    Raises ValueError for an x or ``there`` of another shape, and for sizes that are not whole
    numbers above 0.
    """

    def __init__(
        self,
        features: int,
        width: int = 64,
        depth: int = 4,
        dims: int = 3,
        classes: int = 0,
        numbers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        refuse_sizes(width=width, depth=depth, dims=dims)
        self.features, self.dims = whole("features", features, 0), dims
        self.conditioning = Conditioning(width, classes, numbers)
        self.enter = nn.Linear(features, width) if features else None
        self.blocks = nn.ModuleList(Messages(width) for _ in range(depth))
        self.leave = zeros(width, features) if features else None

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor | int | None = None,
        there: Tensor | None = None,
        **numbers: Tensor | float,
    ) -> Tensor:
        rows = self.dims + self.features
        if x.ndim != 3 or x.shape[1] != rows:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, expected (B, {rows}, n): {self.dims} of a place, "
                f"{self.features} features, of n points."
            )
        there = as_mask(there, x)
        x = x.masked_fill(~there[:, None], 0.0)  # 0 times what is not finite is not 0
        p, other = x.movedim(1, 2).split([self.dims, self.features], 2)
        c = self.conditioning(t, y, len(x), numbers)[:, None]
        both = (there[:, :, None] & there[:, None])[..., None]
        at, h = p, c.expand(-1, x.shape[2], -1)
        if self.enter is not None:
            h = h + self.enter(other)
        for block in self.blocks:
            at, h = block(at, h + c, both)
        out = at - p if self.leave is None else torch.cat([at - p, self.leave(h)], 2)
        return out.movedim(2, 1) * there[:, None]


def zeros(enter: int, leave: int) -> nn.Linear:
    """A layer that begins at zero."""
    layer = nn.Linear(enter, leave)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def as_mask(there: Tensor | None, x: Tensor) -> Tensor:
    """Which points there are, (B, n)."""
    shape = (len(x), x.shape[2])
    if there is None:
        return torch.ones(shape, dtype=torch.bool, device=x.device)
    if there.dtype != torch.bool or tuple(there.shape) != shape:
        raise ValueError(
            f"there is {there.dtype} of shape {tuple(there.shape)}, expected booleans {shape}, "
            "true where a cloud has a point."
        )
    return there

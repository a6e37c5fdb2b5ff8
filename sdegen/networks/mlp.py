"""A residual MLP, for states that are vectors, and for others that are taken as such."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.networks.embedding import Conditioning
from sdegen.networks.layers import refuse_sizes


class Block(nn.Module):
    """x + Linear(SiLU((1 + scale) Linear(LayerNorm(x)) + shift)), scale and shift from (t, y)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.enter = nn.Linear(width, width)
        self.condition = nn.Linear(width, 2 * width)
        self.leave = nn.Linear(width, width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        scale, shift = self.condition(c).chunk(2, dim=1)
        h = self.enter(self.norm(x)) * (1 + scale) + shift
        change: Tensor = self.leave(F.silu(h))
        return x + change


class MLP(nn.Module):
    """A network for vectors x (B, dim), of depth residual blocks; its output starts at zero.

    ``net(x, t, y=None)`` -> (B, out), out = dim unless it is given, as for the logits of a judge;
    see ``Conditioned`` for t, y and further numbers by name.
    Raises ValueError if x is not (B, dim), and for sizes that are not whole numbers above 0.
    """

    def __init__(
        self,
        dim: int,
        width: int = 128,
        depth: int = 3,
        classes: int = 0,
        out: int | None = None,
        numbers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        refuse_sizes(dim=dim, width=width, depth=depth, out=out)
        self.dim = dim
        self.conditioning = Conditioning(width, classes, numbers)
        self.enter = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, dim if out is None else out)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | int | None = None, **numbers: Tensor | float
    ) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, {self.dim}).")
        c = self.conditioning(t, y, len(x), numbers)
        h: Tensor = self.enter(x)
        for block in self.blocks:
            h = block(h, c)
        h = self.leave(self.norm(h))
        return h


class Flattened(nn.Module):
    """A network of vectors (B, n) as one of states (B, *) of n values: each is known by its place.

    ``net(x, t)`` -> what the network of vectors makes of it. For judges of small images, whose
    mean over places would not know where anything is.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.net(x.flatten(1), t)
        return out

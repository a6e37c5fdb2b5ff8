"""Layers that keep magnitudes: what is of variance 1 goes on so.  Karras et al. (2024b)

Weights are directions, and activations need no group norms: nothing grows in training, so that a
weight's learning rate means the same from the first step to the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.nn import functional as F

from sdegen.networks.attention import head_width
from sdegen.networks.embedding import Told, exact

CONVOLVE: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
"""A convolution by its number of spatial dimensions."""

POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
"""A mean over neighbours by the number of dimensions."""

SILU = 0.596
"""The root mean square of silu(x), x ~ N(0, 1)."""

LARGEST = 256.0
"""Activations are cut here, for 16-bit numbers."""

LEAST = 1e-4
"""The least that anything is divided by."""


def size_of(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The root mean square of x over some dimensions, which stay with a length of 1."""
    norm = torch.linalg.vector_norm(x, dim=dims, keepdim=True, dtype=exact(x))
    return norm / math.sqrt(math.prod([x.shape[d] for d in dims]))


def unit(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """x with a root mean square of 1 over some dimensions."""
    return x / (LEAST + size_of(x, dims)).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """silu(x) / 0.596.  Karras et al. (2024b), eq. 81."""
    return F.silu(x) / SILU


def mp_sum(a: Tensor, b: Tensor, t: float = 0.3) -> Tensor:
    """((1 - t) a + t b) / sqrt((1 - t)^2 + t^2), of a's type.  Karras et al. (2024b), eq. 88.

    (Under autocast a layer's result is of another type than rows of a table.)
    """
    return torch.lerp(a, b.to(a.dtype), t) / math.hypot(1 - t, t)


def mp_cat(a: Tensor, b: Tensor) -> Tensor:
    """Channels of both, each as loud in all as the other.  Karras et al. (2024b), eq. 103.

    (B, Na, *), (B, Nb, *) -> (B, Na + Nb, *).
    """
    n, m = a.shape[1], b.shape[1]
    scale = math.sqrt((n + m) / 2)
    return torch.cat([a * (scale / math.sqrt(n)), b * (scale / math.sqrt(m))], dim=1)


class Directions(nn.Module):
    """Weights (leave, enter, *kernel) of which each output's is a unit vector, without biases.

    The parameter has entries of root mean square 1, and is put back there by ``put_back`` (forced
    weight normalisation, Karras et al. (2024b), eq. 66): a step of the optimiser turns it and
    does not lengthen it. Whatever its size is, what is used is of unit size.
    """

    def __init__(self, enter: int, leave: int, *kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(leave, enter, *kernel))

    @property
    def over(self) -> tuple[int, ...]:
        """The dimensions that a direction has."""
        return tuple(range(1, self.weight.ndim))

    def unit(self, gain: Tensor | float = 1.0) -> Tensor:
        """The weights in use, each output's of norm ``gain``."""
        return unit(self.weight, self.over) * (gain / math.sqrt(self.weight[0].numel()))


@_disable_dynamo  # as torch.compiler.disable, which would import the compiler here and now
def put_back(net: nn.Module) -> None:
    """Write all directions of a network in training at their size; a network calls it first.

    Where blocks are computed twice nothing is written between, and a compiler, which would keep
    such a writing to itself, is left out. A direction that is at its size to rounding stays as it
    is, to the last bit: the loss may call the network once more in a step, and goes back through
    both calls. In eval mode nothing is written, nor inside torch.func's transforms, which forbid
    it.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return
    for each in net.modules():
        if isinstance(each, Directions) and each.training and each.weight.requires_grad:
            weight = each.weight.data  # past autograd, which has the last call's to go through
            size = size_of(weight, each.over)
            there = (size - 1).abs() < 8 * torch.finfo(weight.dtype).eps
            weight.div_(size.clamp(min=LEAST).masked_fill(there, 1))


class MPLinear(Directions):
    """(B, ..., enter) -> (B, ..., leave)."""

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        return F.linear(x, self.unit(gain))


class MPConv(Directions):
    """(B, enter, *space) -> (B, leave, *space), over ``size`` neighbours each way."""

    def __init__(self, enter: int, leave: int, size: int, dims: int) -> None:
        super().__init__(enter, leave, *[size] * dims)
        self.dims = dims

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        weight = self.unit(gain)
        return CONVOLVE[self.dims](x, weight, padding=weight.shape[-1] // 2)


class Fourier(nn.Module):
    """Numbers (B,) as sqrt(2) cos(2 pi (f t + phi)), (B, count), f ~ N(0, 1) and phi uniform,
    drawn once.  Karras et al. (2024b), eq. 75."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        # Rounded to bfloat16, so that a network cast to it keeps them.
        self.register_buffer("frequencies", torch.randn(count).bfloat16().float())
        self.register_buffer("phases", torch.rand(count).bfloat16().float())

    def forward(self, t: Tensor) -> Tensor:
        turns = t.to(exact(t))[:, None] * self.frequencies + self.phases
        return math.sqrt(2) * (2 * math.pi * turns).cos()


class MPConditioning(Told):
    """Time label, class and numbers, as ``Told`` has them, as one vector (B, width) of variance 1;
    what numbers add begins at zero, by a gain each."""

    def __init__(self, width: int, classes: int, numbers: Sequence[str]) -> None:
        super().__init__(classes, numbers)
        self.waves = Fourier(width)
        self.time = MPLinear(width, width)
        self.label = MPLinear(classes + 1, width) if classes else None
        self.told = nn.ModuleDict({f"of_{n}": MPLinear(width, width) for n in numbers})
        self.gains = nn.ParameterDict({f"of_{n}": torch.zeros(()) for n in numbers})

    def vectors(self, t: Tensor, y: Tensor | None, numbers: Mapping[str, Tensor]) -> Tensor:
        dtype = self.time.weight.dtype
        h: Tensor = self.time(self.waves(t).to(dtype))
        if self.label is not None and y is not None:
            # The columns of the weights, whose entries are of size 1.
            table = self.label.unit(math.sqrt(self.classes + 1)).T
            h = mp_sum(h, self.of_class(table, y), 0.5)
        for name, value in numbers.items():
            waves = self.waves(value).to(dtype)
            h = h + self.told[f"of_{name}"](waves, self.gains[f"of_{name}"])
        return mp_silu(h)


class MPAttention(nn.Module):
    """Every pixel attends to every pixel by the angle between them: queries, keys and values of
    size 1, as Karras et al. (2024b) have it.  (B, C, *space) -> (B, C, *space)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        head_width(channels, heads)
        self.heads = heads
        self.qkv = MPLinear(channels, 3 * channels)
        self.leave = MPLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2).transpose(1, 2)  # (B, pixels, C)
        found = self.qkv(pixels).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = unit(found, (-1,))
        h = F.scaled_dot_product_attention(q, k, v)  # (B, heads, pixels, C / heads)
        h = self.leave(h.transpose(1, 2).flatten(2))
        return mp_sum(x, h.transpose(1, 2).unflatten(2, x.shape[2:]))


class MPBlock(nn.Module):
    """Two convolutions beside a skip, the channels between them scaled by (t, y); half, once or
    twice the resolution.  Karras et al. (2024b), fig. 21.

    (B, enter, *space), (B, wide) -> (B, leave, *space').

    up: whether it stands on the way up, where its input is not brought to size 1 first.
    """

    def __init__(
        self,
        enter: int,
        leave: int,
        wide: int,
        *,
        dims: int,
        up: bool,
        dropout: float,
        attention: MPAttention | None,
    ) -> None:
        super().__init__()
        self.up, self.dropout = up, dropout
        self.skip = MPConv(enter, leave, 1, dims) if enter != leave else None
        self.conv1 = MPConv(enter if up else leave, leave, 3, dims)
        self.conv2 = MPConv(leave, leave, 3, dims)
        self.condition = MPLinear(wide, leave)
        self.gain = nn.Parameter(torch.zeros(()))
        self.attention = attention or nn.Identity()

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        if not self.up:
            x = unit(x if self.skip is None else self.skip(x), (1,))
        h = self.conv1(mp_silu(x))
        scale = 1 + self.condition(c, self.gain)
        h = mp_silu(h * scale.unflatten(1, (-1, *[1] * (x.ndim - 2))))
        h = self.conv2(F.dropout(h, self.dropout, self.training))
        if self.up and self.skip is not None:
            x = self.skip(x)
        x = self.attention(mp_sum(x, h))
        return x.clamp(-LARGEST, LARGEST)

"""Small things that networks are made of: convolutions by dimension, norms, silence, refusals."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from sdegen.checks import number, optional, tensor, whole

CONV: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
"""A convolution by its number of spatial dimensions."""

AXES = {1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}
"""The letters of the spatial dimensions."""

STATES = {1: "series", 2: "images", 3: "volumes"}
"""What states are called by their spatial dimensions."""


class GroupNorm(nn.GroupNorm):
    """Group normalisation that has a forward mode whatever the memory format: torch's has none of
    images whose channels come last, as MeanFlow would need."""

    def forward(self, x: Tensor) -> Tensor:
        last = not x.is_contiguous() and not torch.compiler.is_compiling()
        if last and unpack_dual(x).tangent is not None:
            x = x.contiguous()
        return super().forward(x)


def group_norm(channels: int) -> GroupNorm:
    """Group normalisation with about four channels a group, and at most 32 groups."""
    return GroupNorm(math.gcd(channels, min(32, max(1, channels // 4))), channels)


def zeroed(layer: nn.Module) -> nn.Module:
    """The same layer with its parameters at zero, so that what it ends starts out silent."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def refuse_sizes(dims: int = 1, most: int = 3, out: int | None = None, **sizes: int) -> None:
    """ValueError unless a network has from 1 to ``most`` spatial dimensions, and all of its sizes
    are whole numbers above 0; ``out`` may be left open."""
    if isinstance(dims, bool) or dims not in [*STATES][:most]:
        known = " or ".join(f"{d} ({what})" for d, what in [*STATES.items()][:most])
        raise ValueError(f"dims = {dims!r}, expected {known}.")
    optional(whole, "out", out)
    for name, size in sizes.items():
        whole(name, size)


def refuse_levels(
    mults: Collection[int], blocks: int, attention: Collection[int], dropout: float = 0.0
) -> None:
    """ValueError unless a U-Net can have such levels: of whole multiples of its width, with blocks
    in each, and attention in some, and a share of its activations that is dropped."""
    for name, listed in {"mults": mults, "attention": attention}.items():
        if isinstance(listed, str) or not isinstance(listed, Collection):
            raise ValueError(f"{name} must be a list of whole numbers, but it is {listed!r}.")
    for mult in mults:
        whole("Each of mults", mult)
    levels = [*range(len(mults))]
    if not levels or any(list(attention).count(i) > 1 or i not in levels for i in attention):
        raise ValueError(
            f"attention = {list(attention)} must list levels, each once, among the {len(levels)} "
            f"of mults = {list(mults)}, which needs at least one."
        )
    whole("blocks", blocks)
    if not 0 <= number("dropout", dropout) < 1:
        raise ValueError(f"dropout = {dropout}, expected a share in [0, 1).")


def refuse_misfits(
    shape: torch.Size, channels: int, dims: int, multiple: int, remedy: str
) -> None:
    """ValueError unless a state is (B, channels, *space) with sides that are multiples, not 0."""
    names = AXES[dims]
    fits = len(shape) == 2 + dims and shape[1] == channels
    wrong = next((size for size in shape[2:] if size % multiple or not size), -1) if fits else -1
    if fits and wrong < 0:
        return
    below, above = wrong // multiple * multiple, (wrong // multiple + 1) * multiple
    near = f"{below} or {above}" if below else str(above)
    said = f": cut or pad {wrong} to {near}, or take {remedy}" if wrong > 0 else ""
    raise ValueError(
        f"x has shape {tuple(shape)}, expected (B, {channels}, {', '.join(names)}) "
        f"with {' and '.join(names)} multiples of {multiple}{said} (dims = {dims})."
    )


def with_beside(x: Tensor, c: Tensor | None, beside: int) -> Tensor:
    """x (B, C, *space) and what stands beside it, c (B, beside, *space), as one tensor; ValueError
    for a c that is missing, not expected or of another shape."""
    wanted = (len(x), beside, *x.shape[2:])
    if c is None and not beside:
        return x
    if c is None:
        raise ValueError(
            f"This network has beside = {beside}: it is given c of shape {wanted}, what "
            "is seen of the data, as model.given(c=...)."
        )
    if not beside:
        raise ValueError(
            "c was given, but the network sees nothing beside x: build it with beside > 0, "
            "or call it without c."
        )
    if tensor("c", c).shape != wanted:
        raise ValueError(f"c has shape {tuple(c.shape)}, expected {wanted}.")
    return torch.cat([x, c.to(x)], dim=1)

"""Activation checkpointing: a network's blocks keep their inputs alone, and run again on the way
back.  Chen et al. (2016)"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from sdegen.model.network import name_of

LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
"""What holds blocks, and is none itself."""


def checkpoint_blocks(net: Any) -> list[nn.Module]:
    """Let the blocks of a network forget what they compute, and compute it again for gradients.

    In place; outputs, gradients and buffers are those of before to the last bit, noise such as
    dropout's included. The blocks. ValueError for a network without blocks.
    """
    found = blocks(net) if isinstance(net, nn.Module) else []
    if not found or (len(found) == 1 and size(found[0]) > size(net) / 2):
        raise ValueError(
            f"train.checkpointing: {name_of(net)} has no blocks, modules made of modules, that "
            "could be computed one after another: leave it out."
        )
    for block in found:
        if getattr(block.forward, "func", None) is twice:
            continue  # it was done before
        block.forward = partial(twice, block, block.forward)  # type: ignore[method-assign]
    return found


def twice(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a block's forward gives, kept by its inputs alone and computed again when it is needed.

    (A compiler traces the block once, and knows no contexts.)
    """
    if torch.compiler.is_compiling():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    how: dict[str, Any] = {"use_reentrant": False, "context_fn": partial(contexts, block)}
    return checkpoint(forward, *args, **how, **kwargs)


def blocks(net: nn.Module) -> list[nn.Module]:
    """The outermost modules in a network that are made of modules.

    One that holds more than half of all weights, as a network that another wraps, is taken apart
    as well: what runs again as a whole saves nothing.
    """
    return list(inner(net, size(net)))


def inner(module: nn.Module, whole: int) -> Iterator[nn.Module]:
    """The blocks in a module of a network with so many weights."""
    for child in module.children():
        if not any(True for _ in child.children()):
            continue  # a layer keeps little more than its input
        parts = list(inner(child, whole)) if isinstance(child, LISTS) else [child]
        if parts == [child] and size(child) > whole / 2:
            parts = list(inner(child, whole)) or parts
        yield from parts


def size(module: nn.Module) -> int:
    """How many weights a module has."""
    return sum(weight.numel() for weight in module.parameters())


def contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What a block runs in the first and the second time."""
    return nullcontext(), unchanged_buffers(block)


@contextmanager
def unchanged_buffers(block: nn.Module) -> Iterator[None]:
    """In the block copies stand for a module's buffers: a second run is not to count twice in a
    batch normalisation's statistics."""
    kept = [(module, dict(module._buffers)) for module in block.modules()]
    for module, buffers in kept:
        for name, value in buffers.items():
            module._buffers[name] = None if value is None else value.clone()
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)

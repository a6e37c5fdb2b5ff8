"""Weights of which every process has a part, and whole ones made of them.  torch's fully_shard

A tensor that is shared out is a ``DTensor``: to read or write all of it every process has to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.training.activations import blocks


def is_shard(value: Any) -> bool:
    """Whether a process has a part of a tensor alone."""
    return hasattr(value, "full_tensor")


def shard(module: nn.Module, mesh: Any) -> nn.Module:
    """A module whose weights are shared out, in place: a block's come together when it runs, one
    block after another, and the others' when the module does."""
    from torch.distributed.fsdp import fully_shard

    mesh, net = mesh["data_parallel"], getattr(getattr(module, "model", None), "net", None)
    for block in blocks(net) if isinstance(net, nn.Module) else []:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)
    return module


def whole(value: Any) -> Any:
    """A tensor that is shared out as a whole one; anything else as it is."""
    return value.full_tensor() if is_shard(value) else value


def here(value: Tensor) -> Tensor:
    """The part of a tensor that this process has: all of one that is not shared out."""
    part: Tensor = value.to_local() if is_shard(value) else value  # type: ignore[attr-defined]
    return part


def in_host(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole tensors in the host's memory, one after another; none where they are not kept, for
    others who need this process's parts."""
    found = {}
    for name, value in tensors.items():
        each = whole(value.detach())
        if keep:
            found[name] = each.cpu()
    return found


def like(value: Any, target: Any) -> Any:
    """A whole tensor shared out as another one is, where that is of its shape; else as it is."""
    if not is_shard(target) or not isinstance(value, Tensor) or value.shape != target.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, dtype = target.device_mesh, target.dtype
    return distribute_tensor(value.to(mesh.device_type, dtype), mesh, target.placements)


def take_step(optimizer: Any) -> None:
    """A step of an optimiser; ValueError of one that cannot do it with parts of tensors, and of
    one that goes on, and asks for what it did not keep before."""
    name = type(getattr(optimizer, "optimizer", optimizer)).__name__
    try:
        optimizer.step()
    except KeyError as error:
        raise ValueError(
            f"{name} has no {error} of the weights, which it keeps with these settings and did "
            "not with those of the run that goes on: take those, or begin anew (name=...)."
        ) from error
    except RuntimeError as error:
        if not any(each in str(error) for each in ("placement", "DTensor")):
            raise
        raise ValueError(
            f"{name} cannot take a step with weights that are shared out (train.strategy = "
            "'fsdp'): use another optimiser, such as AdamW, or train.strategy=ddp."
        ) from error


def infinite_in(*states: Mapping[str, Tensor]) -> frozenset[str]:
    """Names of tensors with an infinite entry, as a mask of attention has, which is added to."""
    return frozenset(k for state in states for k, v in state.items() if bool(v.isinf().any()))


def all_finite(states: Iterable[Mapping[str, Tensor]], infinite: frozenset[str]) -> Tensor:
    """Whether this process's parts of tensors are finite, () of 0 or 1; of those that were
    ``infinite`` from the beginning, in a copy too, that none is NaN."""
    found = []
    for name, value in (item for state in states for item in state.items()):
        part = here(value.detach())
        meant = name.removeprefix("module.") in infinite
        found.append((~part.isnan() if meant else part.isfinite()).all())
    return torch.stack(found).all().float()

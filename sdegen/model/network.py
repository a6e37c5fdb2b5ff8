"""Networks from anywhere: what they return, what they hide, what they are called."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def tensor_of(out: Any) -> Tensor:
    """The tensor that a network returned: by itself, first of a tuple, ``.sample`` or "sample".

    (diffusers' models return an object with ``.sample``; others a dictionary with one tensor.)
    ValueError for anything else.
    """
    if isinstance(out, Tensor):
        return out
    found = getattr(out, "sample", None)
    if isinstance(found, Tensor):
        return found
    if isinstance(out, Mapping):
        tensors = [value for value in out.values() if isinstance(value, Tensor)]
        found = out.get("sample", tensors[0] if len(tensors) == 1 else None)
    elif isinstance(out, tuple | list) and out:
        found = out[0]
    if isinstance(found, Tensor):
        return found
    what = (
        f"a dictionary of {sorted(map(str, out))}"
        if isinstance(out, Mapping)
        else f"a {type(out).__name__}"
    )
    raise ValueError(
        "A network returns a tensor, a tuple that begins with one, a dictionary with one tensor "
        f"or the key 'sample', or an object with .sample, but this one returned {what}: hand over "
        "a function that picks the tensor, and the network as module=."
    )


def hidden_modules(net: Callable[..., Any]) -> list[nn.Module]:
    """Modules with parameters that a function holds where nobody who looks for parameters sees
    them: in its closure, as arguments of a partial, as the owner of a method."""
    held: list[Any] = []
    if isinstance(net, nn.Module):
        return []
    if isinstance(net, functools.partial):
        held += [net.func, *net.args, *net.keywords.values()]
    elif inspect.ismethod(net):
        held += [net.__self__, *getattr(net.__self__, "__dict__", {}).values()]
    elif inspect.isfunction(net):
        known = net.__globals__
        held += [known[name] for name in net.__code__.co_names if name in known]
        for cell in net.__closure__ or ():
            with contextlib.suppress(
                ValueError
            ):  # of a name that is not assigned yet, as the model's own
                held.append(cell.cell_contents)
    else:
        held += getattr(net, "__dict__", {}).values()
    for group in [each for each in held if isinstance(each, list | tuple | dict)]:
        held += group.values() if isinstance(group, dict) else group
    return [
        each
        for each in held
        if isinstance(each, nn.Module) and any(True for _ in each.parameters())
    ]


def name_of(net: Callable[..., Any]) -> str:
    """A network in a few words, with the number of its parameters."""
    name = getattr(net, "__qualname__", None) or type(net).__name__
    if not isinstance(net, nn.Module):
        return name
    count = sum(p.numel() for p in net.parameters())
    return f"{type(net).__name__} of {count:,} parameters"


def take_values(value: Any, index: Tensor) -> Any:
    """A condition of some samples of a batch: of a tensor or an array its rows, of a list of plain
    values those; what has tensors in it, part by part."""
    if hasattr(value, "shape") and hasattr(value, "ndim"):
        at = index.to(value.device) if isinstance(value, Tensor) else index.cpu().numpy()
        return value[at] if value.ndim else value
    if isinstance(value, Mapping):
        return {key: take_values(part, index) for key, part in value.items()}
    if isinstance(value, list | tuple):
        if plain(value):
            return type(value)(value[i] for i in index.tolist())
        parts = [take_values(part, index) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def changed_values(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A condition with its tensors changed, part by part."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: changed_values(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple) and not plain(value):
        parts = [changed_values(part, change) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def in_place_of(old: Tensor, value: Any, what: str) -> Tensor:
    """What stands in a condition's place, in its shape and type; ValueError where it cannot."""
    whole = not old.is_floating_point()
    if isinstance(value, bool | int | float):
        if not whole or value == int(value):
            return torch.full_like(old, value)  # a number in a kernel: nothing is copied
    elif isinstance(value, Tensor) and not (whole and value.is_floating_point()):
        with contextlib.suppress(RuntimeError):
            return value.to(old).expand(old.shape)
    said = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    raise ValueError(
        f"{what} is a {old.dtype} of shape {tuple(old.shape)}, and {said} cannot stand in its "
        "place: give a number, or a tensor of its type that broadcasts to it."
    )


def plain(values: Sequence[Any]) -> bool:
    """True for numbers and words, one for each sample; not for parts that are cut themselves."""
    return all(isinstance(value, str | bool | int | float) for value in values)


def lengths(value: Any) -> set[int]:
    """The lengths of a condition along the batch's axis; a number or a word has none."""
    if hasattr(value, "shape") and hasattr(value, "ndim"):
        return {value.shape[0]} if value.ndim else set()
    if isinstance(value, list | tuple) and plain(value):
        return {len(value)}
    parts = value.values() if isinstance(value, Mapping) else value
    if not isinstance(parts, list | tuple) and not isinstance(value, Mapping):
        return set()
    return set().union(*(lengths(part) for part in parts))

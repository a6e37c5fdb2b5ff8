"""Networks from anywhere: what they return, what they hide, what they are called."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dis import get_instructions
from itertools import islice
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.checks import warn
from sdegen.sde.process import SDE


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


def read_output(F: Any, x: Tensor, heads: int) -> Tensor:
    """What a network of so many heads returned at states x (b, *), as a tensor of x's type.

    ValueError for another shape, and for whole numbers.
    """
    if type(F) is not Tensor:
        F = tensor_of(F)
    if heads == 2 or F.shape != x.shape:
        check_output(F, x, heads)
    if F.dtype is x.dtype:
        return F
    if not F.is_floating_point():
        raise ValueError(
            f"The network must return floating-point numbers, but it returned {F.dtype}."
        )
    return F.to(x.dtype)


def check_output(F: Tensor, x: Tensor, heads: int) -> None:
    """Refuse an output of another shape than states and the number of heads ask for."""
    doubled = x.ndim > 1 and F.shape == (len(x), 2 * x.shape[1], *x.shape[2:])
    if heads == 2 and doubled:
        return
    if heads == 2:
        raise ValueError(
            f"With heads=2 the network must return twice the channels of {tuple(x.shape)} on "
            f"axis 1, but it returned {tuple(F.shape)}."
        )
    remedy = " If the second half is a variance or another output, give heads=2."
    raise ValueError(
        f"The network must return its input's shape {tuple(x.shape)}, "
        f"but it returned {tuple(F.shape)}.{remedy if doubled else ''}"
    )


HOPS, WIDE, MOST = 4, 100, 2000
"""How far a function is followed into what it holds: an object, what that holds, and so on; at how
many things of a group, first ones, and at how many of one hop it is looked."""


def hidden_modules(net: Callable[..., Any]) -> list[nn.Module]:
    """Modules with parameters that a network holds where nobody who looks for parameters sees
    them: a function in its closure, its defaults or a global that it reads, a partial among its
    arguments, a method by its owner, an object in its attributes, each of these perhaps behind
    another; a module in a list or a dictionary among its attributes, where they are to be trained.

    What a function that is called reads as a global is not looked at, nor the end of a long list.
    """
    if isinstance(net, nn.Module):
        return unregistered(net)
    seen: dict[int, Any] = {}
    parts: Iterable[Any] = [*globals_of(net), *parts_of(net)]
    for _ in range(HOPS):
        new = {id(each): each for each in islice(parts, MOST)}
        held = [each for key, each in new.items() if key not in seen]
        seen |= new
        parts = (each for part in held for each in parts_of(part))
    modules = (each for each in seen.values() if isinstance(each, nn.Module))
    return [each for each in modules if any(True for _ in each.parameters())]


HIDDEN = (
    "is a function that holds a module, whose parameters, device and dtype nobody sees: hand the "
    "module over too, as ScoreModel(..., module=net)."
)
UNREGISTERED = (
    "keeps a module in a list or a dictionary, where nobody who trains, moves or saves it finds "
    "its parameters: use torch.nn.ModuleList or torch.nn.ModuleDict."
)


def warn_of_hidden(net: Callable[..., Any], sde: SDE) -> None:
    """A warning for a network whose parameters, but for its SDE's, nobody finds."""
    if any(id(each) != id(sde) for each in hidden_modules(net)):
        warn(f"{name_of(net)} {UNREGISTERED if isinstance(net, nn.Module) else HIDDEN}")


def unregistered(net: nn.Module) -> list[nn.Module]:
    """Modules to be trained that a network keeps in plain lists or dictionaries, where PyTorch
    does not find them; not those that it is a part of."""
    known, pytorchs = {id(p) for p in net.parameters()}, vars(nn.Module())
    kept = [
        (owner, each)
        for owner in net.modules()
        for name, group in vars(owner).items()
        if isinstance(group, list | tuple | dict) and name not in pytorchs
        for each in parts_of(group)
        if isinstance(each, nn.Module)
    ]
    return [
        each
        for owner, each in kept
        if any(p.requires_grad and id(p) not in known for p in each.parameters())
        and all(part is not owner for part in each.modules())
    ]


def globals_of(net: Any) -> list[Any]:
    """What a function reads by names of its file, as do a partial's, a method's, a decorated one.

    (The code's own list of names has those of attributes too.)
    """
    if isinstance(net, functools.partial):
        return globals_of(net.func)
    function = net.__func__ if inspect.ismethod(net) else net
    if not inspect.isfunction(function):
        return []
    names = [each.argval for each in get_instructions(function) if each.opname == "LOAD_GLOBAL"]
    read = [function.__globals__.get(name) for name in dict.fromkeys(names)]
    return read + globals_of(getattr(function, "__wrapped__", None))


def parts_of(held: Any) -> list[Any]:
    """What a function, a partial, a method, a group or an object that is no module holds."""
    if isinstance(held, nn.Module | type | ModuleType | Tensor):
        return []
    if isinstance(held, list | tuple | dict):
        return list(islice(held.values() if isinstance(held, dict) else held, WIDE))
    if isinstance(held, functools.partial):
        return [held.func, *held.args, *held.keywords.values()]
    if inspect.ismethod(held):
        return [held.__self__, held.__func__]
    if not inspect.isfunction(held):
        return list(islice(getattr(held, "__dict__", {}).values(), WIDE))
    parts = [*(held.__defaults__ or ()), *(held.__kwdefaults__ or {}).values()]
    for cell in held.__closure__ or ():
        # It may be of a name that is not assigned yet, as the model's own.
        with contextlib.suppress(ValueError):
            parts.append(cell.cell_contents)
    return parts


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


def of_process(value: Any) -> Any:
    """A condition as a field of an SDE's: arrays as tensors."""
    return torch.as_tensor(value) if hasattr(value, "__array__") else value


def version(x: Any) -> int | None:
    """How often a tensor was written into; None of what does not count it: symbols, and tensors
    made under inference_mode."""
    return x._version if isinstance(x, Tensor) and not x.is_inference() else None


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors of a condition, part by part."""
    found = list[Tensor]()
    changed_values(value, lambda each: found.append(each) or each)  # type: ignore[func-returns-value]
    return found


def copied(x: Tensor) -> Tensor:
    """A copy that counts who writes into it, which none made under inference_mode does."""
    if not torch.is_inference_mode_enabled():
        return x.clone()
    with torch.inference_mode(False):
        return x.clone()


def looked_at(
    net: Callable[..., Any], x: Tensor, label: Tensor, conditions: Mapping[str, Any]
) -> tuple[Any, bool]:
    """What a network returns of a copy of x (b, *), and whether it has written into that.

    ValueError where it has written into a condition, which is no solver's and is not copied.
    """
    own, told = copied(x), {name: tensors_of(c) for name, c in conditions.items()}
    before = version(own), {name: [*map(version, each)] for name, each in told.items()}
    F = net(own, label, **conditions)
    for name, each in told.items():
        if before[1][name] != [*map(version, each)]:
            raise ValueError(
                f"The network has written into its condition {name}, which every call is told: "
                f"let it copy that first, as {name} = {name}.clone(), and give it anew."
            )
    return F, version(own) != before[0]


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

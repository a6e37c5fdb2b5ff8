"""A device that a machine without one can try: tensors that say so.

Real arithmetic on the host's memory under a GPU's rules: tensors of two devices do not meet in one
operation, but for numbers () of the host, indices of the host, and copies from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

THERE = torch.device("meta")
ACROSS = ("aten::copy_", "aten::_to_copy", "aten::set_", "aten::detach")
INDEXED = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")


class There(Tensor):
    """A tensor elsewhere, whose values are ``inner``'s."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=THERE,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self) -> str:
        return f"There({self.inner})"

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})


class Made(TorchFunctionMode):
    """Values that are handed to ``torch.tensor`` are not lost on the other device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


class Elsewhere(TorchDispatchMode):
    """Under it tensors are made on the other device where they are asked for there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """One operation: refused where a GPU would refuse it, otherwise done on the values."""
    name = func._schema.name
    looked_at = args[:1] + args[2:] if name in INDEXED else args
    given = [each for each in tree_flatten((looked_at, kwargs))[0] if isinstance(each, Tensor)]
    there = any(isinstance(each, There) for each in given)
    if there and name not in ACROSS:
        for each in given:
            assert isinstance(each, There) or each.ndim == 0, (
                f"{name}: Expected all tensors to be on the same device, but found "
                + ", ".join(f"{tuple(g.shape)} on {g.device}" for g in given)
            )
    device = kwargs.get("device")
    if device is not None:
        there, kwargs = torch.device(device) == THERE, {**kwargs, "device": torch.device("cpu")}
    if name == "aten::copy_":
        there = isinstance(args[0], There)
    out = func(*tree_map(inner, args), **tree_map(inner, kwargs))
    written = [a for a in (*args[:1], *([kwargs["out"]] if "out" in kwargs else [])) if there]
    return tree_map(lambda made: outer(made, written) if there else made, out)


def inner(each: Any) -> Any:
    """The values of a tensor elsewhere, anything else as it is."""
    return each.inner if isinstance(each, There) else each


def outer(made: Any, written: list[Any]) -> Any:
    """A tensor elsewhere of these values: the one that was written into, if one was."""
    if not isinstance(made, Tensor):
        return made
    same = [each for each in written if inner(each) is made]
    return same[0] if same else There(made)


def elsewhere(do: Callable[[Callable[[Tensor], Tensor]], Any]) -> Any:
    """do(move) under the other device's rules; what it returns, back here."""
    with Elsewhere(), Made():
        found = do(lambda x: x.to(THERE))
    return tree_map(inner, found)

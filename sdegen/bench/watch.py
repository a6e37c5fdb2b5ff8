"""What a loop does to tensors, counted: kernels, values read back, states that live at once."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "item")
COPIES = {"_to_copy": 0, "copy_": 1}
"""Which of their arguments is the source; one that leaves the device is waited for too."""
NO_KERNEL = ("empty", "empty_like", "new_empty", "empty_strided", "_unsafe_view")


class Watch(TorchDispatchMode):
    """Of states of so many values.

    kernels: operations that write as many values; small: those that write fewer, each a kernel of
    its own on a GPU; reads: values that the host waits for, where the tensor is on ``device``;
    peak: tensors of a state's size that were made and lived at once.
    """

    def __init__(self, numel: int, device: str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel, self.device = numel, device
        self.kernels = self.small = self.reads = self.alive = self.peak = 0
        self.known: set[int] = set()
        self.resting = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing: what a network does is its own affair."""
        before, self.resting = self.resting, True
        try:
            yield
        finally:
            self.resting = before

    def forget(self, key: int) -> None:
        """A tensor's memory is given back."""
        self.known.discard(key)
        self.alive -= 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count, and let it happen."""
        out = func(*args, **(kwargs or {}))
        if self.resting:
            return out
        name = func.overloadpacket.__name__
        if name in READS:
            self.reads += any(isinstance(a, Tensor) and a.device.type == self.device for a in args)
        if name in COPIES and self.device != "cpu" and out.device.type == "cpu":
            self.reads += args[COPIES[name]].device.type == self.device
        alias = func._schema.returns[0].alias_info if func._schema.returns else None
        view = alias is not None and not alias.is_write
        for each in out if isinstance(out, tuple | list) else (out,):
            if not isinstance(each, Tensor) or view:
                continue
            works = name not in NO_KERNEL
            if each.numel() < self.numel:
                self.small += works
                continue
            self.kernels += works
            storage = each.untyped_storage()
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.alive += 1
                weakref.finalize(storage, self.forget, storage._cdata)
        self.peak = max(self.peak, self.alive)
        return out


class Memory(TorchDispatchMode):
    """Bytes of the tensors that were made and lived at once, but those of known tensors."""

    def __init__(self, *known: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = 0
        self.known = {each.untyped_storage()._cdata for each in known}

    def forget(self, key: int, size: int) -> None:
        """A tensor's memory is given back."""
        self.known.discard(key)
        self.alive -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what is new, and let it happen."""
        out = func(*args, **(kwargs or {}))
        given = {each.untyped_storage()._cdata for each in args if isinstance(each, Tensor)}
        for each in out if isinstance(out, tuple | list) else (out,):
            if not isinstance(each, Tensor):
                continue
            storage = each.untyped_storage()
            if storage._cdata not in self.known | given:
                self.known.add(storage._cdata)
                self.alive += storage.nbytes()
                weakref.finalize(storage, self.forget, storage._cdata, storage.nbytes())
        self.peak = max(self.peak, self.alive)
        return out


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


class Stopwatch:
    """A network that notes what it takes and, while it runs, is not watched.

    device: one that is waited for before and after, for its work to be counted here.
    """

    def __init__(self, net: Any) -> None:
        self.net, self.seconds, self.watch, self.device = net, 0.0, Watch(0), "cpu"

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What happens here is the network's, or an adapter's, and no solver's."""
        wait(self.device)
        begun = time.perf_counter()
        with self.watch.paused():
            yield
        wait(self.device)
        self.seconds += time.perf_counter() - begun

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """The network's output."""
        with self.aside():
            out: Tensor = self.net(*args, **kwargs)
        return out

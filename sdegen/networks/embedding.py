"""What a network is told beside the state: the time label and, perhaps, a class and numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.checks import whole

# Rounded to bfloat16, as networks were trained that were cast to it.
FAST = torch.logspace(-2, 6, 32, base=2.0, device="cpu").bfloat16().float()
"""Frequencies of times."""
SLOW = torch.logspace(-2, math.log2(2 * math.pi), 32, base=2.0, device="cpu")
"""Frequencies of numbers, one turn per unit at most. MeanFlow's loss has the derivative by how far
a map goes, of which fast waves make noise: docs/few-steps.md has what they cost."""


class TimeEmbedding(nn.Module):
    """Time labels (B,) as vectors (B, width): sines and cosines, then a two-layer MLP.

    The 32 angular frequencies run geometrically from 1/4 to 64 radians per unit of t. On labels
    in [-2, 2] the slowest turns by one radian, so no two labels look alike; the fastest turns by
    0.064 for a difference of 0.001, so that difference is still seen. Higher frequencies would
    only let the network wiggle in t. Vaswani et al. (2017), section 3.5.

    frequencies: others than these, as those of a network whose weights are copied.

    Labels should come in float32 or float64, whatever the network's dtype: bfloat16 cannot tell
    1.000 from 1.003. The angles are computed in the label's precision, float32 at least.
    """

    frequencies: Tensor

    def __init__(self, width: int, frequencies: Tensor | None = None) -> None:
        super().__init__()
        if frequencies is None:
            frequencies = FAST
        # Kept beside the buffer, which no file has: of a module that is built without memory, on
        # torch's device "meta", and one that is cast, they are as they were.
        self.exactly = frequencies
        here = frequencies.to(torch.get_default_device())
        self.register_buffer("frequencies", here, persistent=False)
        self.hidden = nn.Linear(2 * len(frequencies), width)
        self.out = nn.Linear(width, width)

    def _apply(self, fn: Any, recurse: bool = True) -> TimeEmbedding:
        """Move and cast the weights, and move the frequencies: an error of 1/256 in 64 radians per
        unit of t would be a quarter of a radian."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.frequencies = self.exactly.to(self.frequencies.device)
        return self

    def forward(self, t: Tensor) -> Tensor:
        t = t.to(exact(t))
        angles = t[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        h: Tensor = self.out(F.silu(self.hidden(waves.to(self.hidden.weight.dtype))))
        return h


class NumberEmbedding(TimeEmbedding):
    """Numbers (B,) as vectors (B, width), as times are but by ``SLOW`` waves, and zero at first.

    Weights keep the frequencies with them. Those of before there were slow waves have none beside
    them, and mean a time's.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, SLOW.clone())  # its own: what is loaded is written into it
        here = self.exactly.to(torch.get_default_device(), copy=True)
        self.register_buffer("frequencies", here)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *how: Any) -> None:
        name = prefix + "frequencies"
        if prefix + "hidden.weight" in state:
            self.exactly = state.setdefault(name, FAST).float().cpu().clone()
        super()._load_from_state_dict(state, prefix, *how)  # type: ignore[no-untyped-call]


def exact(t: Tensor) -> torch.dtype:
    """The type that angles of a label are computed in: its own, float32 at least."""
    return torch.promote_types(t.dtype, torch.float32)


def looked_up(table: Tensor, at: Tensor, refusal: str) -> Tensor:
    """Rows (*, width) of a table by their numbers, int64; ValueError for one out of range (on the
    CPU only: elsewhere the check would wait for the device)."""
    try:  # the CPU's lookup checks the range by itself, and nothing has to be waited for
        return F.embedding(at, table)
    except IndexError:
        raise ValueError(refusal) from None


OTHERS = ("x", "t", "y", "c", "tokens", "mask", "edit")
"""What a network is called with, and what no further number can be called."""


class Told(nn.Module, ABC):
    """Time label t (B,), class y (B,) and numbers by name as one vector (B, width), for every
    block of a network: all but how the vectors are made. See ``Conditioned`` for what they are.

    Raises ValueError if t or y is not (B,), if y is given and there are no classes, if a label
    is out of range (on the CPU only), or for a number of another name or shape.
    """

    def __init__(self, classes: int, numbers: Sequence[str]) -> None:
        super().__init__()
        self.classes = whole("classes", classes, 0)
        listed = isinstance(numbers, Sequence) and not isinstance(numbers, str)
        names = [n for n in numbers if isinstance(n, str) and n.isidentifier()] if listed else []
        if not listed or len({*names} - {*OTHERS}) < len(numbers):
            raise ValueError(
                f"numbers must be different names, numbers=[...], none of {', '.join(OTHERS)}, "
                f"but it is {numbers!r}."
            )
        self.numbers = tuple(names)

    @abstractmethod
    def vectors(self, t: Tensor, y: Tensor | None, numbers: Mapping[str, Tensor]) -> Tensor:
        """(B, width), of t (B,), y (B,) where there are classes, and all numbers, (B,) each."""

    def forward(
        self,
        t: Tensor,
        y: Tensor | int | None,
        batch: int,
        numbers: Mapping[str, Tensor | float] | None = None,
    ) -> Tensor:
        if not isinstance(t, Tensor):
            raise ValueError(f"t is {t!r:.60}, expected a tensor ({batch},), a label per sample.")
        if t.shape != (batch,):
            raise ValueError(
                f"t has shape {tuple(t.shape)}, expected ({batch},): one time label per sample."
            )
        return self.vectors(t, self._labels(t, y), self._spread(t, numbers or {}))

    def of_class(self, table: Tensor, y: Tensor) -> Tensor:
        """Rows of a table (classes + 1, width) by labels (B,)."""
        n = self.classes
        return looked_up(
            table, y, f"y has labels outside 0 .. {n} ({n} classes, then {n} for no class)."
        )

    def _labels(self, t: Tensor, y: Tensor | int | None) -> Tensor | None:
        if not self.classes:
            if y is None:
                return None
            raise ValueError(
                "y was given, but the network has no classes: build it with classes > 0, "
                "or call it without y."
            )
        if y is None or type(y) is int:  # of all samples alike
            return torch.full_like(t, self.classes if y is None else y, dtype=torch.int64)
        if not isinstance(y, Tensor):
            raise ValueError(f"y is {y!r}, expected a class label, or one for each sample.")
        if y.shape != t.shape or y.dtype != torch.int64:
            raise ValueError(
                f"y is {y.dtype} of shape {tuple(y.shape)}, expected torch.int64 of ({len(t)},): "
                "one class label per sample."
            )
        return y

    def _spread(self, t: Tensor, given: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
        if strangers := given.keys() - set(self.numbers):
            known = ", ".join(self.numbers) or "none"
            raise ValueError(
                f"The network was given {', '.join(sorted(strangers))}, but the numbers that it "
                f"knows are {known}: build it with numbers=[...], or call it without."
            )
        spread = {}
        for name in self.numbers:
            value = given.get(name, 0.0)
            if isinstance(value, bool) or not isinstance(value, Tensor | float | int):
                raise ValueError(
                    f"{name} is {value!r}, expected a number, or one for each sample."
                )
            if isinstance(value, Tensor) and value.shape not in ((), t.shape):
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}, expected () or ({len(t)},): a number "
                    "for each sample, or one for all."
                )
            # A CPU number () is added by a kernel that knows it: nothing waits for a device.
            spread[name] = torch.zeros_like(t, dtype=exact(t)) + value
        return spread


class Conditioning(Told):
    """silu(time + class + numbers), each embedded, as one vector (B, width).

    Called with time labels t (B,), classes y and the batch's size, and numbers by name; see
    ``Conditioned`` for what they are. A number is embedded as the time is, by slower waves. What
    it adds begins at zero, so that the weights of a network without it are a network with it.

    Raises ValueError if t or y is not (B,), if y is given and there are no classes, if a label
    is out of range (on the CPU only), or for a number of another name or shape.
    """

    def __init__(self, width: int, classes: int = 0, numbers: Sequence[str] = ()) -> None:
        super().__init__(classes, numbers)
        self.time = TimeEmbedding(width)
        self.label = nn.Embedding(classes + 1, width) if classes else None
        # Their own names may be those of a module's methods.
        self.told = nn.ModuleDict({f"of_{n}": NumberEmbedding(width) for n in numbers})

    def vectors(self, t: Tensor, y: Tensor | None, numbers: Mapping[str, Tensor]) -> Tensor:
        h: Tensor = self.time(t)
        if self.label is not None and y is not None:
            h = h + self.of_class(self.label.weight, y)
        for name, value in numbers.items():
            h = h + self.told[f"of_{name}"](value)
        return F.silu(h)

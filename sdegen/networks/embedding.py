"""What a network is told beside the state: the time label and, perhaps, a class and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
            # Rounded to bfloat16, as networks were trained that were cast to it.
            frequencies = torch.logspace(-2, 6, 32, base=2.0).bfloat16().float()
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.hidden = nn.Linear(2 * len(frequencies), width)
        self.out = nn.Linear(width, width)

    def _apply(self, fn: Any, recurse: bool = True) -> TimeEmbedding:
        """Move and cast the weights, and move the frequencies: an error of 1/256 in 64 radians per
        unit of t would be a quarter of a radian."""
        frequencies = self.frequencies
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not frequencies.is_meta:
            self.frequencies = frequencies.to(self.frequencies.device)
        return self

    def forward(self, t: Tensor) -> Tensor:
        t = t.to(exact(t))
        angles = t[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        h: Tensor = self.out(F.silu(self.hidden(waves.to(self.hidden.weight.dtype))))
        return h


def silent(embedding: TimeEmbedding) -> TimeEmbedding:
    """The same embedding, zero at first."""
    nn.init.zeros_(embedding.out.weight)
    nn.init.zeros_(embedding.out.bias)
    return embedding


def exact(t: Tensor) -> torch.dtype:
    """The type that angles of a label are computed in: its own, float32 at least."""
    return torch.promote_types(t.dtype, torch.float32)


class Conditioning(nn.Module):
    """Time label t (B,) and class y (B,) as one vector (B, width), for every block of a network.

    With ``classes = n > 0``, y holds int64 labels 0 .. n - 1, and n stands for "no class": it is
    what y = None means, and what a training loop writes over the labels it drops
    (classifier-free guidance, Ho and Salimans 2022).

    ``numbers`` names further conditions, each a number () or (B,) that is embedded as the time is:
    "jump", how far a flow map goes, or a guidance's strength. What they add begins at zero, so
    that the weights of a network without them are a network with them; one that is not given is 0.

    y is (B,), or one class for all.

    Raises ValueError if t or y is not (B,), if y is given and there are no classes, if a label
    is out of range (on the CPU only: elsewhere the check would wait for the device), or for a
    number of another name or shape.
    """

    def __init__(self, width: int, classes: int = 0, numbers: Sequence[str] = ()) -> None:
        super().__init__()
        if classes < 0:
            raise ValueError(f"classes = {classes}, expected 0 (unconditional) or more.")
        self.classes = classes
        self.time = TimeEmbedding(width)
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.numbers = tuple(numbers)
        # Their own names may be those of a module's methods.
        self.told = nn.ModuleDict({f"of_{n}": silent(TimeEmbedding(width)) for n in numbers})

    def forward(
        self,
        t: Tensor,
        y: Tensor | int | None,
        batch: int,
        numbers: Mapping[str, Tensor | float] | None = None,
    ) -> Tensor:
        if t.shape != (batch,):
            raise ValueError(
                f"t has shape {tuple(t.shape)}, expected ({batch},): one time label per sample."
            )
        h: Tensor = self.time(t)
        if self.label is not None:
            h = h + (self.label.weight[-1] if y is None else self._embed(y, batch, self.label))
        elif y is not None:
            raise ValueError(
                "y was given, but the network has no classes: build it with classes > 0, "
                "or call it without y."
            )
        given = numbers or {}
        if strangers := given.keys() - set(self.numbers):
            known = ", ".join(self.numbers) or "none"
            raise ValueError(
                f"The network was given {', '.join(sorted(strangers))}, but the numbers that it "
                f"knows are {known}: build it with numbers=[...], or call it without."
            )
        for name, embed in zip(self.numbers, self.told.values(), strict=True):
            value = given.get(name, 0.0)
            if isinstance(value, Tensor) and value.shape not in ((), (batch,)):
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}, expected () or ({batch},): a number "
                    "for each sample, or one for all."
                )
            # A CPU number () is added by a kernel that knows it: nothing waits for a device.
            h = h + embed(torch.zeros_like(t, dtype=exact(t)) + value)
        return F.silu(h)

    def _embed(self, y: Tensor | int, batch: int, label: nn.Embedding) -> Tensor:
        if type(y) is int:  # of all samples alike, as other conditions without an axis are
            y = torch.full((batch,), y, device=label.weight.device)
        if not isinstance(y, Tensor):
            raise ValueError(f"y is {y!r}, expected a class label, or one for each sample.")
        if y.shape != (batch,) or y.dtype != torch.int64:
            raise ValueError(
                f"y is {y.dtype} of shape {tuple(y.shape)}, expected torch.int64 of ({batch},): "
                "one class label per sample."
            )
        try:  # the CPU's lookup checks the range by itself, and nothing has to be waited for
            embedded: Tensor = label(y)
        except IndexError:
            raise ValueError(
                f"y has labels outside 0 .. {self.classes} "
                f"({self.classes} classes, then {self.classes} for no class)."
            ) from None
        return embedded

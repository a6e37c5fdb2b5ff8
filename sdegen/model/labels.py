"""How a network is told the time: a label (b,) made from the level that a state is at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdegen.sde.level import Instant, with_marginals

Label = Callable[[Instant], Tensor]


def label_t(level: Instant) -> Tensor:
    """The SDE's own time."""
    return level.t


def label_999t(level: Instant) -> Tensor:
    """Song et al.'s 999 t for VP and sub-VP."""
    return 999 * level.t


def label_1000t(level: Instant) -> Tensor:
    """DDPM's step number 0..999 on ``DiscreteVPSDE``."""
    return 1000 * level.t - 1


def label_sigma(level: Instant) -> Tensor:
    """sigma, as Song et al.'s VE networks are told."""
    return with_marginals(level).sigma


def label_lam(level: Instant) -> Tensor:
    """Half the log signal-to-noise ratio."""
    return with_marginals(level).lam


def label_c_noise(level: Instant) -> Tensor:
    """EDM's ln(sigma / alpha) / 4.  Karras et al. (2022), table 1."""
    return -with_marginals(level).lam / 4


TIME_LABELS: dict[str, Label] = {
    "t": label_t,
    "999t": label_999t,
    "1000t-1": label_1000t,
    "sigma": label_sigma,
    "lam": label_lam,
    "c_noise": label_c_noise,
}


def label_dtype(label: Tensor, dtype: torch.dtype) -> torch.dtype:
    """The type a label is handed over in, to a network of some type.

    Whole numbers stay whole, for networks that look them up; others are float32 beside a shorter
    type, which cannot tell 998 from 999.
    """
    if not label.is_floating_point():
        return torch.int64
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


AT_ONCE = 2**20
"""Labels that are kept ready; more than so many numbers are made one by one when asked for."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """The labels of n levels made at once, and what states there are multiplied by, if anything.

    own, dtype, device, b: the states (b, *) and the network's type that they are for.
    label, scale: what they were made by.  numbers: the labels.
    table: a row (b,) for each, which a network may hold; None on a GPU, where nobody could look
             whether one was written into, and where they would take much memory.  clean: a copy.
    scales:  of the states; None where the network sees them as they are.
    """

    levels: Instant
    label: Label
    scale: Any
    own: torch.dtype
    dtype: torch.dtype
    device: torch.device
    b: int
    kind: torch.dtype
    numbers: list[float]
    table: Tensor | None
    clean: np.ndarray | None
    rows: tuple[Tensor, ...] | None
    scales: list[float] | None

    @cached_property
    def ends(self) -> tuple[int, int]:
        """The first level's number, and the last's."""
        return 0, len(self.numbers) - 1

    def fresh(self, i: int, x: Tensor) -> Tensor:
        """The label (b,) of level i, of a number in a kernel: nothing is copied, nothing waits."""
        return x.new_full((self.b,), self.numbers[i], dtype=self.kind)

    @property
    def untouched(self) -> bool:
        """False where somebody has written into a label, by whatever way."""
        # By numpy, in the host's memory: this reads nothing back from a device.
        return self.table is None or np.array_equal(self.table.numpy(), self.clean)  # type: ignore[arg-type]


def prepare(
    levels: Instant, label: Label, scale: Any, c_in: Tensor | None, x: Tensor, dtype: torch.dtype
) -> Prepared:
    """Labels and scales of levels (n,) for states x (b, *) and a network of some type."""
    made = label(levels).detach().expand(levels.t.shape)
    kind, b, numbers = label_dtype(made, dtype), x.shape[0], made.tolist()
    scales = None if c_in is None else c_in.expand(levels.t.shape).tolist()
    table = clean = rows = None
    if x.device.type == "cpu" and len(numbers) * b <= AT_ONCE:
        with torch.inference_mode(False):
            table = torch.tensor(numbers, dtype=kind)[:, None].repeat(1, b)
            rows, clean = table.unbind(), table.numpy().copy()
    made_of = (levels, label, scale, x.dtype, dtype, x.device, b, kind, numbers)
    return Prepared(*made_of, table, clean, rows, scales)

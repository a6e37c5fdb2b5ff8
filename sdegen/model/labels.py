"""How a network is told the time: a label (b,) made from the level that a state is at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sdegen.sde.level import Instant, with_marginals
from sdegen.sde.process import SDE, LinearSDE, has_coordinates
from sdegen.sde.schedules import DiscreteVPSDE

Label = Callable[[Instant], Tensor]


def label_t(level: Instant) -> Tensor:
    """The SDE's own time."""
    return level.t


@dataclass(frozen=True)
class Steps:
    """A number of steps on an SDE's interval:  per t + first."""

    per: float
    first: float = 0.0

    def __call__(self, level: Instant) -> Tensor:
        """The label."""
        return self.per * level.t + self.first


def length(sde: SDE) -> float:
    """Of the interval that numbered steps divide: [0, 1], or [0, T] where an SDE goes further."""
    return max(1.0, sde.T)


def label_sigma(level: Instant) -> Tensor:
    """sigma, as Song et al.'s VE networks are told."""
    return with_marginals(level).sigma


def label_lam(level: Instant) -> Tensor:
    """Half the log signal-to-noise ratio."""
    return with_marginals(level).lam


def label_c_noise(level: Instant) -> Tensor:
    """EDM's ln(sigma / alpha) / 4.  Karras et al. (2022), table 1."""
    return -with_marginals(level).lam / 4


@dataclass(frozen=True)
class OnReference:
    """A label of the level that a reference SDE has at the same time."""

    reference: LinearSDE
    label: Label

    def __call__(self, level: Instant) -> Tensor:
        """The label."""
        return self.label(self.reference(level.t))


def scalar(label: Label, sde: SDE) -> Label:
    """A label of alpha and sigma, which are those of the SDE's reference: one for a sample."""
    if not has_coordinates(sde):
        return label
    assert isinstance(sde, LinearSDE)
    return OnReference(sde.reference, label)


TIME_LABELS: dict[str, Callable[[SDE], Label]] = {
    "t": lambda sde: label_t,
    "999t": lambda sde: Steps(999 / length(sde)),
    "1000t-1": lambda sde: Steps(
        sde.n if isinstance(sde, DiscreteVPSDE) else 1000 / length(sde), -1
    ),
    "sigma": partial(scalar, label_sigma),
    "lam": partial(scalar, label_lam),
    "c_noise": partial(scalar, label_c_noise),
}
"""The labels of an SDE by name. "999t" is Song et al.'s for VP and sub-VP, 0 to 999; "1000t-1" is
DDPM's number of a step, 0 to n - 1 of a ``DiscreteVPSDE``'s own n steps, of 1000 elsewhere. On an
SDE that runs beyond t = 1 both count to T. "sigma", "lam" and "c_noise" are those of the SDE's
``reference``: its own, unless levels differ from coordinate to coordinate."""


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
    scales: list[float] | tuple[Tensor, ...] | None

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
    scales: Any = None
    if c_in is not None:
        flat = c_in.ndim < 2
        scales = c_in.expand(levels.t.shape).tolist() if flat else c_in.to(x).split(1)
    table = clean = rows = None
    if x.device.type == "cpu" and len(numbers) * b <= AT_ONCE:
        with torch.inference_mode(False):
            table = torch.tensor(numbers, dtype=kind)[:, None].repeat(1, b)
            rows, clean = table.unbind(), table.numpy().copy()
    made_of = (levels, label, scale, x.dtype, dtype, x.device, b, kind, numbers)
    return Prepared(*made_of, table, clean, rows, scales)

"""How a network is told the time: a label (b,) made from the level that a state is at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

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


def label_tau(level: Instant) -> Tensor:
    """sigma / (alpha + sigma), the time of the straight flow, in [0, 1]."""
    return with_marginals(level).tau


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
    "tau": partial(scalar, label_tau),
}
"""The labels of an SDE by name. "999t" is Song et al.'s for VP and sub-VP, 0 to 999; "1000t-1" is
DDPM's number of a step, 0 to n - 1 of a ``DiscreteVPSDE``'s own n steps, of 1000 elsewhere. On an
SDE that runs beyond t = 1 both count to T. "sigma", "lam", "c_noise" and "tau", sigma / (alpha +
sigma), are those of the SDE's ``reference``: its own, unless levels differ from coordinate to
coordinate."""


def check_label(label: Label, name: Any, sde: SDE, level: Instant) -> None:
    """Refuse a time label that is not made of a level, that at T, as labels are."""
    try:
        made: Any = label(level)
    except ValueError as error:
        raise ValueError(f"The time label {name!r} cannot be made: {error}") from None
    if not isinstance(made, Tensor) or made.is_complex():
        raise ValueError(
            f"A time label is a tensor of real numbers, () or (b,), but of {name!r} it is "
            f"{made!r}: make it of the level, as lambda level: 999 * level.t."
        )
    if isinstance(name, str) and not bool(made.isfinite().all()):
        raise ValueError(
            f"The time label {name!r} is infinite at t = {sde.T:g}, where {sde} has no "
            "signal left, and no network can be told it there: take time='tau', or end the SDE "
            "earlier, as FlowSDE(T=0.999) does."
        )


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


@dataclass(eq=False)
class Prepared:
    """The labels of n levels made at once, and what states there are multiplied by, if anything.

    own, dtype, device, b: the states (b, *) and the network's type that they are for.
    label, scale: what they were made by.  numbers: the labels.
    table: a row (b,) for each, which a network may hold; None where they would take much memory,
             and in a CUDA graph, which may outlive them.  clean: a copy.  version: how often torch
             saw the table written into, by whom it should be.
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
    clean: Tensor | None
    rows: tuple[Tensor, ...] | None
    scales: list[float] | tuple[Tensor, ...] | None
    version: int = 0

    @cached_property
    def ends(self) -> tuple[int, int]:
        """The first level's number, and the last's."""
        return 0, len(self.numbers) - 1

    def fits(self, levels: Instant, x: Tensor) -> bool:
        """Whether it was made for these levels and for states of x's length, type and device."""
        own = self.b == x.shape[0] and self.own is x.dtype and self.device == x.device
        return own and self.levels is levels

    def fresh(self, i: int, x: Tensor) -> Tensor:
        """The label (b,) of level i, of a number in a kernel: nothing is copied, nothing waits."""
        return x.new_full((self.b,), self.numbers[i], dtype=self.kind)

    def still(self, x: Tensor) -> bool:
        """Whether the labels are what they were, for a walk of states x; nothing waits.

        In the host's memory they are looked at, whoever wrote into them by whatever way; on a
        device, where nobody can look without waiting, they are written anew.
        """
        if (self.table is None) != without_table(x, len(self.numbers)):
            return False
        if self.table is None or self.clean is None:
            return True
        if self.table.device.type == "cpu":
            now, clean = self.looks
            return bool((now == clean).all())
        self.renew()
        return True

    @cached_property
    def looks(self) -> tuple[Any, Any]:
        """A table in the host's memory and its copy, as NumPy sees them: compared without torch,
        whose readings of a value are a device's."""
        assert self.table is not None and self.clean is not None
        return self.table.numpy(), self.clean.numpy()

    def renew(self) -> None:
        """Write the labels anew, into which a network may have written, in their old shapes."""
        assert self.table is not None and self.clean is not None
        self.table.copy_(self.clean)
        self.rows, self.version = self.table.unbind(), self.table._version


def without_table(x: Tensor, n: int) -> bool:
    """Whether n labels for states x (b, *) are made one by one when they are asked for."""
    captured = x.device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    return captured or n * x.shape[0] > AT_ONCE


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
    if not without_table(x, len(numbers)):
        with torch.inference_mode(False):
            if x.device.type == "cpu":
                table = torch.tensor(numbers, dtype=kind)[:, None].repeat(1, b)
            else:  # by kernels that know their number: a copy from the host would wait
                table = torch.empty(len(numbers), b, dtype=kind, device=x.device)
                for row, number in zip(table.unbind(), numbers, strict=True):
                    row.fill_(number)
            clean, rows = table.clone(), table.unbind()
    made_of = (levels, label, scale, x.dtype, dtype, x.device, b, kind, numbers)
    version = 0 if table is None else table._version
    return Prepared(*made_of, table, clean, rows, scales, version)

"""How a network is told the time: a label (b,) made from the level that a state is at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sdegen.sde.level import Instant, linear

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
    return linear(level).sigma


def label_lam(level: Instant) -> Tensor:
    """Half the log signal-to-noise ratio."""
    return linear(level).lam


def label_c_noise(level: Instant) -> Tensor:
    """EDM's ln(sigma / alpha) / 4.  Karras et al. (2022), table 1."""
    return -linear(level).lam / 4


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


@dataclass(frozen=True, eq=False)
class Prepared:
    """The labels of n levels made at once, and what states there are multiplied by, if anything.

    As numbers: handing one to a kernel neither copies nor waits, on any device.
    """

    levels: Instant
    whole: bool
    labels: list[float]
    scales: list[float] | None

    def label(self, i: int, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The label (b,) of level i for states x (b, *) of a network of some type."""
        if self.whole:
            dtype = torch.int64
        elif dtype in (torch.float16, torch.bfloat16):
            dtype = torch.float32
        return x.new_full((len(x),), self.labels[i], dtype=dtype)


def prepare(levels: Instant, label: Label, scale: Tensor | None) -> Prepared:
    """Labels and scales of levels (n,)."""
    made = label(levels).detach().expand(levels.t.shape)
    scales = None if scale is None else scale.expand(levels.t.shape).tolist()
    return Prepared(levels, not made.is_floating_point(), made.tolist(), scales)

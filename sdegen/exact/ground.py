"""What exact distributions stand on: constants where states are, levels, and what no law has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sdegen.sde.level import Level


def matrix(values: Sequence[Sequence[float]] | Tensor) -> Tensor:
    """Values in float64."""
    return torch.as_tensor(values, dtype=torch.float64)


def rounding(values: Any) -> float:
    """What a covariance may lack, of its largest: of one that was made in single precision where
    numbers are float64, or Python's, and in half precision where they are shorter."""
    kind = str(getattr(values, "dtype", "float64"))  # torch's, or NumPy's
    return 1e-6 if kind.endswith("float64") else 1e-3


class Constant(ABC):
    """What is made of constants, which are kept wherever states were: a copy for each device and
    dtype, so that a loop on a GPU fetches nothing from the host."""

    @property
    @abstractmethod
    def constants(self) -> tuple[Tensor, ...]:
        """In float64, on the CPU."""

    @cached_property
    def _copies(self) -> dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]]:
        return {}

    def like(self, x: Tensor) -> tuple[Tensor, ...]:
        """The constants where x is, as x is."""
        where = x.device, x.dtype
        if where not in self._copies:
            self._copies[where] = tuple(part.to(x) for part in self.constants)
        return self._copies[where]


def coefficients(x: Tensor, level: Level | None) -> tuple[Tensor, Tensor]:
    """alpha and sigma^2 of a level, () or (b,), as x (b, *) is, of shape (1, 1) or (b, 1); those
    of the data itself where there is none."""
    if level is None:
        return x.new_ones(1, 1), x.new_zeros(1, 1)
    if level.alpha.ndim > 1:
        raise ValueError(
            "Exact distributions are known at levels that are the same for all coordinates, but "
            f"alpha is of shape {tuple(level.alpha.shape)}."
        )
    a, v = (torch.as_tensor(c).to(x).reshape(-1, 1) for c in (level.alpha, level.sigma**2))
    return a, v


def refuse_flat(var: Tensor, level: Level | None) -> None:
    """ValueError for the density, without noise, of what has no variance along an axis, or one
    that an eigenvalue's rounding makes of none: var (*, d), each d of one distribution."""
    if level is not None and (level.sigma.ndim or float(level.sigma)):
        return
    least = 10 * var.shape[-1] * torch.finfo(var.dtype).eps * var.amax(-1, keepdim=True)
    if bool((var <= least).any()):
        raise ValueError(
            "There is no density without noise of what has a variance of 0 along an axis, as a "
            "value has that was seen with std = 0: give a level whose sigma is above 0."
        )


def axes_of(cov: Tensor, slack: float) -> tuple[Tensor, Tensor]:
    """Variances (*, d) and axes (*, d, d) of covariances (*, d, d), which rounding leaves below 0
    by ``slack`` of the largest at most; ValueError for what are none."""
    scale = cov.abs().amax((-2, -1), True)
    even = ((cov - cov.mT).abs() <= slack * scale).all()  # false of NaN
    if not bool(even & cov.isfinite().all()):
        raise ValueError(
            f"A covariance is symmetric and finite, but this is {cov.tolist()!s:.120}."
        )
    var, axes = torch.linalg.eigh(cov)
    if bool((var < -slack * var.abs().amax(-1, True)).any()):
        raise ValueError(
            f"A covariance has no variance below 0, but along one axis it is {float(var.min()):g}."
        )
    return var.clamp(min=0), axes


def refuse_negative(name: str, values: Tensor) -> Tensor:
    """The values themselves; ValueError for some that are not finite, or below 0."""
    if not bool(((values >= 0) & values.isfinite()).all()):
        raise ValueError(f"{name} are numbers >= 0, but they are {values.tolist()!s:.120}.")
    return values


def shares(weights: Tensor) -> Tensor:
    """Weights (k,) as shares, whose sum is 1; ValueError for some below 0, and for none above."""
    total = refuse_negative("weights", weights).sum()
    if not bool(total > 0):
        raise ValueError(f"One weight is above 0, but they are {weights.tolist()!s:.120}.")
    return weights / total

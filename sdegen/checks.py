"""Refusals and warnings that many places share, said once."""

from __future__ import annotations

import math
import sys
import warnings
from numbers import Integral
from typing import Any

INSIDE = ("sdegen", "torch")
"""Packages in which no user looks for the line that a warning is about."""


def one_of(name: str, what: str, table: dict[str, Any]) -> Any:
    """The table's entry of that name, or an error that lists the names."""
    if name not in table:
        raise ValueError(f"Unknown {what} {name!r}: it must be one of {', '.join(sorted(table))}.")
    return table[name]


def whole(name: str, value: int, low: int = 1, high: float = math.inf) -> int:
    """The count itself, refused unless it is a whole number in its range."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
        span = f">= {low}" if high == math.inf else f"from {low} to {high:g}"
        raise ValueError(f"{name} must be a whole number {span}, but it is {value!r}.")
    return int(value)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning at the line that called the package, however deep inside it comes up.

    Torch's frames are skipped too: ``no_grad`` as a decorator stands between caller and callee.
    """
    depth, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in INSIDE:
        depth, frame = depth + 1, frame.f_back
    warnings.warn(message, category, stacklevel=depth)

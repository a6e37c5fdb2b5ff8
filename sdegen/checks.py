"""Refusals that many places share, said once."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any


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

"""Refusals and warnings that many places share, said once."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

INSIDE = ("sdegen", "torch", "importlib")
"""Packages in which no user looks for the line that a warning is about."""


def one_of(name: str, what: str, table: dict[str, Any]) -> Any:
    """The table's entry of that name, or an error that lists the names."""
    if name not in table:
        raise ValueError(f"Unknown {what} {name!r}: it must be one of {', '.join(sorted(table))}.")
    return table[name]


def whole(name: str, value: int, low: int | None = 1, high: float = math.inf) -> int:
    """The count itself, refused unless it is a whole number in its range; low None: any."""
    least = -math.inf if low is None else low
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= value <= high:
        above = "" if low is None else f" >= {low}"
        span = above if high == math.inf else f" from {low} to {high:g}"
        raise ValueError(f"{name} must be a whole number{span}, but it is {value!r}.")
    return int(value)


def number(name: str, value: float, low: float = -math.inf) -> float:
    """The number itself, refused unless it is finite and not below ``low``."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value < math.inf:
        span = "" if low == -math.inf else f" >= {low:g}"
        raise ValueError(f"{name} must be a number{span}, but it is {value!r}.")
    return float(value)


def flag(name: str, value: bool) -> bool:
    """The value itself, refused unless it is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, but it is {value!r}.")
    return value


def text(name: str, value: str) -> str:
    """The value itself, refused unless it is text, and some."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a name, but it is {value!r}.")
    return value


def texts(name: str, value: list[str]) -> list[str]:
    """The value itself, refused unless it is a list of names."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} must be a list of names, {name}=[...], but it is {value!r}.")
    return value


def optional(check: Callable[..., Any], name: str, value: Any, *how: Any) -> None:
    """A check of a value that may be None."""
    if value is not None:
        check(name, value, *how)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning at the line that called the package, however deep inside it comes up.

    Torch's frames are skipped too: ``no_grad`` as a decorator stands between caller and callee.
    """
    depth, frame = 1, sys._getframe()
    while frame.f_back:
        room = frame.f_globals.get("__name__", "").split(".")[0]
        if room not in INSIDE:
            break
        depth, frame = depth + (room != "importlib"), frame.f_back  # warnings skip these anyway
    warnings.warn(message, category, stacklevel=depth)

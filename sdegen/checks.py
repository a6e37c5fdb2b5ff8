"""What many places ask of a value, said once: refusals, and whether it can change."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral
from types import FunctionType
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


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names that a misspelt one may have meant: "did you mean a, b?", or nothing."""
    near = get_close_matches(name, list(known), 3, 0.5)
    return f"did you mean {', '.join(near)}?" if near else ""


def accepted(who: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse, as Python does, a keyword argument that a function has not: a TypeError.

    It names the nearest that it has, or all of them.
    """
    for name in given:
        if name not in known:
            hint = nearest(name, known) or f"it takes {', '.join(sorted(known))}."
            raise TypeError(f"{who}() got an unexpected keyword argument {name!r}: {hint}")


def fixed(value: Any) -> bool:
    """True for what is bound to be the same tomorrow: numbers, and frozen dataclasses of them."""
    if isinstance(value, tuple):
        return all(map(fixed, value))
    if isinstance(value, FunctionType):
        return value.__module__.startswith("sdegen.") and value.__closure__ is None
    if is_dataclass(value) and not isinstance(value, type):
        how = type(value).__dataclass_params__  # type: ignore[attr-defined]
        known = {each.name: getattr(value, each.name) for each in fields(value)}
        # A subclass that is no dataclass may hold what no field tells of.
        return how.frozen and how.eq and vars(value) == known and all(map(fixed, known.values()))
    return value is None or isinstance(value, bool | int | float | str)

"""What many places ask of a value, said once: refusals, warnings, whether it can change."""

from __future__ import annotations

import inspect
import math
import sys
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields
from difflib import get_close_matches
from functools import cached_property, lru_cache
from numbers import Integral, Real
from pathlib import Path, PurePath
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

INSIDE = ("sdegen", "torch", "importlib")
"""Packages in which no user looks for the line that a warning is about."""


def one_of(name: str, what: str, table: dict[str, Any]) -> Any:
    """The table's entry of that name, or an error that lists the names."""
    if not isinstance(name, str) or name not in table:
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


def folder_name(name: str, value: str) -> str:
    """The value itself, refused unless a folder inside another one can have it as its name."""
    parts = PurePath(text(name, value)).parts
    if not parts or ".." in parts or PurePath(value).is_absolute():
        raise ValueError(f"{name} must be the name of a folder, but it is {value!r}.")
    return value


def file_name(name: str, value: str) -> str:
    """The value itself, refused unless a file can be written there: no folder."""
    if Path(text(name, value)).is_dir():
        raise ValueError(f"{name}={value} is a folder: name a file in it, as {name}={value}/NAME.")
    return value


def absent(kind: str, path: str | Path) -> ValueError:
    """The refusal of a "file" or "folder" that is not there: with the folder that a relative path
    begins in, where a person may have been somewhere else, and what is near."""
    given = Path(path)
    where = "" if given.is_absolute() else f" in {Path.cwd()}"
    known = [each.name for each in given.parent.iterdir()] if given.parent.is_dir() else []
    hint = nearest(given.name, known)
    return ValueError(f"there is no {kind} {str(path)!r}{where}" + (f": {hint}" if hint else ""))


def texts(name: str, value: list[str]) -> list[str]:
    """The value itself, refused unless it is a list of names."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name} must be a list of names, {name}=[...], but it is {value!r}.")
    return value


def listed(what: str, value: Any) -> Any:
    """The value itself, refused unless it is a list of texts: one text is none, which would be
    taken for its letters."""
    several = isinstance(value, Iterable) and not isinstance(value, str)
    if not several or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{what} are a list of texts, [...], but they are {value!r:.80s}.")
    return value


def uncallable(function: Callable[..., Any], *given: Any, **named: Any) -> str:
    """Why a function cannot be called with these arguments; nothing where it can."""
    try:
        inspect.signature(function).bind(*given, **named)
    except TypeError as error:
        return str(error)
    except ValueError:  # a builtin's, which says nothing of its arguments
        return ""
    return ""


def tensor(what: str, value: Any) -> Tensor:
    """The tensor itself, refused unless it is one, and dense."""
    if not isinstance(value, Tensor):
        raise ValueError(
            f"{what} is a torch.Tensor (b, *), but it is of {type(value).__name__}: "
            "torch.as_tensor makes one."
        )
    if value.layout is not torch.strided:
        raise ValueError(f"{what} is a dense tensor, but it is {value.layout}: give x.to_dense().")
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


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names that a misspelt one may have meant: "did you mean a, b?", or nothing."""
    small = {each.lower(): each for each in known}
    near = [small[each] for each in get_close_matches(name.lower(), small, 3, 0.5)]
    return f"did you mean {', '.join(near)}?" if near else ""


def accepted(who: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse, as Python does, a keyword argument that a function has not: a TypeError.

    It names the nearest that it has, or all of them.
    """
    for name in given:
        if name not in known:
            hint = nearest(name, known) or f"it takes {', '.join(sorted(known))}."
            raise TypeError(f"{who}() got an unexpected keyword argument {name!r}: {hint}")


PLAIN = frozenset({type(None), bool, int, float, str})
"""Types whose values cannot change."""


def fixed(value: Any) -> bool:
    """True for what is bound to be the same tomorrow: numbers, and frozen dataclasses of them."""
    kind: Any = type(value)
    if kind in PLAIN or isinstance(value, int | float | str):
        return True
    if kind is tuple:
        return all(map(fixed, value))
    if kind is FunctionType:
        return value.__module__.startswith("sdegen.") and value.__closure__ is None
    names = frozen_fields(kind)
    if names is None:
        return False
    for name in vars(value):
        # What is no field may be anything, but for what a property of the class itself remembers.
        if name not in names and not remembers(kind, name):
            return False
    for name in names:
        part = getattr(value, name)
        if type(part) not in PLAIN and not fixed(part):
            return False
    return True


@lru_cache
def frozen_fields(kind: type) -> frozenset[str] | None:
    """The fields of a frozen dataclass, compared by them; None of any other class, and of one that
    inherits from a dataclass without being one itself."""
    how = vars(kind).get("__dataclass_params__")
    if how is None or not (how.frozen and how.eq):
        return None
    return frozenset(each.name for each in fields(kind))


@lru_cache
def remembers(kind: type, name: str) -> bool:
    """Whether a name is a ``cached_property`` of a class."""
    return isinstance(getattr(kind, name, None), cached_property)

"""Every solver there is, found by looking: what commands, tables, tests and benchmarks share.

A solver is a dataclass in a module of ``sdegen.solvers``; its ``presets`` are the names it goes
by. A class that names no presets goes by its own name, in small letters; one with an empty table
of them is made by other means and is not listed.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import isabstract
from typing import Any

import sdegen.solvers
from sdegen.solvers.solver import Preset, Solver

RENAMED = {
    "dopri5": "torchdiffeq_dopri5",
    "dopri8": "torchdiffeq_dopri8",
    "bosh3": "torchdiffeq_bosh3",
}
"""Names that solvers went by before: commands still take them."""


@dataclass(frozen=True)
class Entry:
    """A solver class, the settings that make it the one of that name, and where it is defined."""

    name: str
    cls: type[Solver]
    settings: Mapping[str, Any]
    source: str

    def build(self) -> Solver:
        """The solver."""
        return self.cls(**self.settings)

    def config(self) -> dict[str, Any]:
        """As a Hydra node: the target and every setting that a command line can write."""
        return node(self.build())


def node(solver: Any) -> dict[str, Any]:
    """A solver or another frozen dataclass, and the solvers it is made of, as Hydra nodes."""
    made: dict[str, Any] = {"_target_": f"{type(solver).__module__}.{type(solver).__qualname__}"}
    for each in fields(solver):
        value = getattr(solver, each.name)
        if isinstance(value, Solver):
            made[each.name] = node(value)
        elif isinstance(value, bool | int | float | str | tuple | dict):
            made[each.name] = list(value) if isinstance(value, tuple) else value
    return made


def snake(name: str) -> str:
    """CamelCase in small letters."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def classes() -> list[type[Solver]]:
    """The solver classes of ``sdegen.solvers``, module by module, in the order of their source."""
    found: list[type[Solver]] = []
    for info in pkgutil.iter_modules(sdegen.solvers.__path__):
        module = importlib.import_module(f"sdegen.solvers.{info.name}")
        for cls in vars(module).values():
            if not (isinstance(cls, type) and issubclass(cls, Solver)) or isabstract(cls):
                continue
            if cls.__module__ == module.__name__:
                found.append(cls)
    return found


def catalogue() -> dict[str, Entry]:
    """Name -> entry of every solver; ValueError if two go by one name."""
    entries: dict[str, Entry] = {}
    for cls in classes():
        own = vars(cls).get("presets", {snake(cls.__name__): described(cls)})
        for name, preset in own.items():
            if name in entries:
                raise ValueError(
                    f"Two solvers go by the name {name!r}: {entries[name].cls.__name__} and "
                    f"{cls.__name__}. Rename a preset."
                )
            entries[name] = Entry(name, cls, preset.settings, preset.source)
    return entries


def described(cls: type[Solver]) -> Preset:
    """A class as its own preset, by the first line of its docstring."""
    return Preset({}, (cls.__doc__ or "").strip().splitlines()[0].rstrip("."))

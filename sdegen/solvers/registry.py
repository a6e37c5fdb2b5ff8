"""Every solver there is, found by looking: what commands, tables, tests and benchmarks share.

A solver is a dataclass in a module of ``sdegen.solvers``; its ``presets`` are the names it goes
by. A class that names no presets goes by its own name, in small letters; one with an empty table
of them is made by other means and is not listed. Those of other packages come in by ``register``,
or by an entry point of the group "sdegen.solvers" that leads to what ``register`` takes.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract
from typing import Any, get_origin

import sdegen.solvers
from sdegen.checks import nearest, warn
from sdegen.solvers.correctors import ALONE
from sdegen.solvers.solver import Preset, Solver

RENAMED = {
    "dopri5": "torchdiffeq_dopri5",
    "dopri8": "torchdiffeq_dopri8",
    "bosh3": "torchdiffeq_bosh3",
}
"""Names that solvers went by before: commands still take them."""
GROUP = "sdegen.solvers"
"""Of the entry points by which an installed package's solvers come in."""
CORRECTORS = ("langevin",)
"""Names of what corrects at a level and is no solver: whoever asks for one is told so."""
PARTIAL: dict[str, dict[str, Any]] = {
    "tuned": {"_target_": "sdegen.solvers.tuned.load", "path": "???"},
    "learned_variance": {
        "_target_": "sdegen.solvers.LearnedVariance",
        "head": None,
        "mean_eta": 1.0,
    },
}
"""Nodes of solvers that commands know by name, and that are of a file or of a run: what a tuning
has left, and what a run's second output was trained to say."""
RESERVED = (*PARTIAL, *RENAMED, *CORRECTORS)
"""Names that commands know without a catalogue."""
REGISTERED: dict[str, Entry] = {}
"""What ``register`` was given, by its names."""


@dataclass(frozen=True)
class Entry:
    """A name, what makes the solver (or chooser) that goes by it, and where that is defined.

    cls: a class, or any function; settings: its arguments.  solves: False for a chooser.
    """

    name: str
    cls: Callable[..., Any]
    settings: Mapping[str, Any]
    source: str
    solves: bool = True

    def build(self) -> Any:
        """The solver, or the chooser."""
        return self.cls(**self.settings)

    def config(self) -> dict[str, Any]:
        """As a Hydra node: the target and every setting that a command line can write.

        By its name alone where no settings make it.
        """
        if isinstance(self.cls, type) and found(self.cls):
            made = self.build()
            if is_dataclass(made) and written(made):
                return node(made)
        return {"_target_": f"{__name__}.named", "name": self.name}


def node(solver: Any) -> dict[str, Any]:
    """A solver or another frozen dataclass, and those it is made of, as Hydra nodes."""
    made: dict[str, Any] = {"_target_": f"{type(solver).__module__}.{type(solver).__qualname__}"}
    for each in fields(solver):
        value = getattr(solver, each.name)
        if is_dataclass(value):
            made[each.name] = node(value)
        elif value is None or isinstance(value, bool | int | float | str | tuple | dict):
            made[each.name] = list(value) if isinstance(value, tuple) else value
    return made


def written(made: Any) -> bool:
    """True where a node says all there is to say of a dataclass."""
    for each in fields(made):
        value = getattr(made, each.name)
        if is_dataclass(value) and written(value):
            continue
        # What a node leaves out is made anew as the class has it.
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if not (isinstance(value, bool | int | float | str | tuple | dict) or value == default):
            return False
    return True


def found(cls: type) -> bool:
    """True for a class that its module and name lead to."""
    return getattr(sys.modules.get(cls.__module__), cls.__qualname__, None) is cls


def works(value: Any) -> bool:
    """True for a solver and for what chooses one."""
    return isinstance(value, Solver) or callable(getattr(value, "choose", None))


def snake(name: str) -> str:
    """CamelCase in small letters."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def classes() -> list[type[Solver]]:
    """The solver classes of ``sdegen.solvers``, module by module, in the order of their source."""
    found: list[type[Solver]] = []
    for info in pkgutil.iter_modules(sdegen.solvers.__path__):
        module = importlib.import_module(f"sdegen.solvers.{info.name}")
        for cls in vars(module).values():
            # Python 3.10 takes an alias as list[int] for a type.
            if get_origin(cls) or not isinstance(cls, type):
                continue
            if not issubclass(cls, Solver) or isabstract(cls):
                continue
            if cls.__module__ == module.__name__:
                found.append(cls)
    return found


def catalogue() -> dict[str, Entry]:
    """Name -> entry of every solver, those of other packages last.

    ValueError if two go by one name.
    """
    return {name: entry for name, entry in entries().items() if entry.solves}


def choosers() -> dict[str, Entry]:
    """Name -> entry of all that choose a solver for a model and a budget."""
    return {name: entry for name, entry in entries().items() if not entry.solves}


def entries() -> dict[str, Entry]:
    """Name -> entry of solvers and choosers: ours, what was registered, and what is installed.

    An installed one whose name is taken is left out, with a warning.
    """
    return collected(*own(), *foreign())


def foreign() -> tuple[Entry, ...]:
    """Those that were registered, or whose package is installed and whose name is free."""
    known = collected(*own(), *REGISTERED.values())
    found = list(REGISTERED.values())
    for entry in installed():
        if entry.name in known or entry.name in RESERVED:
            warn(
                f"The solver {entry.name!r} of {title(entry.cls)} is left out: its name is taken."
            )
        else:
            known[entry.name] = entry
            found.append(entry)
    return tuple(found)


def own() -> tuple[Entry, ...]:
    """The package's own."""
    return found_in(tuple(sdegen.solvers.__path__))


@lru_cache
def found_in(folders: tuple[str, ...]) -> tuple[Entry, ...]:
    """The solvers of ``sdegen.solvers``, whose modules are in these folders."""
    listed = []
    for cls in classes():
        # Presets are a class's own: a subclass is another sampler.
        presets = vars(cls).get("presets", {snake(cls.__name__): described(cls)})
        for name, known in presets.items():
            listed.append(Entry(name, cls, known.settings, known.source))
    return tuple(listed)


@lru_cache
def installed() -> tuple[Entry, ...]:
    """What other packages' entry points lead to; a warning for one that leads nowhere."""
    return tuple(entry for point in entry_points(group=GROUP) for entry in loaded(point))


def loaded(point: EntryPoint) -> list[Entry]:
    """The entry that an entry point leads to, or none and a warning."""
    try:
        return [entry_of(point.name, point.load(), None)]
    except Exception as error:  # another package's code
        warn(f"The solver {point.name!r} of {point.value} is left out: {error}")
        return []


def collected(*entries: Entry) -> dict[str, Entry]:
    """Entries by their names; ValueError if two go by one name."""
    known: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in known or entry.name in RESERVED:
            taken = known.get(entry.name)
            raise ValueError(
                f"Two solvers go by the name {entry.name!r}: "
                f"{title(taken.cls) if taken else 'tuned ones'} and {title(entry.cls)}. Give one "
                "of them another name."
            )
        known[entry.name] = entry
    return known


def register(name: str, solver: Any, source: str | None = None) -> None:
    """Take a solver or a chooser into the catalogue.

    It is then found by its name, by commands, tables and benchmarks as by ``solver="name"``.

    solver: a Solver or a Chooser, a class of either that needs no arguments, or a function that
            makes one, which is called at once to see what it makes.
    source: where it is defined; default the first line of its docstring.

    The same class or function again takes its own place, as a notebook's cell run twice does.
    ValueError for a name that is taken or is not of letters, digits and underscores, and for what
    makes neither a solver nor a chooser.
    """
    entry = entry_of(name, solver, source)
    others = [each for each in REGISTERED.values() if not same(each, entry)]
    collected(*own(), *others, entry)
    REGISTERED[name] = entry


def same(one: Entry, other: Entry) -> bool:
    """True where a class or a function is registered under its name once more.

    What has no name of its own, as a lambda or a partial, is the same only where it is itself.
    """
    if one.name != other.name or one.settings != other.settings:
        return False
    own = [getattr(each.cls, "__qualname__", "<nameless>") for each in (one, other)]
    named = title(one.cls) == title(other.cls) and not any("<" in each for each in own)
    return one.cls is other.cls or named


def entry_of(name: str, value: Any, source: str | None) -> Entry:
    """The entry of what was registered; ValueError if it can be none."""
    if not isinstance(name, str) or not re.fullmatch(r"\w+", name):
        raise ValueError(
            f"A solver's name is of letters, digits and underscores, but this one is {name!r}."
        )
    said = described(value if isinstance(value, type) or not works(value) else type(value)).source
    cls, settings = made_by(value)
    try:
        made = cls(**settings)
    except TypeError as error:
        raise ValueError(
            f"What is registered as {name!r} is made without arguments, but {title(cls)} says: "
            f"{error}. Register a function that makes it."
        ) from error
    if isinstance(made, type) or not works(made):
        raise ValueError(
            f"A Solver or a Chooser is registered, or what makes one, but {name!r} is {made!r}."
        )
    return Entry(name, cls, settings, said if source is None else source, isinstance(made, Solver))


def made_by(value: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What makes a solver, and its arguments: a class or a function itself, or that of a value."""
    if isinstance(value, type) or (callable(value) and not works(value)):
        return value, {}
    if not is_dataclass(value):
        return lambda: value, {}
    known = {each.name: getattr(value, each.name) for each in fields(value) if each.init}
    return type(value), known


def named(name: str) -> Any:
    """The solver or chooser of that name; ValueError with the nearest names if there is none."""
    known = entries()
    if name in CORRECTORS:
        raise ValueError(ALONE)
    if name in PARTIAL:
        raise ValueError(
            f"{name!r} is a solver of a run or a file, which commands fill in: in Python it is "
            f"{PARTIAL[name]['_target_']}(...)."
        )
    if name not in known:
        hint = nearest(name, known)
        raise ValueError(
            f"There is no solver {name!r}{': ' + hint if hint else '.'} All names are in "
            "sg.solvers.catalogue() and sg.solvers.choosers()."
        )
    return known[name].build()


def title(cls: Any) -> str:
    """Where a class or a function is."""
    kind = cls if hasattr(cls, "__qualname__") else type(cls)
    return f"{kind.__module__}.{kind.__qualname__}"


def described(cls: Any) -> Preset:
    """A class as its own preset, by the first line of its docstring."""
    lines = (cls.__doc__ or "").strip().splitlines()
    return Preset({}, lines[0].rstrip(".") if lines else title(cls))

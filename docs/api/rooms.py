"""The pages of the API reference: one for each room, with every public name of it."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import sdegen

OTHERS = ("data", "networks", "metrics", "training", "runs.folder", "interop.diffusers",
          "interop.scheduler", "interop.schedules", "interop.score_sde")  # fmt: skip
"""Rooms and modules that are imported by those who need them."""


def write(folder: Path) -> None:
    """All the pages, those that have changed."""
    pages = {room.__name__.partition(".")[2]: room for room in sdegen.ROOMS}
    for name in OTHERS:
        pages[name] = importlib.import_module(f"sdegen.{name}")
    texts = {name: page(module) for name, module in pages.items()}
    texts["index"] = index(list(pages))
    for name, text in texts.items():
        path = folder / f"{name}.rst"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def names(module: ModuleType) -> list[str]:
    """The public names of a room, or those that a module defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    own = [
        n
        for n, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__
    ]
    return [n for n in own if not n.startswith("_") and inspect.getdoc(vars(module)[n])]


def index(pages: list[str]) -> str:
    """The rooms, and where the names of the top level are."""
    rows = []
    for name in sdegen.__all__:
        value = getattr(sdegen, name)
        if not inspect.ismodule(value):
            rows.append(f"- :py:obj:`sdegen.{name} <{home(name)}>`")
    return "\n".join([
        title("API reference"), "Every public name, room by room.", "", ".. toctree::", "",
        *(f"    {page}" for page in pages), "", "At the top level, as ``import sdegen as sg`` has "
        "them, are", "", *rows, "",
    ])  # fmt: skip


def home(name: str) -> str:
    """The room's name of what the top level has."""
    for room in sdegen.ROOMS:
        if name in room.__all__ and getattr(room, name) is getattr(sdegen, name):
            return f"{room.__name__}.{name}"
    return f"{getattr(sdegen, name).__module__}.{name}"


def page(module: ModuleType) -> str:
    """A room: what it is, and all of its names."""
    lines = [title(module.__name__), f".. automodule:: {module.__name__}", "   :no-members:", ""]
    for name in names(module):
        lines += entry(module, name, getattr(module, name))
    return "\n".join(lines)


def entry(module: ModuleType, name: str, value: Any) -> list[str]:
    """The directive of a name."""
    full = f"{module.__name__}.{name}"
    if inspect.ismodule(value):
        return [f".. automodule:: {value.__name__}", "   :members:", ""]
    if inspect.isclass(value):
        return [f".. autoclass:: {full}", "   :members:", "   :show-inheritance:", ""]
    kind = "autofunction" if inspect.isroutine(value) else "autodata"
    return [f".. {kind}:: {full}", *(["   :no-value:"] if kind == "autodata" else []), ""]


def title(text: str) -> str:
    """Of a page."""
    return f"{text}\n{'=' * len(text)}\n"

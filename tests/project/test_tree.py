"""The tree: imports go down the floors, never up, and never in a circle."""

from __future__ import annotations

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import sdegen as sg
from tests.cases import ROOT

FLOORS = (
    ("checks", "files", "sde", "networks", "data", "plots", "workers"),
    ("noise", "model", "walks", "text"),
    ("solvers", "guidance"),
    ("programs",),
    ("sampling",),
    ("likelihood", "tuning", "exact", "metrics", "interop"),
    ("losses", "editing", "latents"),
    ("training", "distill"),
    ("runs",),
    ("bench",),
    ("report",),
    ("cli",),
)
"""From the ground up: a room imports from floors below its own alone."""

GROUND = {"checks": 0, "files": 0}
"""What the rooms of the ground floor may import of one another: these two import nothing."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, packages themselves left out."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted((ROOT / "sdegen").rglob("*.py"))
        if path.name != "__init__.py" or path.parent.name == "launcher"
    }


def imported(path: Path) -> set[str]:
    """The dotted names that a module imports of the package, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sdegen"):
            known = modules()
            rooms = {f"sdegen.{name}" for floor in FLOORS for name in floor}
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in known or full in rooms else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("sdegen")}
    return found


def room(name: str) -> str:
    """The room that a module is in."""
    return name.split(".")[1]


def test_every_room_has_a_floor() -> None:
    rooms = {room(name) for name in modules()}
    assert rooms == {name for floor in FLOORS for name in floor}


def test_imports_go_down() -> None:
    """Function-level imports too: an arrow that is hidden is an arrow."""
    floor = {name: i for i, names in enumerate(FLOORS) for name in names}
    up = []
    inits = {f"sdegen.{each}.__init__": ROOT / "sdegen" / each / "__init__.py" for each in floor}
    known = {name: path for name, path in inits.items() if path.is_file()}
    for name, path in {**modules(), **known}.items():
        for other in imported(path):
            if other == "sdegen" or room(other) == room(name):
                continue
            below = floor[room(other)] < floor[room(name)]
            if not (below or (floor[room(name)] == 0 and room(other) in GROUND)):
                up.append(f"{name} -> {other}")
    assert not up


def test_no_circle() -> None:
    graph = {name: imported(path) & modules().keys() for name, path in modules().items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name] - {name}):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_every_room_of_the_top_level_is_one_of_its_names() -> None:
    """A namespace that is asked where a name is can be had by a star, too."""
    assert {room.__name__.split(".")[-1] for room in sg.ROOMS} <= set(sg.__all__)


TELEGRAPHIC = (
    *("settled", "usual", "travel", "some", "there", "spent", "carried", "entire", "broken"),
    *("bounded", "grown", "mapped", "taken", "reach"),
)


def test_helpers_have_words_that_need_no_caller() -> None:
    """Nor has what cuts a batch another name than ``take``."""
    named = re.compile(rf"def _?({'|'.join(TELEGRAPHIC)})\(|def rows\(.*index", re.MULTILINE)
    found = {
        str(path.relative_to(ROOT)): said
        for path in (ROOT / "sdegen").rglob("*.py")
        if (said := [match.group() for match in named.finditer(path.read_text())])
    }
    assert not found


def test_no_name_hides_a_module() -> None:
    """What a room exports is never called as one of its own modules is."""
    for init in (ROOT / "sdegen").rglob("__init__.py"):
        names = {p.stem for p in init.parent.iterdir() if p.suffix == ".py" or p.is_dir()}
        package = ".".join(init.parent.relative_to(ROOT).parts)
        if "launcher" in package:
            continue
        exported = getattr(importlib.import_module(package), "__all__", ())
        hidden = [
            name
            for name in exported
            if name in names
            and type(getattr(importlib.import_module(package), name)).__name__ != "module"
        ]
        assert not hidden, f"{package}: {hidden}"


def test_a_room_is_two_levels_deep_at_most() -> None:
    assert not [name for name in modules() if name.count(".") > 2 and "launcher" not in name]


def test_tests_mirror_the_rooms() -> None:
    """A folder of tests is a room, or watches the project; no test module imports another."""
    rooms = {name for floor in FLOORS for name in floor}
    folders = {path.parent.name for path in (ROOT / "tests").rglob("*.py")} - {"tests"}
    assert folders <= rooms | {"docs", "project"}
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").split(".")[-1].startswith("test_"), path


def test_the_map_is_of_the_tree() -> None:
    """docs/rooms.md names every file and every public name, where it is, and no other."""
    page = (ROOT / "docs" / "rooms.md").read_text(encoding="utf-8")
    said = re.findall(r"^\| (sdegen/\S+\.py) \| .*?\|(.*)$", page, re.M)
    rows = dict(said)
    assert len(rows) == len(said)  # each once
    files = {str(path.relative_to(ROOT)) for path in modules().values()}
    assert files - {"sdegen/bench/launcher/__init__.py"} == set(rows)
    headed = re.findall(r"^## (\w+)$", page, re.M)
    assert headed == [
        name for floor in FLOORS for name in floor if (ROOT / "sdegen" / name).is_dir()
    ]
    for name in headed:
        public = getattr(importlib.import_module(f"sdegen.{name}"), "__all__", ())
        named = {file: set(re.findall(r"`(\w+)`", row)) for file, row in rows.items()}
        here = {file: found for file, found in named.items() if f"/{name}/" in file}
        assert set(public) <= set().union(*here.values()), name
        for file, found in here.items():
            module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
            assert all(hasattr(module, each) or module.__name__.endswith(each) for each in found)


def test_every_top_level_name_is_on_the_map_with_a_star() -> None:
    page = (ROOT / "docs" / "rooms.md").read_text(encoding="utf-8")
    rooms = {name for floor in FLOORS for name in floor}
    assert set(re.findall(r"`(\w+)`\*", page)) == set(sg.__all__) - rooms

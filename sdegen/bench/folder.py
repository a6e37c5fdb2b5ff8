"""A folder of points: what it holds is not done again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sdegen.bench.peers import Peer
from sdegen.bench.point import VERSION, Settings, about, key_of, library_of, measure
from sdegen.checks import text, texts
from sdegen.files import clear_parts, read_json, write_json
from sdegen.runs.build import build
from sdegen.runs.settings import Node
from sdegen.sampling.choice import Chooser, Recommended
from sdegen.sde.process import linear
from sdegen.solvers import Solver


@dataclass(frozen=True)
class BenchSettings(Settings):
    """Of ``sdegen-bench``: what is compared, where the points lie, and how one is measured.

    nfe, steps: budgets, a number or some; steps, where given, take the place of nfe.  tol: of
    solvers that choose their own steps.  choices: the names that the groups were chosen by.
    """

    problem: Node | None = None
    sde: Node | None = None
    solver: Node | None = None
    walk: Node | None = None
    folder: str = "outputs/bench"
    nfe: Any = None
    steps: Any = None
    tol: Any = None
    packages: list[str] | None = None
    choices: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        text("folder", self.folder), texts("packages", self.packages or [])

    @property
    def measured(self) -> Settings:
        """How a point is measured."""
        return Settings(**{each.name: getattr(self, each.name) for each in fields(Settings)})

    def named(self, group: str) -> str:
        """The name by which a group was chosen."""
        name: str | None = (self.choices or {}).get(group)
        if name is None:
            raise ValueError(f"There is no {group}: give {group}=NAME, one of its group.")
        return name

    def budgets(self, adaptive: bool) -> Iterator[dict[str, Any]]:
        """One after the other: nfe, steps or tol.  ValueError for one that nothing can meet."""
        key = "tol" if adaptive else "nfe" if self.steps is None else "steps"
        given = getattr(self, key)
        if given == []:
            raise ValueError(f"{key} is an empty list: give a number, or some.")
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{key} must be a positive number, or some, but it is {value!r}.")
            if not adaptive and not isinstance(value, int):
                raise ValueError(f"{key} must be a whole number, but it is {value!r}.")
            yield {key: value}


def measured(settings: BenchSettings) -> Iterator[dict[str, Any]]:
    """All budgets of one problem, SDE, solver and walk, a point each that is not there already."""
    folder, packages = Path(settings.folder), settings.packages or []
    for group in ("problem", "sde", "solver"):
        settings.named(group)
    claim_version(folder, VERSION)
    problem = build(settings.problem, packages)
    sde = linear(build(settings.sde, packages), "sdegen-bench", "choose a linear SDE")
    solver, walk = build(settings.solver, packages), build(settings.walk, packages) or None
    made_with = about(settings.device)
    if not isinstance(solver, Solver | Peer | Chooser):
        name = settings.named("solver")
        raise ValueError(f"solver={name} is none that can be compared by itself.")
    adaptive = isinstance(solver, Solver | Peer) and solver.traits.adaptive
    gridded = isinstance(solver, Solver | Peer) and not adaptive
    for budget in settings.budgets(adaptive):
        named = {
            **{group: settings.named(group) for group in ("problem", "sde", "solver")},
            "walk": settings.named("walk") if gridded else None,
            **budget,
            **asdict(settings.measured),
        }
        parts: dict[str, Any] = {
            "problem": settings.problem,
            "sde": settings.sde,
            "solver": settings.solver,
            "walk": settings.walk if gridded else None,
        }
        if isinstance(solver, Recommended) and "nfe" in budget:
            rule = solver.choose(problem.model(sde), problem.shape, budget["nfe"])
            parts["walk"] = repr(rule)  # which may change
        path = folder / "points" / f"{key_of({**named, 'parts': parts})}.json"
        if path.is_file() and "failed" not in read_json(path):
            continue
        try:
            found = measure(
                problem, sde, solver, settings.measured, folder=folder, walk=walk, **budget
            )
        except ValueError as error:
            found = {"failed": " ".join(str(error).split())}
        except Exception as error:  # what another library raises is a hole too, and no end
            found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        path.parent.mkdir(exist_ok=True)
        point = {"version": VERSION, "library": library_of(solver), "settings": named}
        point |= {"parts": parts, "about": made_with, **found}
        write_json(path, point)
        yield point


def claim_version(folder: Path, version: int) -> None:
    """A folder of results of this version; ValueError if it holds those of another."""
    path = folder / "bench.json"
    folder.mkdir(parents=True, exist_ok=True)
    clear_parts(folder / "points", age=3600)  # others may be writing theirs
    held = read_json(path) if path.is_file() else None
    if held is None:
        write_json(path, {"version": version})
    elif held != {"version": version}:
        raise ValueError(
            f"{folder} holds results of version {held.get('version')!r}, but this is {version}: "
            "give another folder=..."
        )


def line(point: Mapping[str, Any]) -> str:
    """A point for the terminal."""
    named = point["settings"]
    where = " ".join(f"{key}={named[key]}" for key in ("problem", "sde", "solver", "walk"))
    budget = next(f"{key}={named[key]}" for key in ("nfe", "steps", "tol") if key in named)
    if "failed" in point:
        return f"{where} {budget}: failed, {point['failed']}"
    errors = "  ".join(f"{name} {value:.3g}" for name, value in point["errors"].items())
    return f"{where} {budget}: {errors}  ({point['nfe']} calls)"

"""A folder of points, and what they say: errors of every choice in every cell."""

from __future__ import annotations

import csv
import gzip
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sdegen.bench.point import VERSION


class Choice(NamedTuple):
    """A method as one would choose it beforehand."""

    library: str
    solver: str
    walk: str | None

    @property
    def ours(self) -> bool:
        """Whether it is one of sdegen's."""
        return self.library == "sdegen"

    @property
    def blind(self) -> bool:
        """Whether it can be taken before the problem is seen."""
        return not self.solver.startswith("tuned")

    @property
    def rule(self) -> bool:
        """Whether it looks at the number of network calls: sdegen's recommendation."""
        return self.solver == "recommended"

    def __str__(self) -> str:
        return self.solver if self.walk is None else f"{self.solver} / {self.walk}"


class Cell(NamedTuple):
    """A problem under an SDE with a budget of network calls."""

    problem: str
    sde: str
    nfe: int


Errors = Mapping[Choice, Mapping[Cell, float]]
"""Errors of choices, by cell."""


@dataclass(frozen=True)
class Results:
    """points: all that succeeded.  holes: those that did not, each with its reason."""

    points: list[dict[str, Any]]
    holes: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Those of "path" or "law" that are compared with one another."""
        return [p for p in self.points if p["kind"] == kind and not why_apart(p)]

    @cached_property
    def aside(self) -> list[dict[str, Any]]:
        """Those that are not: ``why_apart`` says why."""
        return [point for point in self.points if why_apart(point)]

    @cached_property
    def budgets(self) -> list[int]:
        """The numbers of network calls that were asked for."""
        return budgets_asked_for(self.of("path"))

    def errors(self, measure: str = "median") -> Errors:
        """Each choice's error at each budget, no smaller than what the reference is sure of."""
        return tabulated(
            self.of("path"), lambda p: max(p["errors"][measure], p["agreement"], 1e-15)
        )

    def distances(self, measure: str = "sliced") -> Errors:
        """Of samplers with noise."""
        return tabulated(self.of("law"), lambda p: p["errors"][measure])

    def weak(self, measure: str = "variance") -> Errors:
        """Of those with noise whose law is known exactly."""
        return tabulated([p for p in self.of("law") if "weak" in p], lambda p: p["weak"][measure])

    def strong(self, measure: str = "median") -> Errors:
        """Of those with noise that were held against a solution on the same Brownian path."""
        return tabulated(
            [p for p in self.of("law") if "strong" in p],
            lambda p: max(p["strong"][measure], p["strong"]["agreement"], 1e-15),
        )

    def libraries(self) -> list[str]:
        """The other libraries that took part."""
        return sorted({p["library"] for p in self.points} - {"sdegen"})


def why_apart(point: Mapping[str, Any]) -> str:
    """Why a point is not compared with the others; nothing if it is."""
    s = point["settings"]
    reasons = [
        ("in " + s["dtype"], s["dtype"] != "float64"),
        ("on " + s.get("device", "cpu"), s.get("device", "cpu") != "cpu"),
        ("for a number of steps instead of network calls", "steps" in s),
    ]
    return ", ".join(why for why, holds in reasons if holds)


def budgets_asked_for(points: Iterable[Mapping[str, Any]]) -> list[int]:
    """The numbers of network calls that points were asked to keep to."""
    return sorted({p["settings"]["nfe"] for p in points if "nfe" in p["settings"]})


def tabulated(
    points: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], float]
) -> Errors:
    """What a point says, by choice and cell.

    Of an adaptive solver what the tightest tolerance within a budget says, which is no look at
    errors.  ValueError for points of a cell that differ in settings the names do not show.
    """
    found: dict[Choice, dict[Cell, float]] = defaultdict(dict)
    taken: dict[tuple[Choice, Cell], float] = {}
    budgets = budgets_asked_for(points)
    for point in points:
        s, choice = point["settings"], choice_of(point)
        for nfe in budgets if "tol" in s else [s["nfe"]]:
            cell = Cell(s["problem"], s["sde"], nfe)
            tightness = 1 / s["tol"] if "tol" in s else 0.0
            known = taken.get((choice, cell), -1.0)
            if known == tightness:
                raise ValueError(
                    f"Two points are {choice} at {' '.join(map(str, cell))}: they differ in "
                    "settings that have no name. Keep what is to be compared in a folder of "
                    "its own."
                )
            if ("tol" not in s or point["nfe"] <= nfe) and tightness > known:
                taken[choice, cell] = tightness
                found[choice][cell] = value(point)
    return dict(found)


def choice_of(point: Mapping[str, Any]) -> Choice:
    """The method of a point."""
    s = point["settings"]
    return Choice(point["library"], s["solver"], s["walk"])


def load(folder: Path) -> Results:
    """All points of a folder, or of the table that a report leaves; ValueError if there are none,
    or of another version."""
    if folder.is_file():
        return read_csv(folder)
    paths = sorted((folder / "points").glob("*.json"))
    if not paths:
        raise ValueError(f"There are no points in {folder}: run sdegen-bench first.")
    from sdegen.files import read_json

    points, holes = list[dict[str, Any]](), list[dict[str, Any]]()
    for path in paths:
        point = read_json(path)
        if point.get("version") != VERSION:
            raise ValueError(
                f"{path} is of version {point.get('version')!r}, but this is {VERSION}: make it "
                "anew."
            )
        (holes if "failed" in point else points).append(point)
    return Results(points, holes)


NAMES, WHOLE = ("problem", "sde", "solver", "walk", "dtype", "device"), ("nfe", "steps")
COUNTS = ("n", "draws", "seed")
MEASURED = {
    "errors": ("rms", "median", "q90", "sliced", "energy", "mmd"),
    "floor": ("sliced", "energy", "mmd"),
    "weak": ("mean", "variance"),
    "strong": ("median", "agreement"),
}
ABOUT = ("sdegen", "commit", "torch", "python", "machine")
COLUMNS = (
    *("library", "kind", *NAMES, *WHOLE, "tol", *COUNTS, "calls", "agreement"),
    *(f"{group} {name}" for group, names in MEASURED.items() for name in names),
    *(*ABOUT, "failed"),
)
"""Of the published table: what a point's file says, but for its costs."""


def write_csv(results: Results, path: Path) -> None:
    """All points, one line each, gzipped: the page can be made of it again."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for point in [*results.points, *results.holes]:
        flat = {**point["about"], **point["settings"], "library": point["library"]}
        if "failed" in point:
            flat["failed"] = point["failed"]
        else:
            flat |= {"kind": point["kind"], "calls": point["nfe"]}
            for group, names in MEASURED.items():
                values = point.get(group, {})
                flat |= {f"{group} {n}": f"{values[n]:.5g}" for n in names if n in values}
            if "agreement" in point:
                flat["agreement"] = f"{point['agreement']:.2g}"
        table.writerow([flat.get(name, "") for name in COLUMNS])
    # No name and no time in its head: the same points make the same file.
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def read_csv(path: Path) -> Results:
    """What ``write_csv`` wrote; ValueError for a table of other columns."""
    points, holes = list[dict[str, Any]](), list[dict[str, Any]]()
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path} is no table of this version's points: make it anew.")
        for row in table:
            settings: dict[str, Any] = {name: row[name] for name in NAMES if row[name]}
            settings.setdefault("walk", None)
            settings |= {name: int(row[name]) for name in (*WHOLE, *COUNTS) if row[name]}
            settings |= {"tol": float(row["tol"])} if row["tol"] else {}
            point: dict[str, Any] = {"library": row["library"], "settings": settings}
            point["about"] = {name: row[name] or None for name in ABOUT}
            if row["failed"]:
                holes.append({**point, "failed": row["failed"]})
                continue
            for group, names in MEASURED.items():
                known = {n: float(row[f"{group} {n}"]) for n in names if row[f"{group} {n}"]}
                point |= {group: known} if known else {}
            point |= {"agreement": float(row["agreement"])} if row["agreement"] else {}
            points.append({**point, "kind": row["kind"], "nfe": int(row["calls"])})
    return Results(points, holes)

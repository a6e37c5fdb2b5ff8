"""A folder of points, and what they say: errors of every choice in every cell."""

from __future__ import annotations

import csv
import gzip
import io
import json
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
        return [p for p in self.points if p["kind"] == kind and not apart(p)]

    @cached_property
    def aside(self) -> list[dict[str, Any]]:
        """Those that are not: ``apart`` says why."""
        return [point for point in self.points if apart(point)]

    @cached_property
    def budgets(self) -> list[int]:
        """The numbers of network calls that were asked for."""
        return asked(self.of("path"))

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


def apart(point: Mapping[str, Any]) -> str:
    """Why a point is not compared with the others; nothing if it is."""
    s = point["settings"]
    reasons = [
        ("in " + s["dtype"], s["dtype"] != "float64"),
        ("on " + s.get("device", "cpu"), s.get("device", "cpu") != "cpu"),
        ("for a number of steps instead of network calls", "steps" in s),
    ]
    return ", ".join(why for why, holds in reasons if holds)


def asked(points: Iterable[Mapping[str, Any]]) -> list[int]:
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
    budgets = asked(points)
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
    """All points of a folder; ValueError if there are none, or of another version."""
    paths = sorted((folder / "points").glob("*.json"))
    if not paths:
        raise ValueError(f"There are no points in {folder}: run sdegen-bench first.")
    points, holes = list[dict[str, Any]](), list[dict[str, Any]]()
    for path in paths:
        point = json.loads(path.read_text(encoding="utf-8"))
        if point.get("version") != VERSION:
            raise ValueError(
                f"{path} is of version {point.get('version')!r}, but this is {VERSION}: make it "
                "anew."
            )
        (holes if "failed" in point else points).append(point)
    return Results(points, holes)


COLUMNS = ("problem", "sde", "solver", "walk", "nfe", "steps", "tol", "dtype", "device")


def write_csv(results: Results, path: Path) -> None:
    """All points, one line each, gzipped: what a reader needs who wants other figures."""
    errors = ("rms", "median", "q90", "sliced", "energy", "mmd")
    others = (("strong", "median"), ("weak", "mean"), ("weak", "variance"))
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["library", *COLUMNS, "calls", *errors, *map(" ".join, others), "failed"])
    for point in [*results.points, *results.holes]:
        known = point.get("errors", {})
        table.writerow(
            [point["library"]]
            + [point["settings"].get(name, "") for name in COLUMNS]
            + [point.get("nfe", "")]
            + [f"{known[name]:.4g}" if name in known else "" for name in errors]
            + [f"{point[kind][name]:.4g}" if kind in point else "" for kind, name in others]
            + [point.get("failed", "")]
        )
    # No name and no time in its head: the same points make the same file.
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))

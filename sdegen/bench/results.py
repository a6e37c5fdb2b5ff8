"""What a folder of points says: curves, the best at every budget, and choices held fixed."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sdegen.bench.point import VERSION

PROBLEMS = ("gaussian", "mixture", "stiff", "low_rank", "digits", "photo_patches", "run")
SDES = ("vp", "subvp", "cosine", "ve", "edm", "flow")
"""The order of panels."""


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

    def __str__(self) -> str:
        return self.solver if self.walk is None else f"{self.solver} / {self.walk}"


class Cell(NamedTuple):
    """A problem under an SDE with a budget of network calls."""

    problem: str
    sde: str
    nfe: int


@dataclass(frozen=True)
class Results:
    """points: all that succeeded.  holes: those that did not, each with its reason."""

    points: list[dict[str, Any]]
    holes: list[dict[str, Any]]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Those of "path" or "law"."""
        return [point for point in self.points if point["kind"] == kind]

    @cached_property
    def budgets(self) -> list[int]:
        """The numbers of network calls that were asked for."""
        asked = {p["settings"]["nfe"] for p in self.of("path") if "nfe" in p["settings"]}
        return sorted(asked)

    def errors(self, measure: str = "median") -> dict[Choice, dict[Cell, float]]:
        """Each choice's error at each budget, no smaller than what the reference is sure of.

        Of an adaptive solver that of the tightest tolerance within it, which is no look at errors.
        ValueError for points of a cell that differ in settings the names do not show.
        """
        found: dict[Choice, dict[Cell, float]] = defaultdict(dict)
        taken: dict[tuple[Choice, Cell], float] = {}
        for point in self.of("path"):
            s, choice = point["settings"], choice_of(point)
            error = max(point["errors"][measure], point["agreement"], 1e-15)
            if s["dtype"] != "float64" or "steps" in s:
                continue
            for nfe in self.budgets if "tol" in s else [s["nfe"]]:
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
                    found[choice][cell] = error
        return dict(found)

    def libraries(self) -> list[str]:
        """The other libraries that took part."""
        return sorted({p["library"] for p in self.points} - {"sdegen"})


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


COLUMNS = ("problem", "sde", "solver", "walk", "nfe", "steps", "tol", "dtype")


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


class Best(NamedTuple):
    """Who was best in a cell, and its error."""

    choice: Choice
    error: float


def best(
    errors: Mapping[Choice, Mapping[Cell, float]], cell: Cell, ours: bool | None = None
) -> Best | None:
    """Of sdegen's (True), of the others' (False), or of all (None)."""
    known = [
        Best(choice, row[cell])
        for choice, row in errors.items()
        if cell in row and math.isfinite(row[cell]) and ours in (None, choice.ours)
    ]
    return min(known, key=lambda b: b.error, default=None)


class Fixed(NamedTuple):
    """A choice held fixed: its error beside the best in hindsight, as geometric means."""

    choice: Choice
    ratio: float


def fixed(errors: Mapping[Choice, Mapping[Cell, float]], cells: Iterable[Cell]) -> list[Fixed]:
    """Every choice, made before the problem is seen, that solved all the cells; best first."""
    cells, errors = list(cells), {c: row for c, row in errors.items() if c.blind}
    hindsight = {cell: best(errors, cell) for cell in cells}
    found = []
    for choice, row in errors.items():
        if cells and all(cell in row and math.isfinite(row[cell]) for cell in cells):
            logs = [math.log(row[c] / hindsight[c].error) for c in cells]  # type: ignore[union-attr]
            found.append(Fixed(choice, math.exp(sum(logs) / len(logs))))
    return sorted(found, key=lambda f: f.ratio)


def cells_of(errors: Mapping[Choice, Mapping[Cell, float]]) -> list[Cell]:
    """All the cells, problems and SDEs in the order of panels."""
    order = {name: i for i, name in enumerate((*PROBLEMS, *SDES))}
    every = {cell for row in errors.values() for cell in row}
    return sorted(every, key=lambda c: (order.get(c.problem, 99), order.get(c.sde, 99), c.nfe))

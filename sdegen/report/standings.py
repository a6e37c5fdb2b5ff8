"""Who is best: with hindsight, as one choice for everything, or as one for every budget."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from sdegen.bench.results import Cell, Choice, Errors

PROBLEMS = ("gaussian", "mixture", "stiff", "low_rank", "digits", "photo_patches", "run")
SDES = ("vp", "subvp", "cosine", "ve", "edm", "flow")
"""The order of panels."""
TIE = 1.001
"""Methods that are the same formula differ in the last digits."""


class Best(NamedTuple):
    """Who was best in a cell, and its error."""

    choice: Choice
    error: float


def best(errors: Errors, cell: Cell, ours: bool | None = None) -> Best | None:
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


def fixed(errors: Errors, cells: Iterable[Cell]) -> list[Fixed]:
    """Every choice, made before the problem is seen, that solved all the cells; best first."""
    cells, errors = list(cells), {c: row for c, row in errors.items() if c.blind}
    hindsight = [
        min(
            (row[c] for row in errors.values() if c in row and row[c] < math.inf), default=math.nan
        )
        for c in cells
    ]
    found = []
    for choice, row in errors.items():
        known = [row[c] for c in cells if c in row and math.isfinite(row[c])]
        if cells and len(known) == len(cells):
            ratio = mean(e / least for e, least in zip(known, hindsight, strict=True))
            found.append(Fixed(choice, ratio))
    return sorted(found, key=lambda f: f.ratio)


def freely(errors: Errors, cells: Iterable[Cell], ours: bool) -> float | None:
    """As ``fixed``, of one side that may choose anew for every number of network calls.

    Of its choices the best at each, over all problems and SDEs; None if it has none at some.
    """
    cells, ratios = list(cells), list[float]()
    for nfe in sorted({cell.nfe for cell in cells}):
        part = [cell for cell in cells if cell.nfe == nfe]
        first = next((f for f in fixed(errors, part) if f.choice.ours == ours), None)
        if first is None:
            return None
        ratios += [first.ratio] * len(part)
    return mean(ratios) if ratios else None


class Pair(NamedTuple):
    """The best of both sides in a cell."""

    cell: Cell
    mine: Best
    theirs: Best

    @property
    def ratio(self) -> float:
        """Our error beside theirs."""
        return self.mine.error / self.theirs.error

    @property
    def late(self) -> bool:
        """Whether ours is behind."""
        return self.ratio > TIE


def pairs(errors: Errors, cells: Iterable[Cell]) -> list[Pair]:
    """Of the cells in which both sides have points."""
    both = [(c, best(errors, c, True), best(errors, c, False)) for c in cells]
    return [Pair(c, mine, theirs) for c, mine, theirs in both if mine and theirs]


def mean(ratios: Iterable[float]) -> float:
    """The geometric one."""
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs))


def cells_of(errors: Errors) -> list[Cell]:
    """All the cells, problems and SDEs in the order of panels."""
    order = {name: i for i, name in enumerate((*PROBLEMS, *SDES))}
    every = {cell for row in errors.values() for cell in row}
    return sorted(every, key=lambda c: (order.get(c.problem, 99), order.get(c.sde, 99), c.nfe))

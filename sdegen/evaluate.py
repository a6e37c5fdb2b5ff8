"""What a trained model is worth: solvers side by side at equal budgets of network calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.data import ArrayData
from sdegen.march import Solution, plan, solve
from sdegen.metrics import fit_classifier, frechet_distance, sliced_wasserstein
from sdegen.reverse import Reverse
from sdegen.score import ScoreModel
from sdegen.solvers.solver import Solver, check


@dataclass(frozen=True)
class Row:
    """One line of the table: a solver at a budget, or the floor (real against real).

    frechet: between features of a classifier trained on the spot; None for data without classes.
    sliced:  sliced Wasserstein distance. failed: samples that are not finite.
    """

    solver: str
    budget: int | None
    nfe: int | None
    seconds: float | None
    frechet: float | None
    sliced: float
    failed: int = 0


class Quality:
    """Distances of samples to held-out data, with as many real samples as generated ones.

    Labelled images are also compared in the features of a small classifier, trained on the
    training half. ``floor`` is the training half's own distance: what a perfect model would get.
    """

    def __init__(self, train: ArrayData, test: ArrayData, n: int = 1000) -> None:
        self.n = min(len(train), len(test), n)
        self.real = test.x[: self.n]
        images = train.x.ndim == 4 and train.classes > 1
        self.features: Callable[[Tensor], Tensor] | None = (
            fit_classifier(train.x, train.y).features if images else None
        )
        self.floor = Row("real data (floor)", None, None, None, *self.distances(train.x[: self.n]))

    def distances(self, x: Tensor) -> tuple[float | None, float]:
        """Frechet distance in features, and sliced Wasserstein distance, of samples x (b, *)."""
        x = x.float().cpu()
        frechet = None
        if self.features is not None:
            with torch.no_grad():
                frechet = frechet_distance(self.features(x), self.features(self.real))
        return frechet, sliced_wasserstein(x, self.real)

    def row(self, name: str, budget: int | None, solution: Solution, seconds: float) -> Row:
        """The line of a solved batch; samples that failed are counted and left out."""
        good = solution.x[solution.status == 0]
        distances = self.distances(good) if len(good) > 1 else (None, float("nan"))
        failed = len(solution.x) - len(good)
        return Row(name, budget, int(solution.nfe.max()), seconds, *distances, failed)


def timed(model: ScoreModel, start: Sequence[int] | Tensor, **how: Any) -> tuple[Solution, float]:
    """``solve`` and the seconds it took."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    solution = solve(model, start, **how)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return solution, time.perf_counter() - begun


def refuse_early(
    model: ScoreModel, solvers: Mapping[str, Solver], budgets: Sequence[int], walk: Any
) -> None:
    """Raise now what ``compare`` would raise only after the training."""
    for solver in solvers.values():
        check(solver, Reverse(model, solver.eta))
        for budget in budgets:
            steps = {} if solver.adaptive else {"nfe": budget}
            plan(model.sde, solver, steps.get("steps"), steps.get("nfe"), walk)


def compare(
    model: ScoreModel,
    quality: Quality,
    shape: Sequence[int],
    solvers: Mapping[str, Solver],
    budgets: Sequence[int],
    *,
    walk: Any = None,
    seed: int = 0,
) -> Iterator[tuple[Row, Solution]]:
    """Every solver at every budget from the same seeds; an adaptive one once, at its own."""
    for name, solver in solvers.items():
        for budget in [None] if solver.adaptive else budgets:
            solution, seconds = timed(
                model, (quality.n, *shape), solver=solver, nfe=budget, walk=walk, seed=seed
            )
            yield quality.row(name, budget, solution, seconds), solution


def table(rows: Sequence[Row]) -> str:
    """The rows as text for a terminal."""
    head = ["solver", "NFE", "seconds", "Frechet", "sliced W2", "failed"]
    cells = [
        [
            row.solver,
            "" if row.nfe is None else str(row.nfe),
            "" if row.seconds is None else f"{row.seconds:.2f}",
            "" if row.frechet is None else f"{row.frechet:.3f}",
            f"{row.sliced:.4f}",
            str(row.failed) if row.failed else "",
        ]
        for row in rows
    ]
    if not any(row.failed for row in rows):
        head, cells = head[:-1], [line[:-1] for line in cells]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]

    def text(line: list[str]) -> str:
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        return "  ".join([first.strip().ljust(widths[0]), *rest])

    return "\n".join([text(head), "-" * len(text(head)), *map(text, cells)])


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for a JSON file."""
    return [asdict(row) for row in rows]

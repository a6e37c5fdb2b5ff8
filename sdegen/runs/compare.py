"""What a trained model is worth: solvers side by side at equal budgets of network calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from sdegen.metrics.quality import Quality, Row, row_of
from sdegen.model.score import ScoreModel
from sdegen.sampling.choice import Chooser, Recommended
from sdegen.sampling.march import Solution, solve
from sdegen.sampling.plan import Plan
from sdegen.solvers.solver import Solver


def timed_solve(
    model: ScoreModel, start: Sequence[int] | Tensor, **how: Any
) -> tuple[Solution, float]:
    """``solve`` and the seconds it took."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    solution = solve(model, start, **how)
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return solution, time.perf_counter() - begun


def as_is(states: Tensor) -> Tensor:
    """States that are data themselves."""
    return states


def budgets_of(solver: Solver | Chooser, budgets: Sequence[int]) -> Sequence[int | None]:
    """The budgets that a solver is compared at; none of ours, once, if it chooses its steps."""
    adaptive = isinstance(solver, Solver) and solver.traits.adaptive
    return [None] if adaptive else budgets


def refuse_early(
    model: ScoreModel, solvers: Mapping[str, Solver | Chooser], budgets: Sequence[int], walk: Any
) -> None:
    """Raise now what ``compare`` would raise only after the training.

    A chooser that looks at the model is asked when there is one to look at.
    """
    for solver in solvers.values():
        if isinstance(solver, Solver | Recommended):
            for budget in budgets_of(solver, budgets):
                Plan.of(model, solver=solver, nfe=budget, walk=walk, seed=0)


def compare(
    model: ScoreModel,
    quality: Quality | None,
    shape: Sequence[int],
    solvers: Mapping[str, Solver | Chooser],
    budgets: Sequence[int],
    *,
    walk: Any = None,
    seed: int = 0,
    decoded: Callable[[Tensor], Tensor] = as_is,
) -> Iterator[tuple[Row, Solution]]:
    """Every solver at every budget, samples of a shape (n, *) from the same seeds; an adaptive
    one once, at its own budget.  decoded: states as data, which are measured and returned."""
    for name, solver in solvers.items():
        for budget in budgets_of(solver, budgets):
            solution, seconds = timed_solve(
                model, shape, solver=solver, nfe=budget, walk=walk, seed=seed
            )
            solution = replace(solution, x=decoded(solution.x))
            yield row_of(name, budget, solution, seconds, quality), solution


def table(rows: Sequence[Row]) -> str:
    """The rows as text for a terminal, without columns that have no number."""
    head = ["solver", "NFE", "seconds", "Frechet", "sliced W2", "failed"]
    cells = [
        [
            row.solver,
            "" if row.nfe is None else str(row.nfe),
            "" if row.seconds is None else f"{row.seconds:.2f}",
            "" if row.frechet is None else f"{row.frechet:.3f}",
            "" if row.sliced is None else f"{row.sliced:.4f}",
            str(row.failed) if row.failed else "",
        ]
        for row in rows
    ]
    some = [i for i in range(len(head)) if i == 0 or any(line[i] for line in cells)]
    head, *cells = [[line[i] for i in some] for line in (head, *cells)]
    widths = [max(len(line[i]) for line in [head, *cells]) for i in range(len(head))]

    def text(line: list[str]) -> str:
        first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        return "  ".join([first.strip().ljust(widths[0]), *rest])

    return "\n".join([text(head), "-" * len(text(head)), *map(text, cells)])


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for a JSON file."""
    return [asdict(row) for row in rows]


def value_of(rows: Sequence[Row], objective: str | None) -> float | None:
    """The last row's number of that name, None without one; ValueError where it was not
    measured."""
    if objective is None:
        return None
    value: float | None = getattr(rows[-1], objective)
    if value is None:
        raise ValueError(f"objective={objective}, but of {rows[-1].solver} there is none.")
    return value

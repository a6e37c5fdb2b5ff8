"""What a finished run leaves behind: weights, pictures and a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdegen.files import write_json, write_tensors
from sdegen.metrics.quality import Quality, Row
from sdegen.model.score import ScoreModel
from sdegen.runs.compare import as_json, budgets_of, compare
from sdegen.runs.folder import WEIGHTS, gather, given_labels, weights_header
from sdegen.runs.pictures import curve, picture, trajectory
from sdegen.runs.settings import Comparison
from sdegen.sampling.choice import Chooser
from sdegen.solvers.solver import Solver


def finish(
    model: ScoreModel,
    config: dict[str, Any],
    compared: Comparison,
    folder: Path,
    data: Any,
    test: Any,
    solvers: Mapping[str, Solver | Chooser],
    walk: Any,
) -> list[Row]:
    """Sample with every solver at every budget; write weights, pictures and the table.

    The table's rows, that of real data first.
    """
    from tqdm import tqdm

    budgets, seed = compared.budgets, compared.seed
    write_tensors(folder / WEIGHTS, model.state_dict(), weights_header(config, data))
    curve(folder)
    quality = Quality(gather(data), gather(test))
    classes = data.classes if config["conditional"] else 0
    model = given_labels(model, quality.n, classes)
    rows = [quality.floor]
    runs = sum(len(budgets_of(solver, budgets)) for solver in solvers.values())
    results = compare(model, quality, data.shape, solvers, budgets, walk=walk, seed=seed)
    for row, solution in tqdm(results, total=runs, desc="sampling", unit="solve", leave=False):
        rows.append(row)
        picture(solution.x, folder / f"samples-{row.solver}.png", f"{row.solver}, {row.nfe} NFE")
    trajectory(model, data, folder, solvers, walk, compared)
    write_json(folder / "table.json", as_json(rows))
    return rows

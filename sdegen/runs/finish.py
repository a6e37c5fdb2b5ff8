"""What a finished run leaves behind: weights, pictures and a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdegen.model.score import ScoreModel
from sdegen.runs.folder import WEIGHTS, about, class_labels, gather
from sdegen.runs.pictures import curve, picture, trajectory
from sdegen.solvers.solver import Solver


def evaluate(
    model: ScoreModel,
    config: dict[str, Any],
    folder: Path,
    data: Any,
    test: Any,
    solvers: Mapping[str, Solver],
    walk: Any,
) -> None:
    """Sample with every solver at every budget; write weights, pictures and the table."""
    from tqdm import tqdm

    from sdegen.files import write_json, write_tensors
    from sdegen.metrics.quality import Quality
    from sdegen.runs.compare import as_json, compare, table

    settings = config["evaluate"]
    write_tensors(folder / WEIGHTS, model.state_dict(), about(config, data))
    curve(folder)
    quality = Quality(gather(data), gather(test))
    labels = class_labels(quality.n, data.classes if config["conditional"] else 0)
    model = model if labels is None else model.given(y=labels.to(model.device))
    rows, runs = (
        [quality.floor],
        sum(
            1 if solver.traits.adaptive else len(settings["budgets"])
            for solver in solvers.values()
        ),
    )
    results = compare(
        model, quality, data.shape, solvers, settings["budgets"], walk=walk, seed=settings["seed"]
    )
    for row, solution in tqdm(results, total=runs, desc="sampling", unit="solve", leave=False):
        rows.append(row)
        picture(solution.x, folder / f"samples-{row.solver}.png", f"{row.solver}, {row.nfe} NFE")
    trajectory(model, data, folder, solvers, walk, settings)
    write_json(folder / "table.json", as_json(rows))
    print(table(rows))
    print(f"Pictures, table and weights are in {folder}")

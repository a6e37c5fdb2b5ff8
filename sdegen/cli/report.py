"""What a finished run leaves behind: weights, pictures and a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sdegen.data import ArrayData
from sdegen.score import ScoreModel
from sdegen.solvers.solver import Solver

WEIGHTS = "model.safetensors"


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

    from sdegen.evaluate import Quality, as_json, compare, table
    from sdegen.training.files import write_json, write_tensors

    settings = config["evaluate"]
    write_tensors(folder / WEIGHTS, model.state_dict(), about(config, data))
    curve(folder)
    quality = Quality(gather(data), gather(test))
    labels = class_labels(quality.n, data.classes if config["conditional"] else 0)
    model = model if labels is None else model.given(y=labels.to(model.device))
    rows, runs = (
        [quality.floor],
        sum(1 if solver.adaptive else len(settings["budgets"]) for solver in solvers.values()),
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


def about(config: dict[str, Any], data: Any) -> dict[str, Any]:
    """What a weights file says of itself: enough to build its model again."""
    return {"config": config, "shape": list(data.shape), "classes": data.classes}


def gather(data: Any, most: int = 5000) -> ArrayData:
    """A data set, or its first samples, as one array."""
    if isinstance(data, ArrayData):
        return data
    levels = getattr(data, "levels", 0)
    pairs = [data[i] for i in range(min(len(data), most))]
    labels = torch.stack([y for _, y in pairs]) if data.classes else None
    return ArrayData(torch.stack([x for x, _ in pairs]), labels, levels)


def class_labels(n: int, classes: int) -> torch.Tensor | None:
    """Labels that go round the classes, None for an unconditional model."""
    return torch.arange(n) % classes if classes else None


def picture(x: torch.Tensor, path: Path, title: str) -> None:
    """Samples as a picture, where they can be drawn."""
    from sdegen.plots import save_samples

    if drawable(x):
        most = 100 if x.ndim == 4 else 5000
        save_samples(
            x[:most].float().cpu(), path, title, **({"columns": 10} if x.ndim == 4 else {})
        )


def drawable(x: torch.Tensor) -> bool:
    """Images of one or three channels, or points of the plane."""
    return (x.ndim == 4 and x.shape[1] in (1, 3)) or (x.ndim == 2 and x.shape[1] == 2)


def curve(folder: Path) -> None:
    """The loss curve of the run's records."""
    from sdegen.plots import save_curve
    from sdegen.training.trainer import RECORDS

    lines = (folder / RECORDS).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    steps, losses = [r["step"] for r in records], [r["loss"] for r in records]
    save_curve(steps, losses, folder / "loss.png", "loss")


def trajectory(
    model: ScoreModel,
    data: Any,
    folder: Path,
    solvers: Mapping[str, Solver],
    walk: Any,
    settings: Mapping[str, Any],
) -> None:
    """A few samples on their way from noise to data, by the last solver that steps."""
    from sdegen.march import solve
    from sdegen.plots import save_trajectory

    stepping = {name: solver for name, solver in solvers.items() if not solver.adaptive}
    if not stepping:
        return
    name, solver = list(stepping.items())[-1]
    n = 10 if len(data.shape) == 3 else 2000
    labels = class_labels(n, data.classes if "y" in model.conditions else 0)
    model = model if labels is None else model.given(y=labels.to(model.device))
    budget, seed = max(settings["budgets"]), settings["seed"]
    solution = solve(
        model, (n, *data.shape), solver=solver, nfe=budget, walk=walk, seed=seed, path=True
    )
    assert solution.path is not None
    states = solution.path.x
    if not drawable(states[0]):
        return
    picks = torch.linspace(0, len(states) - 1, min(9, len(states))).round().long()
    times = [f"t = {float(solution.path.t[i]):.3g}" for i in picks]
    save_trajectory(
        states[picks].float().cpu(), times, folder / "trajectory.png", f"{name}, {budget} NFE"
    )

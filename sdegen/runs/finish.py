"""What a finished run leaves behind: weights, pictures and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

from sdegen.files import write_json, write_tensors
from sdegen.metrics.quality import Row
from sdegen.model.score import ScoreModel
from sdegen.runs import bars
from sdegen.runs.compare import as_is, as_json, budgets_of, compare
from sdegen.runs.folder import WEIGHTS, quality_of
from sdegen.runs.pictures import Shown, curve, picture, shown, trajectory
from sdegen.runs.restoring import Seen, prepared
from sdegen.runs.settings import Comparison
from sdegen.runs.telling import Prompts
from sdegen.sampling.choice import Chooser
from sdegen.solvers.solver import Solver
from sdegen.training.frozen import FROZEN, content_of_frozen, own_state

SAMPLES = 1000
"""How many of each solver at each budget, where there are as many data."""


def finish(
    model: ScoreModel,
    config: dict[str, Any],
    compared: Comparison,
    folder: Path,
    data: Any,
    test: Any,
    solvers: Mapping[str, Solver | Chooser],
    walk: Any,
    header: dict[str, Any],
    seen: Seen | Prompts | None = None,
    decoded: Callable[[Tensor], Tensor] = as_is,
) -> list[Row]:
    """Sample with every solver at every budget; write the weights, with what they say of
    themselves, pictures and the table.

    seen: what a model that restores is shown, or one that takes a text is told.  decoded: the
    model's states as data; ``data`` and ``test`` are what samples are measured by.

    The table's rows, that of real data first; without it, and unmeasured, where no data are held
    out.
    """
    budgets, seed = compared.budgets, compared.seed
    write_weights(folder, model, config, header)
    quality = None if test is None else quality_of(folder, config, (data, test))
    sets = [each for each in (data, test) if each is not None]
    n = min([SAMPLES, *(len(each) for each in sets if not isinstance(each, IterableDataset))])
    counts = header["counts"] if config["conditional"] else []
    rows = [quality.floor(n)] if quality else []
    runs = sum(len(budgets_of(solver, budgets)) for solver in solvers.values())
    given, shape = prepared(model, n, counts, seen), (n, *header["shape"])
    y = given.conditions["y"] if counts else None
    drawn: dict[str, tuple[Shown, str]] = {}  # of each solver, at its last budget
    results = compare(
        given, quality, shape, solvers, budgets, walk=walk, seed=seed, decoded=decoded
    )
    for row, solution in bars.bar(results, total=runs, desc="sampling", unit="solve", leave=False):
        rows.append(row)
        some = shown(solution.x, y, header["names"])
        drawn[f"samples-{row.solver}.png"] = some, f"{row.solver}, {row.nfe} NFE"
    write_json(folder / "table.json", as_json(rows))  # before pictures, which may fail
    for name, (some, title) in drawn.items():
        picture(some, folder / name, title)
    curve(folder)

    def given_few(n: int) -> Any:
        return prepared(model, n, counts, seen)

    trajectory(given_few, header["shape"], folder, solvers, walk, compared, decoded)
    return rows


def write_weights(
    folder: Path, model: ScoreModel, config: Mapping[str, Any], header: Mapping[str, Any]
) -> None:
    """A model's weights and what they say of themselves; of an adapter those alone that are beside
    the base, which lies in its own run."""
    if not config.get("adapter"):
        write_tensors(folder / WEIGHTS, model.state_dict(), dict(header))
        return
    about = {**header, FROZEN: content_of_frozen(model)}
    write_tensors(folder / WEIGHTS, own_state(model), about)

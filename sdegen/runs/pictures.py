"""Pictures of a run: samples, the loss, a trajectory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sdegen.runs.compare import as_is, budgets_of
from sdegen.runs.settings import Comparison
from sdegen.sampling.choice import Chooser
from sdegen.solvers.solver import Solver

ROW = 10
"""Images in a row, which a class has for itself; and rows."""


class Shown(NamedTuple):
    """Samples that a picture shows, the names of their classes where they have labels, and how
    many stand in a row: of clips, all frames of one."""

    x: torch.Tensor
    classes: list[str]
    columns: int | None = None


def shown(x: torch.Tensor, y: torch.Tensor | None = None, names: Sequence[str] = ()) -> Shown:
    """Of samples those that a picture has room for: of images ten of each of the first ten classes
    where they have labels y, named by their numbers where they have no ``names``. None of what
    cannot be drawn."""
    if not drawable(x):
        return Shown(x[:0], [])
    if x.ndim == 5:
        return Shown(frames(x[:ROW]).float().cpu(), [], x.shape[2])
    most = ROW**2 if x.ndim == 4 else 5000
    if y is None:
        return Shown(x[:most].float().cpu(), [])
    y = y.cpu()
    picks = torch.arange(len(y))[:most]
    if x.ndim == 4:
        picks = torch.cat([(y == k).nonzero().flatten()[:ROW] for k in y.unique()[:ROW]])
    classes = [names[k] if names else str(k) for k in y[picks].tolist()]
    return Shown(x[picks.to(x.device)].float().cpu(), classes)


def picture(some: Shown, path: Path, title: str) -> None:
    """Samples as a picture, if there are some."""
    from sdegen.plots import save_samples

    if len(some.x):
        columns = some.columns or (ROW if some.x.ndim == 4 else None)
        save_samples(some.x, path, title, columns, some.classes)


def drawable(x: torch.Tensor) -> bool:
    """Images and clips of one or three channels, series, points and tables."""
    return x.ndim in (2, 3) or (x.ndim in (4, 5) and x.shape[1] in (1, 3))


def frames(x: torch.Tensor) -> torch.Tensor:
    """Clips (n, c, f, h, w), or volumes, as images (n f, c, h, w), one frame after another."""
    return x.transpose(1, 2).flatten(0, 1)


def curve(folder: Path) -> None:
    """The loss curve of the run's records."""
    from sdegen.plots import save_curve
    from sdegen.training.identity import read_records
    from sdegen.training.trainer import RECORDS

    records = read_records(folder / RECORDS)
    steps, losses = [r["step"] for r in records], [r["loss"] for r in records]
    save_curve(steps, losses, folder / "loss.png", "loss")


def trajectory(
    given: Callable[[int], Any],
    shape: Sequence[int],
    folder: Path,
    solvers: Mapping[str, Solver | Chooser],
    walk: Any,
    compared: Comparison,
    decoded: Callable[[torch.Tensor], torch.Tensor] = as_is,
) -> None:
    """A few samples on their way from noise to data, by the last solver that steps, of the model
    that is given all it needs for so many.  decoded: states as data."""
    from sdegen.plots import save_trajectory
    from sdegen.sampling.march import solve

    stepping = {
        name: solver for name, solver in solvers.items() if None not in budgets_of(solver, [0])
    }
    if not stepping:
        return
    name, solver = list(stepping.items())[-1]
    n = 2000 if len(shape) == 1 else 10
    budget, seed = max(compared.budgets), compared.seed
    solution = solve(
        given(n), (n, *shape), solver=solver, nfe=budget, walk=walk, seed=seed, path=True
    )
    assert solution.path is not None
    states = solution.path.x
    picks = torch.linspace(0, len(states) - 1, min(9, len(states))).round().long()
    some = torch.stack([decoded(states[i]) for i in picks])
    if not drawable(some[0]):
        return
    if some.ndim == 6:  # of clips the frames of one
        some = some[:, 0].transpose(1, 2)
    times = [f"t = {float(solution.path.t[i]):.3g}" for i in picks]
    save_trajectory(some.float().cpu(), times, folder / "trajectory.png", f"{name}, {budget} NFE")

"""Samples of a finished run, beside it: the numbers, a picture, and what they are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdegen.files import claim, write_json, write_tensors
from sdegen.metrics.quality import Quality, Row
from sdegen.runs.build import build, build_data
from sdegen.runs.compare import as_json, timed_solve
from sdegen.runs.folder import gather, given_labels, load
from sdegen.runs.pictures import picture
from sdegen.runs.settings import SampleSettings, record


def sample_run(settings: SampleSettings) -> tuple[list[Row], Path, Any]:
    """Load a run's weights, sample, and write samples, picture and result into a folder of their
    own: the table's rows, that folder, and why the solver was chosen where one was."""
    packages, source = settings.packages, Path(settings.run)
    model, trained, shape, classes = load(source, packages, settings.device)
    solver, walk = build(settings.solver, packages), build(settings.walk, packages) or None
    folder = source / "samples" / settings.title
    claim(folder)
    solution, seconds = timed_solve(
        given_labels(model, settings.n, classes),
        (settings.n, *shape),
        solver=solver,
        walk=walk,
        steps=settings.steps,
        nfe=settings.nfe,
        eta=settings.eta,
        seed=settings.seed,
        denoise=settings.denoise,
    )
    train, test = (gather(data) for data in build_data({**trained, "packages": packages}))
    quality = Quality(train, test, settings.n)
    row = quality.row(settings.title, settings.nfe, solution, seconds)
    config = record(settings)
    write_tensors(folder / "samples.safetensors", {"x": solution.x}, {"config": config})
    picture(solution.x, folder / "samples.png", f"{settings.title}, {row.nfe} NFE")
    rows = [quality.floor, row]
    write_json(folder / "result.json", {"config": config, "rows": as_json(rows)})
    return rows, folder, solution.choice

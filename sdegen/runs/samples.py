"""Samples of a finished run, beside it: the numbers, a picture, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sdegen.data import class_labels
from sdegen.files import claim, locked, write_json, write_tensors
from sdegen.metrics.quality import Quality, Row, row_of
from sdegen.runs.build import build
from sdegen.runs.compare import as_json, timed_solve
from sdegen.runs.folder import Run, load_run, quality_of
from sdegen.runs.pictures import picture
from sdegen.runs.settings import SampleSettings, record
from sdegen.sampling.march import Solution


def sample_run(
    settings: SampleSettings, say: Callable[[str], None]
) -> tuple[list[Row], Path, Any]:
    """Load a run's weights, sample, and write samples, picture and result into a folder of their
    own: the table's rows, that folder, and why the solver was chosen where one was.

    Samples are written before anything else is tried. They are measured if ``quality`` says so;
    where that cannot be, a sentence says why.
    """
    run = load_run(Path(settings.run), settings.packages, settings.device)
    folder = run.folder / "samples" / settings.title
    claim(folder)
    with locked(folder):
        solution, seconds = solved(settings, run)
        config = record(settings)
        tensors = {"x": solution.x}
        if run.counts:
            tensors["y"] = class_labels(settings.n, run.counts)
        write_tensors(folder / "samples.safetensors", tensors, {"config": config})
        calls = int(solution.nfe.max())
        picture(solution.x, folder / "samples.png", f"{settings.title}, {calls} NFE")
        quality = reference(settings, run, say) if settings.quality else None
        row = row_of(settings.title, settings.nfe, solution, seconds, quality)
        rows = [quality.floor(settings.n), row] if quality else [row]
        result = {"config": config, "step": run.step, "rows": as_json(rows)}
        write_json(folder / "result.json", result)
    return rows, folder, solution.choice


def solved(settings: SampleSettings, run: Run) -> tuple[Solution, float]:
    """The samples, and the seconds they took."""
    packages, model = settings.packages, run.model
    if run.counts:
        model = model.given(y=class_labels(settings.n, run.counts).to(model.device))
    return timed_solve(
        model,
        (settings.n, *run.shape),
        solver=build(settings.solver, packages),
        walk=build(settings.walk, packages) or None,
        steps=settings.steps,
        nfe=settings.nfe,
        eta=settings.eta,
        seed=settings.seed,
        denoise=settings.denoise,
    )


def reference(settings: SampleSettings, run: Run, say: Callable[[str], None]) -> Quality | None:
    """What samples of the run are measured by; None, and why, where it cannot be had."""
    try:
        return quality_of(run.folder, {**run.config, "packages": settings.packages})
    except (ValueError, OSError) as error:
        say(f"The samples are not measured: {error}")
        return None

"""A solver tuned to a finished run, as JSON beside it."""

from __future__ import annotations

from pathlib import Path

from sdegen.runs import bars
from sdegen.runs.folder import generating, load_run
from sdegen.runs.settings import TuneSettings
from sdegen.solvers.tuned import Tuned
from sdegen.tuning.fitting import tune


def tune_run(settings: TuneSettings) -> tuple[Tuned, Path]:
    """Load a run's weights, tune with a progress bar: the solver, and the file it is in."""
    folder = Path(settings.run)
    run = generating(load_run(folder, settings.packages, settings.device), "sdegen-tune")
    with bars.bar(desc="tuning", unit="iteration", leave=False) as bar:

        def watch(done: int, total: int, error: float) -> None:
            bar.total = total
            bar.set_postfix_str(f"held-out error {error:.3g}", refresh=False)
            bar.update(done - bar.n)

        tuned = tune(
            run.given(settings.seeds),
            nfe=settings.nfe,
            shape=run.shape,
            coefficients=settings.coefficients,
            seeds=settings.seeds,
            iterations=settings.iterations,
            fine=settings.fine,
            seed=settings.seed,
            batch=settings.batch,
            watch=watch,
        )
    (folder / "tuned").mkdir(exist_ok=True)
    return tuned, tuned.save(folder / "tuned" / f"{settings.name}.json")

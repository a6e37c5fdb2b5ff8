"""``sdegen-evaluate``: bits per dimension, or log-likelihood, of a trained run on data."""

from __future__ import annotations

from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    hydra_main(run, "evaluate")


def run(config: dict[str, Any]) -> float | None:
    """Evaluate, show the means, and return the one that was asked for."""
    from sdegen.runs.likelihood import evaluate_run, table
    from sdegen.runs.settings import EvaluateSettings, read

    settings = read(EvaluateSettings, config)
    found = evaluate_run(settings)
    print(table(found.means, found.unit, found.n))
    print(f"Result, histogram and values of all samples are in {found.folder}")
    return found.means[settings.objective]["mean"] if settings.objective else None

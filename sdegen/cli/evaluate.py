"""``sdegen-evaluate``: likelihoods of a trained run on data, or its samples beside these."""

from __future__ import annotations

from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    hydra_main(run, "evaluate")


def run(config: dict[str, Any]) -> float | None:
    """Evaluate, show the figures, and return the one that was asked for."""
    from sdegen.runs.featured import featured_run
    from sdegen.runs.likelihood import evaluate_run, table
    from sdegen.runs.settings import EvaluateSettings, read

    settings = read(EvaluateSettings, config)
    if settings.features:
        compared = featured_run(settings)
        print(compared.text)
        print(f"All figures are in {compared.file}")
        return compared.value
    found = evaluate_run(settings)
    print(table(found.means, found.unit, found.n))
    print(f"Result, histogram and values of all samples are in {found.folder}")
    return found.means[settings.objective]["mean"] if settings.objective else None

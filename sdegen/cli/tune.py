"""``sdegen-tune``: tune a solver to a trained run for a budget of network calls."""

from __future__ import annotations

from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    hydra_main(run, "tune")


def run(config: dict[str, Any]) -> None:
    """Tune, and say what was gained and how it is used."""
    from sdegen.runs.settings import TuneSettings, read
    from sdegen.runs.tune import tune_run

    settings = read(TuneSettings, config)
    tuned, path = tune_run(settings)
    print(tuned.gain)
    print(f"Use it with: sdegen-sample run={settings.run} solver=tuned solver.path={path}")

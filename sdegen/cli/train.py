"""``sdegen-train``: train a score model, then sample it with several solvers and measure them; or
an autoencoder, and measure what comes back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    hydra_main(run, "train")


def run(config: dict[str, Any]) -> float | None:
    """Train, compare, and return the number that was asked for; a run that a signal stopped ends
    with the signal's number."""
    from hydra.core.hydra_config import HydraConfig

    from sdegen.runs.autoencoding import train_autoencoder
    from sdegen.runs.coders import codes
    from sdegen.runs.compare import table, value_of
    from sdegen.runs.students import in_rounds
    from sdegen.runs.train import train_run

    for part, folder in in_rounds(config, Path(HydraConfig.get().runtime.output_dir)):
        train = train_autoencoder if codes(part) else train_run
        done = train(part, folder, say=print)
        if done.rows:
            print(table(done.rows))
            print(f"Pictures, table and weights are in {folder}")
        if done.stopped_by:
            sys.exit(128 + done.stopped_by)
    return value_of(done.rows, config.get("objective")) if done.rows else None

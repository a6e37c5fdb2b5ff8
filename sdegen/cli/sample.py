"""``sdegen-sample``: sample a trained run with any solver, and measure the samples."""

from __future__ import annotations

from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    hydra_main(run, "sample")


def run(config: dict[str, Any]) -> None:
    """Sample, and show the table."""
    from sdegen.runs.compare import table
    from sdegen.runs.samples import sample_run
    from sdegen.runs.settings import SampleSettings, read

    rows, folder, choice = sample_run(read(SampleSettings, config), say=print)
    if choice is not None and not isinstance(choice, tuple):
        print(choice)  # of a chooser that says why
    print(table(rows))
    print(f"Samples are in {folder}")

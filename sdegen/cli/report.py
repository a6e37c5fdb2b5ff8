"""``sdegen-report``: one page of a trained run, to look at in any browser."""

from __future__ import annotations

from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    hydra_main(run, "report")


def run(config: dict[str, Any]) -> None:
    """Sample what the page shows, write it, and say where it is."""
    from sdegen.report.run import RunReportSettings, report_run
    from sdegen.runs.settings import read

    path = report_run(read(RunReportSettings, config), say=print)
    print(f"{path}: one file of {path.stat().st_size / 1e6:.1f} MB, to be opened in a browser")

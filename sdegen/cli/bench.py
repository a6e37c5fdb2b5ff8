"""``sdegen-bench``: points of work-precision curves; ``sdegen-bench report``: the page of them."""

from __future__ import annotations

import sys
from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    if sys.argv[1:2] == ["report"]:
        del sys.argv[1]
        return hydra_main(report, "bench_report")
    store_bench()
    hydra_main(run, "bench")


def store_bench() -> None:
    """The peers beside our solvers, and the launcher's settings."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.plugins import Plugins
    from hydra_plugins._sdegen import SETTINGS, Processes

    from sdegen.bench.choosers import TunedHere
    from sdegen.bench.peers import PEERS
    from sdegen.solvers.registry import node

    store = ConfigStore.instance()
    Plugins.instance().register(Processes)
    for name, coefficients in (("tuned_walk", False), ("tuned_weights", True)):
        store.store(group="solver", name=name, node=node(TunedHere(coefficients)))
    store.store(group="hydra/launcher", name="processes", node=SETTINGS)
    for name, peer in PEERS.items():
        store.store(group="solver", name=name, node=node(peer))


def run(config: dict[str, Any]) -> None:
    """All budgets of one problem, SDE, solver and walk, a line each; in a sweep there is a
    progress bar instead.

    ValueError, when the others are done, for a point that could not be.
    """
    from hydra.core.hydra_config import HydraConfig

    from sdegen.bench.folder import BenchSettings, line, measured
    from sdegen.runs.settings import read

    sweeps = "choices" in config
    choices = config.get("choices") or dict(HydraConfig.get().runtime.choices)
    refused = []
    for point in measured(read(BenchSettings, {**config, "choices": choices})):
        if "failed" in point:
            refused.append(point["failed"])
        if not sweeps:
            print(line(point))
    if refused:
        raise ValueError(refused[0])


def report(config: dict[str, Any]) -> None:
    """Figures and one page of what a folder holds."""
    from sdegen.report.page import ReportSettings, report_of
    from sdegen.runs.settings import read

    results, path = report_of(read(ReportSettings, config))
    print(f"{len(results.points)} points, {len(results.holes)} holes: {path}")

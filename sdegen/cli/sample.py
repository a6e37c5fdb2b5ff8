"""``sdegen-sample``: sample a trained run with any solver, and measure the samples."""

from __future__ import annotations

from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    hydra_main(run, "sample")


def run(config: dict[str, Any]) -> float | None:
    """Sample, show the table, and return the number that was asked for; nothing in a process that
    helps another one."""
    from hydra.core.hydra_config import HydraConfig

    from sdegen.runs.compare import table
    from sdegen.runs.samples import sample_run
    from sdegen.runs.settings import SampleSettings, read
    from sdegen.runs.students import as_sampled

    said = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    config = as_sampled(config, said)
    done = sample_run(read(SampleSettings, config), say=print)
    if done is None:
        return None
    if done.choice is not None and not isinstance(done.choice, tuple):
        print(done.choice)  # of a chooser that says why
    print(table(done.rows))
    if done.restored is not None:
        print(f"Restored: {done.restored}")
    print(f"Samples are in {done.folder}")
    return done.value

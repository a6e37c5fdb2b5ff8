"""``sdegen-tune``: tune a solver to a trained run for a budget of network calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    hydra_main(run, "tune")


def run(config: dict[str, Any]) -> None:
    """Load a run's weights, tune, and write the solver as JSON beside them."""
    from tqdm import tqdm

    from sdegen.runs.folder import class_labels, load
    from sdegen.tuning.fitting import tune

    folder = Path(config["run"])
    model, _, shape, classes = load(folder, config["packages"], config["device"])
    labels = class_labels(config["seeds"], classes)
    if labels is not None:
        model = model.given(y=labels.to(model.device))
    keys = ("nfe", "coefficients", "seeds", "iterations", "fine", "batch", "seed")
    with tqdm(desc="tuning", unit="iteration", leave=False) as bar:

        def watch(done: int, total: int, error: float) -> None:
            bar.total = total
            bar.set_postfix_str(f"held-out error {error:.3g}", refresh=False)
            bar.update(done - bar.n)

        tuned = tune(model, shape=shape, watch=watch, **{key: config[key] for key in keys})
    (folder / "tuned").mkdir(exist_ok=True)
    path = tuned.save(folder / "tuned" / f"{config['name']}.json")
    print(tuned.gain)
    print(f"Use it with: sdegen-sample run={folder} solver=tuned solver.path={path}")

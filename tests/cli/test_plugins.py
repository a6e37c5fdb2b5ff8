"""Hydra's own sweeper and launchers, which the extra "sweep" installs, on commands of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.processes import run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("plane")]
"""One run is made for all."""

SAMPLE = ["-m", "run=outputs/toy2d", "n=16", "device=cpu"]


def result(folder: Path, name: str) -> float:
    """What a job's samples are off by."""
    rows = json.loads((folder / name / "result.json").read_text())["rows"]
    return float(rows[-1]["sliced"])


def test_optuna_finds_the_best_of_what_it_tried(plane: Path) -> None:
    study = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "hydra.sweeper.n_jobs=1"]
    asked = ["name=optuna", "objective=sliced", "nfe=choice(2,5,9)"]
    code, _, err = run("sample", *SAMPLE, *study, *asked, cwd=plane)
    assert code == 0, err
    folder = plane / "outputs" / "toy2d" / "samples"
    found = yaml.safe_load((folder / "optimization_results.yaml").read_text())
    tried = {path.name: result(folder, path.name) for path in folder.glob("optuna-*")}
    best = min(tried, key=lambda name: tried[name])
    assert found["best_value"] == pytest.approx(tried[best])
    assert best == f"optuna-nfe{found['best_params']['nfe']}-seed0"


@pytest.mark.parametrize(
    ("launcher", "settings"),
    [
        ("joblib", ["hydra.launcher.n_jobs=2"]),
        ("submitit_local", ["hydra.launcher.cpus_per_task=1"]),
    ],
)
def test_a_launcher_does_every_job_but_the_bad_one(
    plane: Path, launcher: str, settings: list[str]
) -> None:
    asked = [f"hydra/launcher={launcher}", *settings, f"name={launcher}", "nfe=3,-1,4"]
    code, _, err = run("sample", *SAMPLE, *asked, cwd=plane)
    assert code == 1 and "nfe must be a whole number >= 1, but it is -1." in err, err
    assert "Traceback" not in err
    folder = plane / "outputs" / "toy2d" / "samples"
    done = {path.parent.name for path in folder.glob(f"{launcher}-*/result.json")}
    assert done == {f"{launcher}-nfe{k}-seed0" for k in (3, 4)}

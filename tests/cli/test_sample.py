"""sdegen-sample and sdegen-tune as a person types them, on a tiny run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run, typed

pytestmark = pytest.mark.xdist_group("plane")
"""One run is made for all."""


def test_a_sweep_over_solvers_and_budgets(plane: Path) -> None:
    sweep = ["-m", "run=outputs/toy2d", "solver=ddim,heun", "nfe=2,4", "n=12", "device=cpu"]
    code, _, err = run("sample", *sweep, cwd=plane)
    assert code == 0, err
    results = sorted((plane / "outputs" / "toy2d" / "samples").glob("*/result.json"))
    assert len(results) == 4
    seen = {(path.parent.name.split("-")[0], row(path)["nfe"]) for path in results}
    assert seen == {("ddim", 2), ("ddim", 4), ("heun", 2), ("heun", 4)}
    assert all((path.parent / "samples.safetensors").is_file() for path in results)
    assert {path.name for path in plane.iterdir()} == {"outputs"}


def row(path: Path) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(path.read_text())["rows"][1]
    return line


def test_sampling_is_reproducible_and_its_walk_can_be_chosen(plane: Path) -> None:
    from safetensors.torch import load_file

    for seed, n in ((0, 6), (0, 3), (1, 6)):
        arguments = [f"seed={seed}", f"n={n}", "walk=karras", "nfe=4", f"name=r{n}", "device=cpu"]
        code, _, err = typed("sample", "run=outputs/toy2d", *arguments, cwd=plane)
        assert code == 0, err
    folder = plane / "outputs" / "toy2d" / "samples"
    six, three, other = (
        load_file(folder / name / "samples.safetensors")["x"]
        for name in ("r6-nfe4-seed0", "r3-nfe4-seed0", "r6-nfe4-seed1")
    )
    assert (six[:3] - three).abs().max() < 1e-4 < (six - other).abs().max()


def test_a_solver_is_tuned_to_a_run_and_used(plane: Path) -> None:
    little = ["seeds=20", "iterations=8", "fine=10", "nfe=4", "device=cpu"]
    code, out, err = run("tune", "run=outputs/toy2d", *little, cwd=plane)
    assert code == 0, err
    assert "of the best untuned solver" in out and "Use it with: sdegen-sample" in out
    path = "outputs/toy2d/tuned/nfe4.json"
    tuned = ["solver=tuned", f"solver.path={path}"]
    few = ["n=8", "device=cpu"]
    code, _, err = typed("sample", "run=outputs/toy2d", *tuned, *few, cwd=plane)
    assert code == 0, err
    made = plane / "outputs" / "toy2d" / "samples" / "tuned-default-seed0" / "result.json"
    assert row(made)["nfe"] == 4
    auto = ["solver=auto", "nfe=4", *few]
    code, out, err = typed("sample", "run=outputs/toy2d", *auto, cwd=plane)
    assert code == 0 and "auto: " in out and "at 4 calls" in out, err
    for wrong, reason in (
        ([*tuned, "walk=karras"], "comes with its own walk"),
        ([*tuned, "nfe=9"], "comes with its own walk"),
        (["solver=tuned"], "solver.path has no value"),
        (["solver=tuned", "solver.path=none.json"], "no tuned solver none.json"),
        (["solver=auto"], "give nfe alone"),
    ):
        code, _, err = typed("sample", "run=outputs/toy2d", *wrong, "device=cpu", cwd=plane)
        assert code == 1 and reason in err and len(err.strip().splitlines()) == 1, err


def test_tune_says_what_is_wrong(plane: Path) -> None:
    for wrong, reason in (
        (["nfe=1"], "give nfe >= 2"),
        (["nfe=4", "seeds=2"], "2 seeds are too few"),
        ([], "nfe"),
        (["nfe=4", "batch=0"], "batch"),
    ):
        code, _, err = typed("tune", "run=outputs/toy2d", *wrong, "device=cpu", cwd=plane)
        assert code == 1 and reason in err and "Traceback" not in err, err


def test_sample_says_what_is_missing(tmp_path: Path) -> None:
    code, _, err = typed("sample", "run=outputs/none", "nfe=4", cwd=tmp_path)
    assert code == 1 and "no checkpoint outputs/none/model.safetensors" in err
    code, _, err = typed("sample", cwd=tmp_path)
    assert code == 1 and "run" in err and "Traceback" not in err

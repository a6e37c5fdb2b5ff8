"""The commands as a person types them, on tiny runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

TINY = [
    "experiment=toy2d",
    "net.width=16",
    "train.batch_size=16",
    "train.log_every=1",
    "evaluate.budgets=[4]",
    "device=cpu",
]


def start(name: str, *arguments: str, cwd: Path) -> subprocess.Popen[str]:
    script = Path(sys.executable).parent / f"sdegen-{name}"
    return subprocess.Popen(
        [str(script), *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(name: str, *arguments: str, cwd: Path, seconds: int = 240) -> tuple[int, str, str]:
    process = start(name, *arguments, cwd=cwd)
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny conditional run on the digits has finished."""
    cwd = tmp_path_factory.mktemp("cli")
    tiny = ["net.width=8", "net.heads=2", "train.steps=3", "train.batch_size=8", "device=cpu"]
    code, out, err = run("train", *tiny, "evaluate.budgets=[2]", cwd=cwd)
    assert code == 0, err
    assert "real data (floor)" in out and "Frechet" in out
    return cwd


def test_the_main_job_leaves_everything(finished: Path) -> None:
    folder = finished / "outputs" / "digits"
    names = {path.name for path in folder.iterdir()}
    solvers = {"euler_maruyama", "ddpm", "heun", "ddim", "dpmpp"}
    assert {f"samples-{solver}.png" for solver in solvers} < names
    assert {"trajectory.png", "loss.png", "table.json", "config.json", "metrics.jsonl"} < names
    assert {"model.safetensors", "checkpoint.safetensors"} < names
    assert not any(
        name.startswith(".") or name.endswith((".pkl", ".pt", ".log")) for name in names
    )
    floor, *rows = json.loads((folder / "table.json").read_text())
    assert floor["frechet"] > 0 and floor["sliced"] > 0
    assert {row["solver"] for row in rows} == solvers
    for row in rows:
        assert row["nfe"] == 2 and row["seconds"] > 0
        assert row["frechet"] > floor["frechet"] and row["sliced"] > floor["sliced"]
    config = json.loads((folder / "config.json").read_text())
    assert config["conditional"] is True and config["sde"]["_target_"] == "sdegen.VPSDE"


def test_the_same_command_does_not_train_again(finished: Path) -> None:
    folder = finished / "outputs" / "digits"
    before = (folder / "checkpoint.safetensors").read_bytes()
    tiny = ["net.width=8", "net.heads=2", "train.steps=3", "train.batch_size=8", "device=cpu"]
    code, _, err = run("train", *tiny, "evaluate.budgets=[2]", cwd=finished)
    assert code == 0, err
    assert (folder / "checkpoint.safetensors").read_bytes() == before
    code, _, err = run("train", *tiny, "evaluate.budgets=[2]", "sde=subvp", cwd=finished)
    assert code == 1 and "made with sde._target_ = 'sdegen.VPSDE'" in err and "name=" in err


def test_a_sweep_over_solvers_and_budgets(finished: Path) -> None:
    sweep = ["-m", "run=outputs/digits", "solver=ddim,heun", "nfe=2,4", "n=12", "device=cpu"]
    code, _, err = run("sample", *sweep, cwd=finished)
    assert code == 0, err
    results = sorted((finished / "outputs" / "digits" / "samples").glob("*/result.json"))
    assert len(results) == 4
    seen = {(path.parent.name.split("-")[0], row(path)["nfe"]) for path in results}
    assert seen == {("ddim", 2), ("ddim", 4), ("heun", 2), ("heun", 4)}
    assert all((path.parent / "samples.safetensors").is_file() for path in results)
    assert {path.name for path in finished.iterdir()} == {"outputs"}


def row(path: Path) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(path.read_text())["rows"][1]
    return line


def test_sampling_is_reproducible_and_its_walk_can_be_chosen(finished: Path) -> None:
    from safetensors.torch import load_file

    for seed, n in ((0, 6), (0, 3), (1, 6)):
        arguments = [f"seed={seed}", f"n={n}", "walk=karras", "nfe=4", f"name=r{n}", "device=cpu"]
        code, _, err = run("sample", "run=outputs/digits", *arguments, cwd=finished)
        assert code == 0, err
    folder = finished / "outputs" / "digits" / "samples"
    six, three, other = (
        load_file(folder / name / "samples.safetensors")["x"]
        for name in ("r6-nfe4-seed0", "r3-nfe4-seed0", "r6-nfe4-seed1")
    )
    assert (six[:3] - three).abs().max() < 1e-4 < (six - other).abs().max()


def test_a_solver_is_tuned_to_a_run_and_used(finished: Path) -> None:
    few = ["seeds=20", "iterations=8", "fine=10", "nfe=4", "device=cpu"]
    code, out, err = run("tune", "run=outputs/digits", *few, cwd=finished)
    assert code == 0, err
    assert "of the best untuned solver" in out and "Use it with: sdegen-sample" in out
    path = "outputs/digits/tuned/nfe4.json"
    tuned = ["solver=tuned", f"solver.path={path}"]
    code, out, err = run("sample", "run=outputs/digits", *tuned, "n=8", "device=cpu", cwd=finished)
    assert code == 0, err
    made = finished / "outputs" / "digits" / "samples" / "tuned-default-seed0" / "result.json"
    assert row(made)["nfe"] == 4
    auto = ["solver=auto", "nfe=4", "n=8", "device=cpu"]
    code, out, err = run("sample", "run=outputs/digits", *auto, cwd=finished)
    assert code == 0 and "auto: " in out and "at 4 calls" in out, err
    for wrong, reason in (
        ([*tuned, "walk=karras"], "comes with its own walk"),
        ([*tuned, "nfe=9"], "comes with its own walk"),
        (["solver=tuned"], "solver.path has no value"),
        (["solver=tuned", "solver.path=none.json"], "no tuned solver none.json"),
        (["solver=auto"], "give nfe alone"),
    ):
        code, _, err = run("sample", "run=outputs/digits", *wrong, "device=cpu", cwd=finished)
        assert code == 1 and reason in err and len(err.strip().splitlines()) == 1, err


def test_tune_says_what_is_wrong(finished: Path) -> None:
    for wrong, reason in (
        (["nfe=1"], "give nfe >= 2"),
        (["nfe=4", "seeds=2"], "2 seeds are too few"),
        ([], "nfe"),
        (["nfe=4", "batch=0"], "batch"),
    ):
        code, _, err = run("tune", "run=outputs/digits", *wrong, "device=cpu", cwd=finished)
        assert code == 1 and reason in err and "Traceback" not in err, err


def test_a_run_is_evaluated_and_goes_on_where_it_stopped(finished: Path) -> None:
    few = ["run=outputs/digits", "n=7", "solver=unipc", "steps=4", "batch=3", "device=cpu"]
    more = ["elbo_draws=2", "ddpm_steps=3"]
    code, out, err = run("evaluate", *few, *more, cwd=finished)
    assert code == 0, err
    assert "bits per dimension, 7 samples" in out and "discrete bound" in out
    folder = finished / "outputs" / "digits" / "likelihood"
    result = json.loads((folder / "result.json").read_text())
    values = result["samples"]
    assert set(values) == {"flow", "error", "nfe", "elbo", "ddpm"}
    assert all(len(column) == 7 for column in values.values()) and values["nfe"] == [4.0] * 7
    assert values["error"] == [None] * 7  # of one pass it cannot be told
    assert (folder / "histogram.png").stat().st_size > 5000
    # Cut short in the middle of a line: the same command ends with the same values.
    lines = (folder / "parts.jsonl").read_text().splitlines(keepends=True)
    (folder / "parts.jsonl").write_text("".join(lines[:3]) + lines[3][:20])
    code, out, err = run("evaluate", *few, *more, cwd=finished)
    assert code == 0, err
    again = json.loads((folder / "result.json").read_text())["samples"]
    for name, column in values.items():
        assert again[name] == (column if None in column else pytest.approx(column, rel=1e-4)), name
    code, _, err = run("evaluate", *few, "probes=3", cwd=finished)
    assert code == 1 and "give name=" in err and len(err.strip().splitlines()) == 1
    # Other weights, as after training on: not the same evaluation.
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps({**settings, "of": "0"}))
    code, _, err = run("evaluate", *few, *more, cwd=finished)
    assert code == 1 and "other settings, weights or data" in err
    for wrong, reason in (
        (["importance=2"], "of estimates that is no bound"),
        (["solver=ddpm", "steps=3"], "does not follow the probability flow"),
        (["solver=euler_maruyama", "steps=3"], "does not follow the probability flow"),
        (["steps=3"], "chooses its own steps"),
        (["probes=0"], "probes must be a whole number >= 1"),
        (["data=photo_patches"], "trained on samples of shape (1, 8, 8)"),
        (["split=valid"], "'train' or 'test'"),
        (["protocol=yang"], "Unknown protocol"),
        (["protocol=song", "solver=ddpm", "steps=2"], "does not follow the probability flow"),
        (["n=0"], "n must be a whole number >= 1"),
    ):
        code, _, err = run("evaluate", "run=outputs/digits", "name=w", *wrong, cwd=finished)
        assert code == 1 and reason in err and "Traceback" not in err, err


def test_points_of_the_plane_have_a_likelihood_in_nats(tmp_path: Path) -> None:
    code, _, err = run("train", *TINY, "train.steps=2", "name=toy", cwd=tmp_path)
    assert code == 0, err
    how = ["run=outputs/toy", "n=20", "divergence=exact", "solver=heun", "steps=5"]
    code, out, err = run("evaluate", *how, "device=cpu", cwd=tmp_path)
    assert code == 0 and "nats, 20 samples" in out, err
    np.save(tmp_path / "far.npy", 100 * np.eye(2, dtype=np.float32))
    far = ["name=w", "data=array_file", "data.path=far.npy", "device=cpu"]
    code, _, err = run("evaluate", *how, *far, cwd=tmp_path)
    assert code == 1 and "but these reach from 0 to 100: scale them" in err, err
    code, _, err = run("evaluate", *how, "name=w", "protocol=song", "device=cpu", cwd=tmp_path)
    assert code == 1 and "are for images" in err


WRONG = {
    "sde.beta_mim=3": ["no setting sde.beta_mim", "beta_max, beta_min"],
    "steps=3": ["no setting steps"],
    "sde=vpp": ["sde/vpp", "cosine", "subvp"],
    "train.steps=abc": ["train.steps", "abc"],
    "train.steps=0": ["train.steps must be a whole number >= 1"],
    "+sde.gamma=3": ["sdegen.VPSDE", "gamma", "beta_min"],
    "+train.optimizer.rate=3": ["train.optimizer", "rate", "weight_decay"],
    "train.optimizer.lr=-1": ["Invalid learning rate: -1"],
    "sde._target_=os.system": ["os.system", "only sdegen, torch.optim"],
    "loss.times._target_=torch.load": ["torch.load", "only sdegen, torch.optim"],
    "model.predicts=epsilon": ["Unknown prediction 'epsilon'", "eps, score, v, velocity, x0"],
    "loss.weighting=nonsense": ["Unknown weighting 'nonsense'", "likelihood"],
    "device=tpu": ["'auto', 'cpu' or 'cuda'", "tpu"],
    "data=image_folder": ["data.root"],
    "evaluate.budgets=[1]": ["Heun needs at least 2 network calls", "nfe = 1"],
    "hydra.run.dir=/proc/nowhere": ["/proc/nowhere"],
}


@pytest.mark.parametrize("argument", WRONG)
def test_what_is_wrong_is_said_before_anything_runs(argument: str, tmp_path: Path) -> None:
    arguments = ["train.steps=1", "experiment=toy2d", "device=cpu", argument]
    code, _, err = run("train", *arguments, cwd=tmp_path)
    assert code == 1 and "step/s" not in err
    assert "Traceback" not in err and len(err.strip().splitlines()) == 1, err
    assert all(part in err for part in WRONG[argument]), err
    assert not list(tmp_path.rglob("*.safetensors"))


def test_sample_says_what_is_missing(tmp_path: Path) -> None:
    code, _, err = run("sample", "run=outputs/none", "nfe=4", cwd=tmp_path)
    assert code == 1 and "no checkpoint outputs/none/model.safetensors" in err
    code, _, err = run("sample", cwd=tmp_path)
    assert code == 1 and "run" in err and "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_continues_bit_for_bit(number: int, tmp_path: Path) -> None:
    """Stopped or killed and continued, the weights are those of a run that was left alone."""
    from safetensors.torch import load_file

    steps = ["train.steps=300", "train.save_every=20"]
    process = start("train", *TINY, *steps, cwd=tmp_path)
    records = tmp_path / "outputs" / "toy2d" / "metrics.jsonl"
    for _ in range(600):
        if records.exists() and len(records.read_text().splitlines()) > 25:
            break
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number, err
        assert "Stopped at step" in out and "Traceback" not in err
    code, _, err = run("train", *TINY, *steps, cwd=tmp_path)
    assert code == 0, err
    code, _, err = run("train", *TINY, *steps, "name=whole", cwd=tmp_path)
    assert code == 0, err
    one, two = (
        load_file(tmp_path / "outputs" / name / "model.safetensors") for name in ("toy2d", "whole")
    )
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


def test_two_processes(tmp_path: Path) -> None:
    """Two processes on half batches take the steps of one: their gradients are averaged."""
    both = [*TINY, "train.steps=6", "train.devices=2"]
    code, out, err = run("train", *both, cwd=tmp_path)
    assert code == 0, err
    assert out.count("2 processes") == 1 and out.count("real data (floor)") == 1
    records = (tmp_path / "outputs" / "toy2d" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in records] == [1, 2, 3, 4, 5, 6]


def test_configuration_can_be_looked_at(tmp_path: Path) -> None:
    code, out, _ = run("train", "--cfg", "job", cwd=tmp_path)
    assert code == 0 and "_target_: sdegen.VPSDE" in out and not list(tmp_path.iterdir())
    code, out, _ = run("train", "-sc", "install=bash", cwd=tmp_path)
    assert code == 0 and "complete" in out


def test_every_setting_composes_and_builds() -> None:
    """Each file of each group, through the same composition and construction as the commands."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    import sdegen as sg
    from sdegen.cli.main import store_groups
    from sdegen.runs.build import build, build_model, build_optimizer, build_walk

    store_groups()
    root = Path(__file__).parent.parent / "conf"
    groups = {path.name: sorted(p.stem for p in path.glob("*.yaml")) for path in root.iterdir()}
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        for group in ("sde", "model", "loss", "walk", "experiment"):
            for name in groups[group]:
                cfg = compose("train", [f"{group}={name}", "name=x"])
                config: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
                shape = (2,) if "MLP" in config["net"]["_target_"] else (3, 32, 32)
                model = build_model(config, shape, 10)
                assert isinstance(model.sde, sg.LinearSDE), name
                on = sg.DiscreteVPSDE() if group == "walk" else model.sde
                walk = build_walk(config)
                assert (walk is None) == (config["walk"] == {}) == (name == "default")
                assert walk is None or len(walk(on, 4)) >= 5
                # What a file says of a grid is what the function says by default.
                grid = sg.walks.GRIDS.get(name) if group == "walk" else None
                assert grid is None or torch.equal(walk(on, 4), grid(on, 4)), name
                assert callable(build(config["loss"])) and callable(build_optimizer(config))
        for name, entry in sg.solvers.catalogue().items():
            solver = build(compose("sample", [f"solver={name}", "run=x", "name=x"]).solver)
            assert solver == entry.build(), name

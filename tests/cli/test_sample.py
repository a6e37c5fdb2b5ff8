"""sdegen-sample and sdegen-tune as a person types them, on a tiny run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from safetensors.torch import load_file

from tests.processes import TINY, another_at_work, run, typed

pytestmark = pytest.mark.xdist_group("plane")
"""One run is made for all."""


@pytest.mark.slow
def test_a_sweep_over_solvers_and_budgets(plane: Path) -> None:
    sweep = ["-m", "run=outputs/toy2d", "solver=ddim,heun", "nfe=2,4", "n=12", "device=cpu"]
    code, _, err = run("sample", *sweep, cwd=plane)
    assert code == 0, err
    results = sorted((plane / "outputs" / "toy2d" / "samples").glob("*-default-*/result.json"))
    assert len(results) == 4
    seen = {(path.parent.name.split("-")[0], row(path)["nfe"]) for path in results}
    assert seen == {("ddim", 2), ("ddim", 4), ("heun", 2), ("heun", 4)}
    assert all((path.parent / "samples.safetensors").is_file() for path in results)
    assert {path.name for path in plane.iterdir()} == {"outputs"}


@pytest.mark.slow
def test_several_processes_make_the_samples_of_one(plane: Path) -> None:
    for devices in (1, 2):
        arguments = ["nfe=4", "eta=1", "n=7", f"name=d{devices}", f"devices={devices}"]
        arguments += ["batch_size=2", "device=cpu"]
        code, _, err = run("sample", "run=outputs/toy2d", *arguments, cwd=plane)
        assert code == 0, err
    folder = plane / "outputs" / "toy2d" / "samples"
    one, two = (
        load_file(folder / f"d{k}-nfe4-eta1-seed0" / "samples.safetensors") for k in (1, 2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not any((folder / "d2-nfe4-eta1-seed0").glob("parts"))


def row(path: Path, number: int = 1) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(path.read_text())["rows"][number]
    return line


def test_sampling_is_reproducible_and_its_walk_can_be_chosen(plane: Path) -> None:
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


def test_samples_need_no_data_and_come_before_their_measures(tmp_path: Path) -> None:
    """The run knows its labels, which are 5 and 9 as 9 to 1, and what it is measured by."""
    y = np.array([5] * 90 + [9] * 10)
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=(100, 2)), y=y)
    data = ["data=array_file", "data.path=a.npz", "data.key=x", "data.labels=y", "name=a"]
    tiny = [*TINY, *data, "train.steps=1", "conditional=true", "evaluate.budgets=[2]"]
    code, _, err = typed("train", *tiny, cwd=tmp_path)
    assert code == 0, err
    (tmp_path / "a.npz").unlink()
    few = ["run=outputs/a", "nfe=2", "n=20", "device=cpu"]
    code, out, err = typed("sample", *few, cwd=tmp_path)
    assert code == 0 and "real data (floor)" in out, err
    samples = tmp_path / "outputs" / "a" / "samples"
    made = load_file(samples / "dpmpp-default-nfe2-seed0" / "samples.safetensors")
    assert made["x"].shape == (20, 2) and made["y"].bincount().tolist() == [18, 2]
    (tmp_path / "outputs" / "a" / "reference.safetensors").unlink()
    code, out, err = typed("sample", *few, "name=b", cwd=tmp_path)
    assert code == 0 and "not measured: there is no file 'a.npz'" in out, err
    assert row(samples / "b-nfe2-seed0" / "result.json", 0)["sliced"] is None
    assert (samples / "b-nfe2-seed0" / "samples.safetensors").is_file()


def test_one_sample_and_none_of_the_measures(plane: Path) -> None:
    few = ["run=outputs/toy2d", "nfe=2", "device=cpu", "n=1"]
    for more, rows in ((["name=one"], 2), (["name=plain", "quality=false"], 1)):
        code, out, err = typed("sample", *few, *more, cwd=plane)
        assert code == 0 and out.count("real data (floor)") == rows - 1, err
        folder = plane / "outputs" / "toy2d" / "samples" / f"{more[0][5:]}-nfe2-seed0"
        result = json.loads((folder / "result.json").read_text())
        assert len(result["rows"]) == rows and result["step"] == 2
        assert load_file(folder / "samples.safetensors")["x"].shape == (1, 2)


def test_samples_of_one_name_are_made_by_one_process(plane: Path) -> None:
    folder = plane / "outputs" / "toy2d" / "samples" / "busy-nfe2-seed0"
    folder.mkdir(parents=True)
    with another_at_work(folder):
        few = ["run=outputs/toy2d", "nfe=2", "device=cpu", "n=2", "name=busy"]
        code, _, err = typed("sample", *few, cwd=plane)
    assert code == 1 and "busy-nfe2-seed0 is in use by process 7 on elsewhere" in err
    assert [path.name for path in folder.iterdir()] == ["lock"]


def test_samples_are_the_same_in_any_chunks(plane: Path) -> None:
    how = ["run=outputs/toy2d", "n=11", "device=cpu", "quality=false"]
    for solver in ("ddpm", "sra1", "dpmpp"):
        for size in (4, 100):
            more = [f"solver={solver}", "steps=3", f"batch_size={size}", f"name={solver}{size}"]
            code, _, err = typed("sample", *how, *more, cwd=plane)
            assert code == 0, err
        some, whole = (made(plane, f"{solver}{size}-steps3-seed0") for size in (4, 100))
        assert (some["x"] - whole["x"]).abs().max() < 1e-4 * whole["x"].abs().max()
        assert (some["y"] == whole["y"]).all() and len(some["x"]) == 11
    # What was made with other settings is not written over, and has a folder where none is named.
    code, _, err = typed("sample", *how, *more, "solver.order=1", cwd=plane)
    assert code == 1 and "holds samples with solver.order = " in err and "name=" in err
    sweep = ["-m", *how, "solver=dpmpp", "solver.order=1,2", "steps=3"]
    code, _, err = typed("sample", *sweep, cwd=plane)
    assert code == 0, err
    one, two = (made(plane, f"dpmpp-default-solver.order={k}-steps3-seed0")["x"] for k in (1, 2))
    assert (one != two).any()


def made(cwd: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = load_file(cwd / f"outputs/toy2d/samples/{name}/samples.safetensors")
    return found


def test_classes_and_weights_are_of_choice(plane: Path) -> None:
    import sdegen as sg

    how = ["run=outputs/toy2d", "n=6", "nfe=2", "device=cpu", "quality=false"]
    cases = (["name=class", "classes=[1]"], ["name=finished"])
    for more in (*cases, *([f"name={w}", f"weights={w}"] for w in ("averaged", "raw"))):
        code, _, err = typed("sample", *how, *more, cwd=plane)
        assert code == 0, err
    found = {k: made(plane, f"{k}-nfe2-seed0") for k in ("class", "finished", "averaged", "raw")}
    assert found["class"]["y"].tolist() == [1] * 6
    assert found["finished"]["y"].tolist() != [1] * 6
    assert (found["finished"]["x"] == found["averaged"]["x"]).all()
    assert (found["finished"]["x"] != found["raw"]["x"]).any()
    for name in ("finished", "averaged", "raw"):
        model = sg.load(plane / "outputs" / "toy2d", weights=name)
        x = sg.sample(model.given(y=found[name]["y"]), (6, 2), solver="dpmpp", nfe=2, seed=0)
        assert (x == found[name]["x"]).all() and not model.training
    for wrong, reason in (
        (["classes=[2]"], "There is no class 2: the run has 0, 1."),
        (["formats=[png]"], "are for images of 1 or 3 channels"),
    ):
        code, _, err = typed("sample", *how, *wrong, cwd=plane)
        assert code == 1 and reason in err, err


class Returned(Callback):
    """What Hydra hands to sweepers."""

    values: ClassVar[list[Any]] = []

    def on_job_end(self, config: Any, job_return: JobReturn, **more: Any) -> None:
        self.values.append(job_return.return_value)


def test_a_sweeper_gets_the_number_that_is_asked_for(plane: Path) -> None:
    how = ["run=outputs/toy2d", "n=6", "nfe=2", "solver=ddim,heun", "objective=sliced"]
    watched = f"+hydra.callbacks.returned._target_={__name__}.Returned"
    how = ["-m", *how, "name=s-${hydra:runtime.choices.solver}", "device=cpu", watched]
    code, _, err = typed("sample", *how, cwd=plane)
    assert code == 0, err
    folder = plane / "outputs" / "toy2d" / "samples"
    results = [folder / f"s-{solver}-nfe2-seed0" / "result.json" for solver in ("ddim", "heun")]
    assert Returned.values == [row(path)["sliced"] for path in results]


def test_a_command_returns_the_number_that_is_asked_for(plane: Path) -> None:
    from sdegen.cli.sample import run as task

    config = {"run": str(plane / "outputs" / "toy2d"), "name": "value", "n": 6, "nfe": 2}
    config |= {"steps": None, "eta": None, "seed": 0, "denoise": False, "batch_size": 4}
    config |= {"classes": None, "weights": "finished", "quality": True, "formats": []}
    config |= {"objective": "sliced", "device": "cpu", "packages": []}
    config |= {"devices": 1, "step": None, "ema": None}
    config |= {"ema_std": None, "prompt": None, "prompts": None, "truncate": None}
    config |= {"start": None, "image": None, "draws": None}
    config |= {"solver": {"_target_": "sdegen.DDIM"}, "walk": None}
    value = task(config)
    made_in = plane / "outputs" / "toy2d" / "samples" / "value-nfe2-seed0"
    assert value == row(made_in / "result.json")["sliced"] and value is not None
    with pytest.raises(ValueError, match="objective=frechet, but of value-nfe2-seed0 there is no"):
        task({**config, "objective": "frechet"})


@pytest.mark.slow
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

"""sdegen-train and sdegen-sample with tasks: what is restored or edited, and what is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import sdegen as sg
from sdegen.data import ArrayData, digits, gather
from sdegen.noise import Seeded
from sdegen.runs.build import build_data
from sdegen.runs.folder import load_run
from sdegen.sampling import resample
from tests.processes import typed

pytestmark = pytest.mark.xdist_group("finished")
"""The runs are made for all."""

NET = ["net.width=8", "net.heads=2", "train.steps=2", "train.batch_size=8", "device=cpu"]
FEW = ["solver=ddim", "nfe=3", "n=3", "draws=2", "device=cpu", "quality=false"]


@pytest.fixture(scope="session")
def painter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny run that was trained to inpaint, with classes that are dropped."""
    cwd = tmp_path_factory.mktemp("painter")
    some = gather(digits("train"), 60)
    np.savez(cwd / "some.npz", x=some.x.numpy(), y=some.y.numpy())
    how = ["data=array_file", "data.path=some.npz", "data.key=x", "data.labels=y", "name=p"]
    how += ["task=inpaint", "evaluate.budgets=[2]", "train.sample_every=2", "train.log_every=1"]
    code, out, err = typed("train", *NET, *how, cwd=cwd)
    assert code == 0, out + err
    return cwd


def held_out(cwd: Path, n: int) -> ArrayData:
    """Images that the run was not trained on."""
    with contextlib.chdir(cwd):
        run = load_run(Path("outputs/p"), [], "cpu")
        return gather(build_data({**run.config, "packages": []})[1], n)


def sampled(cwd: Path, run: str, *how: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """What sdegen-sample writes and says."""
    code, out, err = typed("sample", f"run=outputs/{run}", *FEW, *how, cwd=cwd)
    assert code == 0, out + err
    folder = cwd / out.strip().rpartition("Samples are in ")[2]
    picture = (folder / "images.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    result = json.loads((folder / "result.json").read_text())
    return load_file(folder / "samples.safetensors"), result, out


def test_a_run_says_what_it_was_trained_for(painter: Path) -> None:
    config = json.loads((painter / "outputs" / "p" / "config.json").read_text())
    assert config["task"]["_target_"] == "sdegen.losses.Inpaint"
    loss = config["loss"]
    assert loss["_target_"] == "sdegen.losses.paired" and loss["degrade"] == config["task"]
    assert loss["loss"]["without"] == {"y": 10}  # dropped inside
    model = sg.load(painter / "outputs" / "p")
    assert model.net.beside == 1  # type: ignore[union-attr]
    progress = painter / "outputs" / "p" / "progress"
    assert (progress / "00000002.png").exists()
    x = load_file(progress / "00000002.safetensors")["x"]
    held = held_out(painter, 60)  # shown in turn: what is known is there, but for t_min's noise
    x0 = held.x[torch.arange(len(x)) % len(held.x)]
    near = ((x - x0).abs() < 0.15).float().mean((1, 2, 3))
    assert (near > 0.72).all() and (near < 1).any()


@pytest.mark.parametrize("guidance", [[], ["guidance=cfg", "guidance.scale=2"]])
def test_a_hole_is_filled_and_nothing_else_changes(painter: Path, guidance: list[str]) -> None:
    made, result, out = sampled(painter, "p", "task=inpaint", *guidance)
    images = held_out(painter, 3)
    x = made["x"].unflatten(0, (3, 2))
    same = (x == images.x[:, None]).float().mean((1, 2, 3, 4))
    assert (same >= 0.75).all() and (same < 1).all()
    assert torch.equal(made["y"], images.y.repeat_interleave(2))
    assert result["restored"]["known"] == 0 and result["restored"]["spread"] > 0
    assert "Restored: PSNR" in out and "mean of 2" in out


def test_more_images_begin_with_the_same(painter: Path) -> None:
    """And chunks, which are neither images nor their samples, do not matter."""
    few, _, _ = sampled(painter, "p", "task=inpaint", "name=few")
    more, _, _ = sampled(painter, "p", "task=inpaint", "n=4", "batch_size=3", "name=more")
    torch.testing.assert_close(more["x"][:6], few["x"], rtol=0, atol=1e-5)
    assert len(more["x"]) == 8
    again, _, _ = sampled(painter, "p", "task=inpaint", "n=4", "name=few")
    assert torch.equal(again["x"][:6], few["x"]) and len(again["x"]) == 8


@pytest.mark.parametrize(
    "how",
    [
        ["task=inpaint"],
        ["task=superresolve"],
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (
                ["task=uncrop", "guidance=cfg"],
                ["task=inpaint", "observation=ddnm", "denoise=false"],
                ["task=superresolve", "observation=mmps"],
                ["task=uncrop", "observation=pigdm", "observation.std=0.3"],
            )
        ),
    ],
)
def test_a_run_that_never_saw_the_task_restores(finished: Path, how: Any) -> None:
    made, result, _ = sampled(finished, "digits", *how, "nfe=4", "denoise=true")
    x, x0 = made["x"].unflatten(0, (3, 2)), gather(digits("test"), 3).x
    found = result["restored"]
    if how[0] == "task=superresolve":
        means, seen = (sg.guidance.Average(2)(each) for each in (x.flatten(0, 1), x0))
        off = (means.unflatten(0, (3, 2)) - seen[:, None]).abs().max()
        assert found["seen"] > 10
        assert (off < 1e-5 and found["known"] < 1e-5) == ("observation=mmps" not in how)
    else:  # seen through noise, it is not what it was
        assert (found["known"] == 0) == ("observation=pigdm" not in how)


def test_images_are_edited(finished: Path, tmp_path: Path) -> None:
    """Those of a file are what ``resample`` makes of them, bit for bit."""
    image = gather(digits("test"), 1).x[0]
    np.save(tmp_path / "one.npy", image.numpy())
    how = ["task=edit", "start=0.3", "classes=[3]", f"image={tmp_path / 'one.npy'}"]
    made, result, out = sampled(finished, "digits", *how)
    model = load_run(finished / "outputs" / "digits", [], "cpu").model
    x = image[None].expand(2, -1, -1, -1)
    y = torch.full((2,), 3)
    want = resample(
        model.given(y=y), x, t=0.3, solver=sg.DDIM(), nfe=3, noise=Seeded(0), denoise=False
    )
    assert torch.equal(made["x"], want) and made["y"].tolist() == [3, 3]
    assert "restored" not in result and "image-one" in out and "Restored" not in out
    held, _, _ = sampled(finished, "digits", "task=edit", "start=0.05", "draws=null")
    assert (held["x"] - gather(digits("test"), 3).x).abs().mean() < 0.2
    assert held["nfe"].tolist() == [3] * 3


def files(folder: Path) -> None:
    """Images that do not fit."""
    grey = np.zeros((8, 8), np.uint8)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "colour.png")
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey).convert("RGBA").save(folder / "clear.png")
    np.save(folder / "large.npy", np.zeros((2, 1, 9, 8), np.float32))
    (folder / "broken.png").write_text("x")


WRONG = {
    "task=inpant": "Could not find 'task/inpant' (did you mean inpaint",
    "task=edit": "say which, start=0.4",
    "task=edit start=1.5": "start lies in (0.001, 1], the times of the run's VPSDE, but it is 1.5",
    "task=edit start=0": "start lies in (0.001, 1]",
    "task=edit start=x": "start must be a number, but it is 'x'",
    "task=edit start=0.4 observation=mmps": "task=edit hides nothing",
    "task=edit start=0.4 image=none.png": "There is no image none.png: give image=FILE",
    "task=edit start=0.4 classes=[1] image=large.npy": "has the shape (1, 9, 8), but the run's",
    "task=edit start=0.4 classes=[1] image=colour.png": "has the shape (3, 8, 8), but the run's "
    "samples are (1, 8, 8)",
    "task=edit start=0.4 classes=[1] image=clear.png": "is of mode RGBA: convert it",
    "task=edit start=0.4 classes=[1] image=broken.png": "could not be read",
    "task=edit start=0.4 image=grey.png": "takes a class, and the image has none",
    "task=inpaint start=0.4": "start=0.4 belongs to task=edit",
    "start=0.4": "start belongs to a task",
    "start=0": "start belongs to a task",
    "image=grey.png": "image belongs to a task",
    "draws=2": "draws belongs to a task",
    "observation=mmps": "observation belongs to a task",
    "task=inpaint seed=[1,2,3]": "With a task a seed is one number",
    "task=jpeg": "What task=jpeg shows is no linear function of the image",
    "task=colorize": "the data are grey already",
    "task=superresolve task.k=3": "takes sides that 3 divides",
    "task=inpaint observation=mmps observation.std=0": "std",
}


@pytest.mark.parametrize("how", WRONG)
def test_what_is_wrong_is_one_sentence_and_no_folder(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    files(tmp_path)
    run = finished / "outputs" / "digits"
    before = set((run / "samples").glob("*"))
    code, _, err = typed("sample", f"run={run}", "n=3", *how.split(), cwd=tmp_path)
    assert code == 1 and WRONG[how] in err and "Traceback" not in err
    assert set((run / "samples").glob("*")) == before


def test_another_runs_task_is_refused(painter: Path, tmp_path: Path) -> None:
    run = f"run={painter / 'outputs' / 'p'}"
    for how, says in (
        (["task=uncrop"], "was trained for task=inpaint, not for task=uncrop"),
        (["task=edit", "start=0.4"], "was trained for task=inpaint, not for task=edit"),
        ([], "trained to restore, and generates nothing by itself: give its task, task=inpaint"),
        (["task=inpaint", "observation=ddnm"], "leave observation out"),
        (["task=inpaint", "task.size=0.9"], "another task=inpaint: give task.size=0.5"),
    ):
        code, _, err = typed("sample", run, "n=3", *how, cwd=tmp_path)
        assert code == 1 and says in err and "Traceback" not in err


def test_another_image_of_the_same_name_is_not_the_old_one(finished: Path, tmp_path: Path) -> None:
    """Samples of a file that was written over are refused, not measured beside the new one."""
    path, images = tmp_path / "one.npy", gather(digits("test"), 2).x
    how = ["task=superresolve", "classes=[3]", f"image={path}", "name=same"]
    np.save(path, images[0].numpy())
    sampled(finished, "digits", *how)
    np.save(path, images[1].numpy())
    code, _, err = typed("sample", "run=outputs/digits", *FEW, *how, cwd=finished)
    assert code == 1 and "images" in err and "Traceback" not in err


def test_other_commands_refuse_what_restores(painter: Path) -> None:
    for command in (["evaluate"], ["tune", "nfe=4"]):
        name, *how = command
        code, _, err = typed(name, "run=outputs/p", *how, cwd=painter)
        assert code == 1 and "was trained to restore: measure it with sdegen-sample" in err
        assert "Traceback" not in err


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    for how, says in (
        (["task=edit"], "task=edit is for sdegen-sample, with any run"),
        (["task=colorize"], "the data are grey already"),
        (["experiment=toy2d", "task=inpaint"], "A task gives the network what is seen"),
        (["task=inpaint", "loss=vdm", "sde=learned"], "vdm_loss is a loss of all of the data"),
    ):
        code, _, err = typed("train", *how, "device=cpu", cwd=tmp_path)
        assert code == 1 and says in err and "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["palette_inpaint", "palette_colorize"])
def test_an_experiment_of_palette_runs(name: str, tmp_path: Path) -> None:
    how = [f"experiment=restoration/{name}", *NET, "evaluate.budgets=[2]"]
    code, out, err = typed("train", *how, cwd=tmp_path)
    assert code == 0, out + err
    task = "task=inpaint" if name == "palette_inpaint" else "task=colorize"
    _, result, _ = sampled(tmp_path, f"restoration/{name}", task)
    assert result["restored"]["images"] == 3

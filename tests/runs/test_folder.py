"""What a run's folder says of itself: which weights it has, and of what data they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdegen.files import read_header, read_tensors, write_tensors
from sdegen.runs.folder import WEIGHTS, load_run
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import refused
from tests.processes import TINY, typed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional run on points of the plane, finished at step 2."""
    cwd = tmp_path_factory.mktemp("run")
    small = ["conditional=true", "train.steps=2", "evaluate.budgets=[2]"]
    code, _, err = typed("train", *TINY, *small, cwd=cwd)
    assert code == 0, err
    return cwd / "outputs" / "toy2d"


def test_weights_say_their_step_and_the_labels_of_their_data(folder: Path) -> None:
    run = load_run(folder, [], "cpu")
    header = read_header(folder / WEIGHTS)
    assert run.step == 2 and run.shape == [2] and header["names"] == []
    assert run.counts == header["counts"] and sum(run.counts) == 20_000 and len(run.counts) == 2


def test_weights_of_an_earlier_step_are_said_to_be(folder: Path) -> None:
    """A finished run that was continued, and stopped: its samples are of the weights before."""
    tensors, about = read_tensors(folder / CHECKPOINT)
    write_tensors(folder / CHECKPOINT, tensors, {**about, "step": 9})
    with pytest.warns(UserWarning, match=r"are of step 2, .* its checkpoint is of step 9: finish"):
        run = load_run(folder, [], "cpu")
    assert run.step == 2
    write_tensors(folder / CHECKPOINT, tensors, about)
    load_run(folder, [], "cpu")


def test_finished_weights_need_no_checkpoint(folder: Path) -> None:
    path = folder / CHECKPOINT
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert load_run(folder, [], "cpu").step == 2
    with refused("is damaged"):
        load_run(folder, [], "cpu", "averaged")
    path.write_bytes(whole)
    tensors, about = read_tensors(path)
    write_tensors(path, tensors, {k: v for k, v in about.items() if k != "run"})
    with refused("does not say what run it is of"):
        load_run(folder, [], "cpu", "raw")
    path.write_bytes(whole)


def test_weights_that_say_less_are_read(folder: Path) -> None:
    tensors, about = read_tensors(folder / WEIGHTS)
    old = {name: about[name] for name in ("config", "shape", "classes")}
    write_tensors(folder / WEIGHTS, tensors, old)
    run = load_run(folder, [], "cpu")
    assert run.counts == [1, 1] and run.step is None and run.names == ()

"""Samples on the way: when they are drawn, of what, and that training does not notice."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import IterableDataset

import sdegen as sg
from sdegen.files import read_header
from sdegen.runs.folder import load_run
from sdegen.runs.progress import NFE, PROGRESS, Progress
from sdegen.training import stopping
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import refused
from tests.processes import TINY, typed
from tests.trainers import trainer


class Noisy(IterableDataset[Tensor]):
    """A stream that draws from torch's own generator, whose state is then part of the run."""

    shape, classes = (2,), 0

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield torch.randn(2)


def draws(*call: Any) -> None:
    """What a network may do that is random whenever it is called."""
    torch.rand(3)


def run_with(folder: Path, every: int, data: Any = None) -> dict[str, Tensor]:
    """Twelve steps as the command would take them, and what is saved; the averaged network draws
    from torch's generator."""
    from sdegen.runs.train import watch

    run = trainer(folder, data=data, log_every=2)
    run.averaged.net.register_forward_hook(draws)
    with stopping() as wish:
        watch(run, wish, Progress(folder, (2,), [], (), 0, every, 16))
    return load_file(folder / CHECKPOINT)


@pytest.mark.parametrize("data", [None, Noisy()], ids=["items", "noisy stream"])
def test_training_is_the_same_with_and_without(data: Any, tmp_path: Path) -> None:
    one, two = (run_with(tmp_path / str(every), every, data) for every in (0, 4))
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)
    assert not (tmp_path / "0" / PROGRESS).exists()
    names = sorted(path.name for path in (tmp_path / "4" / PROGRESS).iterdir())
    assert names == [f"{s:08}.{kind}" for s in (4, 8, 12) for kind in ("png", "safetensors")]


def test_they_are_the_averaged_models_always_from_the_same_starts(tmp_path: Path) -> None:
    run_with(tmp_path / "r", 12)
    path = tmp_path / "r" / PROGRESS / "00000012.safetensors"
    averaged = trainer(tmp_path / "r").averaged
    expected = sg.sample(averaged, (2000, 2), nfe=NFE, seed=0)
    assert torch.equal(load_file(path)["x"], expected)
    assert read_header(path) == {"step": 12, "seed": 0, "nfe": NFE}


def test_what_does_not_work_does_not_end_the_training(tmp_path: Path) -> None:
    progress = Progress(tmp_path, (2,), [], (), 0, 1, 16)

    def half(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x))[:, None] < 500, torch.nan, x)

    with pytest.warns(UserWarning, match="At step 3 500 of 2000 samples did not arrive"):
        progress.draw(sg.ScoreModel(half, sg.VPSDE()), 3)
    assert {path.suffix for path in (tmp_path / PROGRESS).iterdir()} == {".png", ".safetensors"}
    with pytest.warns(UserWarning, match="At step 4 2000 of 2000 samples did not arrive"):
        progress.draw(sg.ScoreModel(lambda x, t: x * torch.nan, sg.VPSDE()), 4)

    def full(x: Tensor, t: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with pytest.warns(UserWarning, match="no samples of step 5: out of memory"):
        progress.draw(sg.ScoreModel(full, sg.VPSDE()), 5)
    (tmp_path / "file").write_text("")
    elsewhere = dataclasses.replace(progress, folder=tmp_path / "file")
    with pytest.warns(UserWarning, match="no samples of step 6: .* cannot be written"):
        elsewhere.draw(sg.ScoreModel(half, sg.VPSDE()), 6)


def test_what_is_larger_comes_in_smaller_numbers(tmp_path: Path) -> None:
    """As many as training has at once, and 100 at most."""
    model = sg.ScoreModel(lambda x, t: x, sg.VPSDE())
    for shape, most, n in (((3,), 7, 7), ((1, 4, 4), 500, 100)):
        folder = tmp_path / str(n)
        Progress(folder, shape, [], (), 0, 1, most).draw(model, 1)
        assert load_file(folder / PROGRESS / "00000001.safetensors")["x"].shape == (n, *shape)
    assert (folder / PROGRESS / "00000001.png").exists()


def test_what_no_solver_solves_is_refused_before_the_training() -> None:
    model = sg.ScoreModel(lambda x, t: x, sg.VPSDE(T=1.0, t_min=0.0), "score")
    for every in (0, 1):
        progress = Progress(Path("x"), (2,), [], (), 0, every, 16)
        if every:
            with refused("t_min|sigma"):
                progress.refuse_early(model)
        else:
            progress.refuse_early(model)


def test_the_command_draws_samples_with_labels_and_keeps_steps(tmp_path: Path) -> None:
    """And a run that was drawn of, kept and averaged twice, is sampled by step and decay."""
    how = ["train.sample_every=2", "train.keep_every=2", "train.ema=[0.9,0.1]"]
    how += [f"~evaluate.solvers.{name}" for name in ("ddpm", "ddim", "heun", "euler_maruyama")]
    how = [*TINY, *how, "train.steps=4", "conditional=true", "evaluate.budgets=[2]"]
    code, _, err = typed("train", *how, cwd=tmp_path)
    assert code == 0, err
    run = tmp_path / "outputs" / "toy2d"
    found = load_file(run / PROGRESS / "00000002.safetensors")
    counts = load_run(run, [], "cpu").counts
    shares = [round(2000 * k / sum(counts)) for k in counts]
    assert len(found["x"]) == 2000 and found["y"].bincount().tolist() == shares

    def made(n: int = 4, weights: str = "finished", **which: Any) -> Tensor:
        model = sg.load(run, weights=weights, **which).given(y=found["y"][:n])
        return sg.sample(model, (n, 2), nfe=NFE, seed=0)

    assert torch.equal(made(2000, step=2), found["x"])
    assert torch.equal(made(step=2), made(step=2, ema=0.9))
    assert torch.equal(made(), made(step=4)) and torch.equal(made(ema=0.1), made(step=4, ema=0.1))
    different = [made(step=s, ema=e) for s in (2, 4) for e in (0.9, 0.1)]
    different += [made(weights="raw", step=s) for s in (2, 4)]
    assert len({tuple(x.flatten().tolist()) for x in different}) == 6

    with refused("no checkpoint of step 3 in .*: there are 2, 4"):
        sg.load(run, step=3)
    with refused("no average of ema=0.5: there are 0.9, 0.1"):
        sg.load(run, ema=0.5)
    with refused("ema=0.9 is of an average, but weights=raw are not averaged"):
        sg.load(run, weights="raw", ema=0.9)

    sampled = ["run=outputs/toy2d", "n=4", "nfe=2", "device=cpu", "quality=false", "ema=0.1"]
    code, _, err = typed("sample", "-m", *sampled, "step=2,4", cwd=tmp_path)
    assert code == 0, err
    for step in (2, 4):
        folder = run / "samples" / f"dpmpp-default-at{step}-ema0.1-nfe2-seed0"
        assert json.loads((folder / "result.json").read_text())["step"] == step
        made = load_file(folder / "samples.safetensors")
        model = sg.load(run, step=step, ema=0.1).given(y=made["y"])
        assert torch.equal(made["x"], sg.sample(model, (4, 2), solver="dpmpp", nfe=2, seed=0))
    code, _, err = typed("sample", *sampled, "step=7", cwd=tmp_path)
    assert code == 1 and "no checkpoint of step 7" in err and "there are 2, 4." in err

"""``experiment=networks/edm2`` small, and samples of it with averages of any width."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import sdegen as sg
from sdegen.data import digits, gather
from sdegen.files import read_tensors
from sdegen.runs.folder import load_run
from sdegen.runs.likelihood import evaluate_run, measure
from sdegen.runs.settings import EvaluateSettings, read
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import refused
from tests.configs import composed
from tests.processes import run

FEW = [f"~evaluate.solvers.{name}" for name in ("ddpm", "ddim", "heun", "euler_maruyama")]
HOW = [
    *FEW,
    "experiment=networks/edm2",
    "net.width=8",
    "train.steps=6",
    "train.snapshot_every=2",
    "train.batch_size=4",
    "evaluate.budgets=[1]",
    "device=cpu",
]


@pytest.mark.slow
def test_a_run_is_sampled_with_any_width(tmp_path: Path) -> None:
    code, _, err = run("train", *HOW, cwd=tmp_path)
    assert code == 0, err
    folder = tmp_path / "outputs" / "networks" / "edm2"
    assert len(list((folder / "snapshots").iterdir())) == 3
    tensors, _ = read_tensors(folder / CHECKPOINT)
    assert "loss.loss.weight" in tensors
    # A width that was tracked is that average.
    found = sg.load(folder, ema_std=0.1).state_dict()
    for name, value in found.items():
        torch.testing.assert_close(value, tensors[f"profile1.module.{name}"], rtol=1e-5, atol=1e-6)
    assert load_run(folder, [], "cpu", ema_std=0.08).step == 6
    how = ["run=outputs/networks/edm2", "ema_std=0.07", "n=4", "nfe=1"]
    how += ["quality=false", "device=cpu"]
    code, _, err = run("sample", *how, cwd=tmp_path)
    assert code == 0, err
    assert [each.name for each in (folder / "samples").iterdir() if "ema_std0.07" in each.name]
    # And its likelihood is that of these weights.
    few = ["n=3", "solver=euler", "steps=2", "device=cpu"]
    settings = read(EvaluateSettings, composed("evaluate", f"run={folder}", *few, "ema_std=0.07"))
    found = evaluate_run(settings)
    assert found.folder.name == "likelihood-ema_std0.07"
    some, model = gather(digits("test"), 3), sg.load(folder, ema_std=0.07)
    by_hand = measure(model.given(y=some.y), some.x, some.levels, settings, 0)
    told = json.loads((found.folder / "result.json").read_text())["samples"]["flow"]
    assert told == pytest.approx([row["flow"] for row in by_hand], rel=1e-5)
    other = measure(sg.load(folder).given(y=some.y), some.x, some.levels, settings, 0)
    assert told != pytest.approx([row["flow"] for row in other], rel=1e-5)
    with refused("ema=0.07: there are 0.999. The width of a profile is ema_std=0.07"):
        sg.load(folder, ema=0.07)

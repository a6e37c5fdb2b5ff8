"""What is not finite is found before it is saved, whatever the steps between records and saves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import AdamW

import sdegen as sg
from sdegen.data import toy
from sdegen.networks import MLP
from sdegen.training import Trainer, TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import refused
from tests.trainers import trainer


class At:
    """A loss that goes wrong at one step, and before it is the usual one."""

    def __init__(self, step: int, wrong: Any) -> None:
        self.step, self.wrong, self.calls = step, wrong, 0

    def __call__(self, model: sg.ScoreModel, x0: Tensor) -> Tensor:
        self.calls += 1
        loss = sg.dsm_loss(model, x0)
        return self.wrong(loss, model) if self.calls == self.step else loss


def nan_loss(loss: Tensor, model: Any) -> Tensor:
    return loss * math.nan


def infinite_loss(loss: Tensor, model: Any) -> Tensor:
    return loss + math.inf


def nan_gradient(loss: Tensor, model: Any) -> Tensor:
    """A loss of the right value, whose slope is 0 times infinity."""
    return loss + sum((0 * weight.sum()).abs().sqrt() for weight in model.parameters())


@pytest.mark.parametrize("wrong", [nan_loss, infinite_loss, nan_gradient])
@pytest.mark.parametrize("step", [8, 12])
def test_the_last_good_checkpoint_is_kept(tmp_path: Path, wrong: Any, step: int) -> None:
    """Between two records, and at the last step."""
    often = {"log_every": 20, "save_every": 5}
    list(trainer(tmp_path / "good", steps=step // 5 * 5, **often).steps())
    run = trainer(tmp_path / "bad", At(step, wrong), **often)
    kept = step // 5 * 5
    with refused(rf"step \d+: lower .* The checkpoint of step {kept} is the last good one"):
        list(run.steps())
    good, bad = (load_file(tmp_path / name / CHECKPOINT) for name in ("good", "bad"))
    assert all(torch.equal(good[name], bad[name]) for name in good)
    # The same command finds it again, and says the same.
    again = trainer(tmp_path / "bad", At(step - kept, wrong), **often)
    with refused(f"The checkpoint of step {kept} is the last good one"):
        list(again.steps())


def test_the_first_save_may_be_the_first_to_look(tmp_path: Path) -> None:
    for wrong, what in ((nan_loss, "loss is nan"), (nan_gradient, "weights are not finite")):
        run = trainer(tmp_path / "r", At(2, wrong), log_every=20, save_every=2)
        with refused(f"The {what} at step 2: .* There is no checkpoint yet"):
            list(run.steps())
        assert not list((tmp_path / "r").iterdir())


def test_a_wish_to_stop_saves_nothing_broken(tmp_path: Path) -> None:
    run = trainer(tmp_path / "r", At(1, nan_loss), log_every=20, save_every=20)
    wish: Any = True
    with refused("loss is nan at step 1"):
        list(run.steps(wish))
    assert not list((tmp_path / "r").iterdir())


class Masked(MLP):
    """Scores below a mask, which is infinite on purpose."""

    def __init__(self) -> None:
        super().__init__(dim=2, width=8, depth=1)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


@pytest.mark.parametrize("ema", [0.9, [0.9, 0.5]])
def test_a_mask_is_no_broken_weight(tmp_path: Path, ema: Any) -> None:
    """In the model and in its averages, and when a run goes on."""

    def run(steps: int) -> Trainer:
        model = sg.ScoreModel(Masked(), sg.VPSDE())
        settings = TrainSettings(steps=steps, batch_size=8, log_every=1, device="cpu", ema=ema)
        return Trainer(model, toy("moons", n=20), sg.dsm_loss, AdamW, settings, tmp_path)

    for steps in (2, 4):
        assert len(list(run(steps).steps())) == 2
    broken = run(5)
    broken.model.net.mask[0] = torch.nan
    with refused("weights are not finite at step 5"):
        list(broken.steps())

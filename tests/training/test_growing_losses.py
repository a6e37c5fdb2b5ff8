"""Losses that follow the training: what they are at a step is a function of the step alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import toy
from sdegen.distill import Consistency, Growing
from sdegen.files import read_tensors
from sdegen.networks import MLP
from sdegen.training import Trainer, TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from tests.trainers import trainer


def consistent(folder: Path, steps: int) -> Trainer:
    """A consistency model in training, on more and more levels."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    net = MLP(2, width=8, depth=1, numbers=("jump",))
    return Trainer(
        sg.ScoreModel(net, sg.FlowSDE(T=1.0), predicts="velocity", time="tau"),
        toy("moons", n=50),
        Consistency(steps=Growing(2, 16, 8)),
        lambda weights: torch.optim.AdamW(weights, lr=1e-2),
        TrainSettings(steps=steps, batch_size=8, save_every=100, device="cpu"),
        folder,
    )


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """The number of levels is that of the step, not of how long this process has run."""
    list(consistent(tmp_path / "whole", 8).steps())
    list(consistent(tmp_path / "parts", 5).steps())
    list(consistent(tmp_path / "parts", 8).steps())
    whole, parts = (read_tensors(tmp_path / n / CHECKPOINT)[0] for n in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_the_loss_of_each_step_is_asked_for(tmp_path: Path) -> None:
    """Counted from 0, and from where a run goes on."""
    asked: list[int] = []

    @dataclass(frozen=True)
    class Following:
        def at(self, step: int) -> Any:
            asked.append(step)
            return sg.dsm_loss

        def __call__(self, model: Any, x0: Tensor) -> Tensor:
            raise AssertionError("the loss of no step was taken")

    list(trainer(tmp_path, Following(), steps=3).steps())
    list(trainer(tmp_path, Following(), steps=5).steps())
    assert asked == [0, 1, 2, 3, 4]

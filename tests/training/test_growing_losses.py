"""Losses that follow the training: what they are at a step is a function of the step alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import toy
from sdegen.distill import Consistency, Growing
from sdegen.files import read_tensors
from sdegen.losses import Degraded, Uncertainty, dequantised, dropped, paired
from sdegen.networks import MLP
from sdegen.training import Trainer, TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.objective import at_step
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


@dataclass(frozen=True)
class Halved:
    """Half of another loss."""

    loss: Any

    def __call__(self, model: Any, x0: Tensor) -> Tensor:
        found: Tensor = 0.5 * self.loss(model, x0)
        return found


@dataclass(frozen=True)
class Counted:
    """A loss that is the step, and one more."""

    step: int = 0

    def at(self, step: int) -> Any:
        return Counted(step)

    def __call__(self, model: Any, x0: Tensor) -> Tensor:
        found: Tensor = self.step + 1 + 0 * model(x0, 0.5).eps.sum(1)
        return found


def shown(x0: Tensor, generator: Any) -> Degraded:
    return Degraded(x0, None)


AROUND: dict[str, Any] = {
    "uncertainty": Uncertainty,
    "two modules": lambda loss: Uncertainty(Uncertainty(loss)),
    "dropped": lambda loss: partial(dropped, loss=loss, p=0.5, without={"y": 2}),
    "dequantised": lambda loss: partial(dequantised, loss=loss, levels=17),
    "paired": lambda loss: partial(paired, loss=loss, degrade=shown),
    "a dataclass": Halved,
    "of an object": lambda loss: partial(Uncertainty(loss)),
    "three": lambda loss: Halved(partial(dequantised, loss=Uncertainty(loss), levels=17)),
}


@pytest.mark.parametrize("kind", AROUND)
def test_a_loss_inside_another_follows_too(kind: str) -> None:
    """u is 0 at first, so that all are the step's number; the loss that was given is as it was."""
    outer = AROUND[kind](Counted())
    net = MLP(2, width=8, depth=1, classes=2)

    def told(x: Tensor, t: Tensor, y: Tensor, c: Any = None) -> Tensor:
        found: Tensor = net(x, t, y)
        return found

    model = sg.ScoreModel(told, sg.VPSDE(), module=net).given(y=torch.tensor([0, 1]))
    half = 0.5 if kind in ("a dataclass", "three") else 1.0
    for step in (0, 7, 3):
        assert at_step(outer, step)(model, torch.zeros(2, 2)).tolist() == [half * (step + 1)] * 2
    assert outer(model, torch.zeros(2, 2)).tolist() == [half] * 2


@pytest.mark.parametrize("kind", ["uncertainty", "of an object", "three"])
def test_what_is_around_it_goes_on_learning(kind: str, tmp_path: Path) -> None:
    """The loss of a step shares its parameters, which are saved under the names of the loss."""
    records = list(trainer(tmp_path, AROUND[kind](Counted()), steps=12, log_every=1).steps())
    saved = read_tensors(tmp_path / CHECKPOINT)[0]
    names = [name for name in saved if name.startswith("loss.") and name.endswith("weight")]
    assert names == ["loss." + "loss.loss." * (kind == "three") + "weight"]
    assert bool(saved[names[0]].any())
    found = [record.loss for record in records]
    half = 0.5 if kind == "three" else 1.0
    assert found[0] == half and found[-1] > 3 * half
    assert found[-1] < 12 * half  # by what u has learned


def test_what_asks_the_step_nothing_is_the_loss_itself() -> None:
    for outer in (AROUND[kind](sg.dsm_loss) for kind in AROUND):
        assert at_step(outer, 5) is outer

"""Losses that learn: their parameters are in the optimiser and the checkpoint, in no average."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.data import toy
from sdegen.files import read_tensors, write_tensors
from sdegen.losses import dequantised
from sdegen.networks import MLP
from sdegen.training import Objective, TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.objective import parts_of
from tests.cases import close, refused
from tests.processes import TINY, run
from tests.trainers import trainer


class Scaled(nn.Module):
    """L / e^u + u, and how often it was asked in training."""

    def __init__(self, loss: Any = sg.dsm_loss) -> None:
        super().__init__()
        self.loss = loss
        self.u = nn.Parameter(torch.tensor(0.5))
        self.register_buffer("asked", torch.zeros((), dtype=torch.int64))

    def forward(self, model: Any, x0: Tensor) -> Tensor:
        if self.training:
            self.asked += 1
        found: Tensor = self.loss(model, x0) * (-self.u).exp() + self.u
        return found


def constant(model: Any, x0: Tensor) -> Tensor:
    """A loss of 3, or of 2 and 4 in two processes, that the model has a part in."""
    several = torch.distributed.is_initialized()
    value = 2 + 2 * torch.distributed.get_rank() if several else 3
    return value + 0 * model(x0, 0.5).eps.flatten(1).sum(1)


def checkpoint(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / CHECKPOINT)[0]


def test_the_loss_of_a_constant_learns_its_logarithm(tmp_path: Path) -> None:
    """The minimum of 3 / e^u + u is u = ln 3, where the loss is 1 + ln 3."""
    loss = Scaled(constant)
    records = list(trainer(tmp_path, loss, steps=300, log_every=100, warmup=0).steps())
    close(loss.u.detach(), torch.tensor(3.0).log(), rtol=4e-3)  # AdamW's decay pulls at it
    close(torch.tensor(records[-1].loss), 1 + torch.tensor(3.0).log(), rtol=1e-3)


def test_they_are_in_the_checkpoint_and_not_in_the_model(tmp_path: Path) -> None:
    loss = Scaled()
    run = trainer(tmp_path, loss)
    list(run.steps())
    saved = checkpoint(tmp_path)
    assert {k for k in saved if k.startswith("loss.")} == {"loss.u", "loss.asked"}
    assert torch.equal(saved["loss.u"], loss.u) and float(loss.u.detach()) != 0.5
    assert saved["loss.asked"] == 12
    assert not any(name.endswith(".u") for name in saved if name != "loss.u")
    # The optimiser has the model's parameters first, as without a loss that learns.
    count = len(list(run.model.parameters()))
    assert saved[f"optimizer.{count}.exp_avg"].shape == ()
    assert f"optimizer.{count + 1}.exp_avg" not in saved


@pytest.mark.parametrize("held", [False, True])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, held: bool) -> None:
    """By itself, and within another loss."""

    def run(name: str, steps: int) -> Any:
        loss: Any = Scaled()
        loss = partial(dequantised, levels=17, loss=loss) if held else loss
        how: dict[str, Any] = {"validate_every": 4, "held_out": toy("moons", n=20)}
        return trainer(tmp_path / name, loss, steps=steps, **how)

    list(run("whole", 12).steps())
    list(run("part", 7).steps())
    list(run("part", 12).steps())
    whole, part = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "part")
    assert whole.keys() == part.keys() and ("loss.loss.u" if held else "loss.u") in whole
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_another_loss_is_refused(tmp_path: Path) -> None:
    list(trainer(tmp_path, Scaled()).steps())
    with refused(r"belongs to another loss: The loss has nothing .* what was saved is asked, u"):
        trainer(tmp_path)
    tensors, about = read_tensors(tmp_path / CHECKPOINT)
    write_tensors(tmp_path / CHECKPOINT, {**tensors, "loss.u": torch.zeros(2)}, about)
    with refused("another loss: .* or of other shapes"):
        trainer(tmp_path, Scaled())


def test_parameters_that_are_shared_out_are_refused() -> None:
    from sdegen.training.objective import refuse_shared_out

    model, settings = sg.ScoreModel(MLP(2), sg.VPSDE()), TrainSettings(strategy="fsdp", devices=2)
    refuse_shared_out(Objective(model, sg.dsm_loss, False), settings)
    with refused("The loss has parameters of its own, which train.strategy = 'fsdp'"):
        refuse_shared_out(Objective(model, Scaled(), False), settings)


def test_teachers_are_no_part_of_a_loss() -> None:
    """Nor is a network in any argument but ``loss``; a memory without parameters is one."""
    memory, teacher = nn.BatchNorm1d(2, affine=False), sg.ScoreModel(MLP(2), sg.VPSDE())
    frozen = nn.Linear(2, 2)
    loss = partial(dequantised, loss=Scaled(), times=memory, teacher=teacher, judge=frozen)
    assert dict(parts_of(loss)) == {"loss.": loss.keywords["loss"], "times.": memory}
    assert dict(parts_of(sg.dsm_loss)) == {}
    model = sg.ScoreModel(MLP(2), sg.VPSDE())
    weights = Objective(model, loss, False).weights()
    assert len(weights) == len(list(model.parameters())) + 1


def test_a_memory_deep_inside_is_saved() -> None:
    """Within a module within a module, and of an object that a partial calls."""
    memory = nn.BatchNorm1d(2, affine=False)
    inner = Scaled(partial(dequantised, loss=sg.dsm_loss, times=memory))
    outer = Scaled(inner)
    assert dict(parts_of(outer)) == {"": outer, "loss.loss.times.": memory}
    assert dict(parts_of(partial(outer, where=None))) == dict(parts_of(outer))
    model = sg.ScoreModel(MLP(2), sg.VPSDE())
    state = Objective(model, outer, False).loss_state()
    assert {"u", "loss.u", "loss.loss.times.running_mean"} < state.keys()


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient of the mean loss, of which each has a part."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    here = "tests.training.test_learning_losses"
    inner = f"{{_target_: {here}.constant, _partial_: true}}"
    few = [f"~evaluate.solvers.{name}" for name in ("ddpm", "ddim", "heun", "euler_maruyama")]
    how = [
        *TINY,
        *few,
        "packages=[tests]",
        "~loss",
        f"+loss={{_target_: {here}.Scaled, loss: {inner}}}",
    ]
    found = []
    for devices in (1, 2):
        more = [f"train.devices={devices}", f"name=by{devices}", "train.steps=6"]
        code, _, err = run("train", *how, *more, cwd=tmp_path)
        assert code == 0, err
        found.append(checkpoint(tmp_path / "outputs" / f"by{devices}")["loss.u"])
    assert float(found[0]) != 0.5
    close(found[0], found[1], rtol=1e-6)

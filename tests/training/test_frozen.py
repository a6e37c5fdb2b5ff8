"""What does not train is neither copied nor written, and stays as it was."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.data import ArrayData
from sdegen.files import content, read_tensors
from sdegen.networks import Controlled, DiT, UNet, lora
from sdegen.training import Trainer, TrainSettings
from sdegen.training.averages import Averages
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.frozen import frozen_in, own_state
from tests.cases import close, refused

KINDS = ("lora", "control", "dit")


def model(kind: str, seed: int = 0) -> sg.ScoreModel:
    """A network of random weights with an adapter or a control."""
    torch.manual_seed(seed)
    net: Any = DiT(1, 16, 2, 2) if kind == "dit" else UNet(1, 8, heads=2)
    for weight in net.parameters():
        weight.data += 0.05 * torch.randn(weight.shape)
    torch.manual_seed(1)
    return sg.ScoreModel(lora(net, 2) if kind == "lora" else Controlled(net), sg.VPSDE())


def loss(of: Any, x0: torch.Tensor) -> torch.Tensor:
    return sg.dsm_loss(of.given(hint=x0) if isinstance(of.net, Controlled) else of, x0)


def trainer(kind: str, folder: Path, seed: int = 0, **more: Any) -> Trainer:
    folder.mkdir(exist_ok=True)
    chosen = {"steps": 6, "batch_size": 4, "log_every": 1, "save_every": 2, "warmup": 0}
    settings = TrainSettings(**{**chosen, "ema": [0.9, 0.5], "device": "cpu", **more})
    data = ArrayData(torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    adam = partial(torch.optim.AdamW, lr=1e-2)
    return Trainer(model(kind, seed), data, loss, adam, settings, folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_is_neither_changed_nor_copied_nor_written(kind: str, tmp_path: Path) -> None:
    run = trainer(kind, tmp_path / "r", snapshot_every=3)
    before = content(frozen_in(run.model))
    own = set(own_state(run.model))
    trained = {n for n, w in run.model.named_parameters() if w.requires_grad}
    assert trained <= own and not trained & frozen_in(run.model).keys()
    given = {id(w) for group in run.optimizer.param_groups for w in group["params"]}
    assert given == {id(w) for w in run.model.parameters() if w.requires_grad}
    list(run.steps())
    assert content(frozen_in(run.model)) == before
    theirs = {n: w.data_ptr() for n, w in run.model.named_parameters()}
    for copy in run.averages.copies:
        for name, weight in copy.module.named_parameters():
            assert (weight.data_ptr() == theirs[name]) == (not weight.requires_grad)
            if name in trained and "lora_A" not in name:
                assert not torch.equal(weight, run.model.state_dict()[name])
    tensors, about = read_tensors(tmp_path / "r" / CHECKPOINT)
    assert about["frozen"] == before
    saved = {name.partition(".")[2] for name in tensors if name.startswith("model.")}
    assert saved == own
    for begin in ("ema.module.", "ema1.module.", "profile0.module."):
        names = {n.removeprefix(begin) for n in tensors if n.startswith(begin)}
        assert names == own


@pytest.mark.parametrize(
    "kind", ["lora", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k != "lora")]
)
def test_killed_and_resumed_is_not_killed(kind: str, tmp_path: Path) -> None:
    whole = trainer(kind, tmp_path / "whole")
    list(whole.steps())
    for record in trainer(kind, tmp_path / "part").steps():
        if record.step == 5:
            break
    again = trainer(kind, tmp_path / "part")
    assert again.step == 4
    list(again.steps())
    one, two = (read_tensors(tmp_path / n / CHECKPOINT)[0] for n in ("whole", "part"))
    assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)
    for a, b in ((again.model, whole.model), (again.averaged, whole.averaged)):
        assert all(torch.equal(v, b.state_dict()[n]) for n, v in a.state_dict().items())


def test_another_base_and_another_part_are_refused(tmp_path: Path) -> None:
    list(trainer("control", tmp_path / "r").steps())
    with refused("was trained over frozen weights [0-9a-f]{16}, but the model here has"):
        trainer("control", tmp_path / "r", seed=5)
    free = trainer("control", tmp_path / "s", steps=1)
    list(free.steps())
    thawed = model("control").requires_grad_(True)
    settings = TrainSettings(steps=3, warmup=0, ema=[0.9, 0.5], device="cpu")
    with refused("but the model here has none that are frozen"):
        Trainer(thawed, free.data, loss, torch.optim.AdamW, settings, tmp_path / "s")


def test_averages_are_what_they_are_of_a_whole_copy() -> None:
    run = model("control")
    shared, apart = Averages(run, [0.9]), Averages(run, [0.9], share=False)
    for _ in range(4):
        for weight in run.parameters():
            if weight.requires_grad:
                weight.data += 0.1
        shared.update(run)
        apart.update(run)
    one, two = shared.model().state_dict(), apart.model().state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name, weight in run.named_parameters():
        expected = weight if not weight.requires_grad else None
        if expected is not None:
            close(one[name], expected, atol=0)

"""score_sde's checkpoints: averages by their order, buffers by name, nothing executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sdegen.interop.score_sde import load_ema
from tests.cases import refused


def network() -> nn.Module:
    """Weights, one that is not trained, and a buffer."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    net[2].bias.requires_grad_(False)  # type: ignore[union-attr]
    return net


def checkpoint(path: Path, net: nn.Module, **change: Any) -> Path:
    """As their code saves it, the averages the double of the weights."""
    ema = [2 * p.detach() for p in net.parameters() if p.requires_grad]
    found = {
        "optimizer": torch.optim.Adam(net.parameters()).state_dict(),
        "model": nn.DataParallel(net).state_dict(),
        "ema": {"decay": 0.999, "num_updates": 5, "shadow_params": ema},
        "step": 1200,
    }
    torch.save(found | change, path)
    return path


@pytest.mark.parametrize("averaged", [True, False])
def test_weights_go_where_they_belong(tmp_path: Path, averaged: bool) -> None:
    theirs = network()
    theirs[1].running_mean.fill_(7.0)  # type: ignore[union-attr,operator]
    path, ours = checkpoint(tmp_path / "c.pth", theirs), network()
    nn.init.zeros_(ours[0].weight)  # type: ignore[arg-type]
    assert load_ema(path, ours, averaged=averaged) == 1200
    for (name, mine), its in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        factor = 2 if averaged and mine.requires_grad else 1
        assert torch.equal(mine, factor * its), name
    assert (ours[1].running_mean == 7).all()  # type: ignore[operator]


@pytest.mark.parametrize("step", [1200.0, np.int64(1200), torch.tensor(1200)])
def test_numbers_of_other_kinds_are_read(tmp_path: Path, step: Any) -> None:
    """Steps and decays as NumPy's and torch's numbers; and no optimiser."""
    average = [2 * p.detach() for p in network().parameters() if p.requires_grad]
    ema = {"decay": np.float64(0.999), "num_updates": np.int32(5), "shadow_params": average}
    path = checkpoint(tmp_path / "c.pth", network(), step=step, ema=ema)
    found = torch.load(path, weights_only=False)
    del found["optimizer"]
    torch.save(found, path)
    net = network()
    assert load_ema(path, net) == 1200
    assert torch.equal(net[0].weight, average[0])  # type: ignore[index]


@pytest.mark.parametrize("step", [1.5, np.nan, True, "3", torch.tensor([1, 2]), torch.ones(0)])
def test_what_is_no_step_is_refused(tmp_path: Path, step: Any) -> None:
    with refused('"step" of .* is a whole number, but it is'):
        load_ema(checkpoint(tmp_path / "c.pth", network(), step=step), network())


@pytest.mark.parametrize("before", ["", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_are_known_behind_wrappers(tmp_path: Path, before: str) -> None:
    """Of a network that itself has a part called "module" too."""
    nets = [nn.Sequential(), nn.Sequential()]
    for each in nets:
        each.add_module("module", network())
    nets[0].module[0].weight.data.fill_(3.0)  # type: ignore[index,union-attr,operator]
    state = {before + name: value for name, value in nets[0].state_dict().items()}
    path = checkpoint(tmp_path / "c.pth", nets[0], model=state)
    load_ema(path, nets[1], averaged=False)
    assert (nets[1].module[0].weight == 3).all()  # type: ignore[index,union-attr]


def test_averages_of_all_parameters_and_of_shared_ones(tmp_path: Path) -> None:
    """Lists with what is not trained, and a weight of two names, which is averaged as both."""
    net = network()
    tied = nn.Sequential(net, net[0])  # type: ignore[index]
    every = [2 * p.detach() for p in tied.parameters()]
    trained = [2 * p.detach() for p in tied.parameters() if p.requires_grad]
    for ema in (every, trained):
        ours, path = network(), tmp_path / "c.pth"
        again = nn.Sequential(ours, ours[0])  # type: ignore[index]
        load_ema(checkpoint(path, tied, ema={"shadow_params": ema}), again)
        assert torch.equal(ours[0].weight, every[0])  # type: ignore[index]


def test_weights_without_averages_are_read_if_asked_for(tmp_path: Path) -> None:
    torch.save({"model": network().state_dict()}, tmp_path / "c.pth")
    assert load_ema(tmp_path / "c.pth", network(), averaged=False) == 0
    with refused("has model, ema and step, but .*: model"):
        load_ema(tmp_path / "c.pth", network())
    with refused("averaged must be true or false"):
        load_ema(tmp_path / "c.pth", network(), averaged="no")  # type: ignore[arg-type]


def test_other_networks_and_files_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    path, net = checkpoint(tmp_path / "c.pth", network()), nn.Linear(2, 3)
    before = net.weight.clone()
    with refused("has averages of 5 parameters, whose shapes are not those of the network's 2"):
        load_ema(path, net)
    with refused("is of another network: "):
        load_ema(path, net, averaged=False)
    assert torch.equal(net.weight, before)
    with refused("There is no checkpoint"):
        load_ema(tmp_path / "none.pth", net)
    (tmp_path / "half.pth").write_bytes(path.read_bytes()[:100])
    with refused("cannot be read as a checkpoint of tensors"):
        load_ema(tmp_path / "half.pth", net)
    torch.save({"weights": 1}, tmp_path / "other.pth")
    with refused("A checkpoint of score_sde has model, ema and step, but .*: weights"):
        load_ema(tmp_path / "other.pth", net)


def test_what_is_no_checkpoint_of_theirs_is_refused_in_a_sentence(tmp_path: Path) -> None:
    """Every part that is of another kind; averages and weights that are not finite."""
    net = network()
    before = {name: each.clone() for name, each in net.state_dict().items()}
    trained = [2 * p.detach() for p in net.parameters() if p.requires_grad]
    sick = [torch.full_like(trained[0], torch.nan), *trained[1:]]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"ema": {}}, '"ema" of .* has "shadow_params", a list of tensors, but it has nothing'),
        ({"ema": [1]}, "a list of tensors, but it has list"),
        ({"ema": {"shadow_params": 3}}, "a list of tensors, but it has shadow_params"),
        ({"ema": {"shadow_params": [1, 2]}}, "a list of tensors, but it has shadow_params"),
        ({"ema": {"shadow_params": sick}}, "has weights that are not finite, of 0.weight"),
        ({"model": [1, 2]}, '"model" of .* is a network\'s state, .* but it is of list'),
        ({"model": {"0.weight": 1}}, '"model" of .* is a network\'s state'),
        ({"step": "many"}, "\"step\" of .* is a whole number, but it is 'many'"),
    ]
    for change, message in cases:
        path = checkpoint(tmp_path / "c.pth", network(), **change)
        with refused(message):
            load_ema(path, net)
    for name, each in net.state_dict().items():
        assert torch.equal(each, before[name]), name


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = checkpoint(tmp_path / "c.pth", network(), extra=Evil())
    with refused(
        "cannot be read as a checkpoint of tensors: it asks for [a-z]+.mkdir, and nothing"
    ):
        load_ema(path, network())
    assert not (tmp_path / "executed").exists()

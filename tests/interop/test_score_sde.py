"""score_sde's checkpoints: averages by their order, buffers by name, nothing executed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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
    with refused("cannot be read as a checkpoint of tensors"):
        load_ema(path, network())
    assert not (tmp_path / "executed").exists()

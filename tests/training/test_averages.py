"""Averages of several decays: each is what a run of that decay alone would have."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import sdegen as sg
from sdegen.files import read_tensors, write_tensors
from sdegen.training import TrainSettings
from sdegen.training.averages import Averages
from sdegen.training.checkpoint import CHECKPOINT, weights_in
from tests.cases import close, refused
from tests.trainers import trainer


class Scale(nn.Module):
    """One weight, and a buffer."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(value, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.scale * x


def test_each_average_is_its_own_recursion() -> None:
    """a <- d a + (1 - d) w with d = min(decay, (1 + n)/(10 + n)), from the first weights on."""
    decays, weights = (0.9, 0.2, 0.0), [1.0, 4.0, -2.0, 7.0, 3.0]
    net = Scale()
    model = sg.ScoreModel(net, sg.VPSDE())
    averages = Averages(model, decays)
    expected = dict.fromkeys(decays, weights[0])
    for n, w in enumerate(weights):
        net.scale.data.fill_(w)
        net.count.fill_(n)
        averages.update(model)
        for decay, a in expected.items():
            d = min(decay, (1 + n) / (10 + n))
            expected[decay] = a if n == 0 else d * a + (1 - d) * w
    for decay, a in expected.items():
        copied = averages.model(decay)
        close(copied.net.scale.detach(), a, rtol=1e-6)
        assert copied.net.count == len(weights) - 1 and not copied.training
    assert len({round(a, 6) for a in expected.values()}) == 3
    assert averages.model() is averages.model(0.9)
    with refused(r"no average of ema=0.5: there are 0.9, 0.2, 0.0"):
        averages.model(0.5)


def test_a_checkpoint_has_them_all_as_if_they_were_alone(tmp_path: Path) -> None:
    both = trainer(tmp_path / "both", ema=[0.9, 0.3])
    list(both.steps())
    for decay in (0.9, 0.3):
        one = trainer(tmp_path / str(decay), ema=decay)
        list(one.steps())
        expected = one.averaged.state_dict()
        found, about = weights_in(tmp_path / "both" / CHECKPOINT, False, decay)
        assert about["ema"] == [0.9, 0.3] and found.keys() == expected.keys()
        assert all(torch.equal(found[k], expected[k]) for k in found)
        own = both.averages.model(decay).state_dict()
        assert all(torch.equal(found[k], own[k]) for k in found)
    first, _ = weights_in(tmp_path / "both" / CHECKPOINT, False, None)
    assert all(torch.equal(first[k], both.averaged.state_dict()[k]) for k in first)


def test_with_several_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    how = {"ema": [0.9, 0.99, 0.3], "accumulate": 3, "keep_every": 3}
    list(trainer(tmp_path / "whole", **how).steps())
    for record in trainer(tmp_path / "part", **how).steps():
        if record.step == 8:
            break
    again = trainer(tmp_path / "part", **how)
    assert again.step == 6  # kept, and so saved
    list(again.steps())
    one, two = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "part"))
    assert one.keys() == two.keys() and {"ema.n_averaged", "ema2.n_averaged"} < one.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_other_averages_are_refused(tmp_path: Path) -> None:
    list(trainer(tmp_path / "r", ema=0.9).steps())
    with refused(r"made with train.ema = \[0.9\], but this run has \[0.9, 0.99\]"):
        trainer(tmp_path / "r", ema=[0.9, 0.99])
    assert trainer(tmp_path / "r", ema=[0.9]).step == 12


def test_a_checkpoint_that_does_not_say_its_decay_has_one(tmp_path: Path) -> None:
    """As of earlier versions."""
    list(trainer(tmp_path / "r", ema=0.9, steps=5).steps())
    path = tmp_path / "r" / CHECKPOINT
    tensors, about = read_tensors(path)
    old = {k: v for k, v in about.items() if k != "ema"}
    write_tensors(path, tensors, old)
    again = trainer(tmp_path / "r", ema=0.9)
    list(again.steps())
    whole = trainer(tmp_path / "w", ema=0.9)
    list(whole.steps())
    a, b = again.averaged.state_dict(), whole.averaged.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    write_tensors(path, tensors, old)
    with refused("There is no average of ema=0.9: the checkpoint does not say which it has"):
        weights_in(path, False, 0.9)
    config = {"train": {"ema": 0.9}}
    write_tensors(path, tensors, {**old, "run": {"config": config}})
    assert weights_in(path, False, 0.9)[0].keys() == a.keys()
    with refused("no average of ema=0.5: there are 0.9"):
        weights_in(path, False, 0.5)
    with refused(r"made with train.ema = \[0.9\]|another network"):
        trainer(tmp_path / "r", ema=[0.9, 0.8])


@pytest.mark.parametrize("ema", [[], [0.9, 0.9], [0.9, 1.0], "x", None, True, [None], -0.1])
def test_decays_are_checked(ema: object) -> None:
    with refused("train.ema must "):
        TrainSettings(ema=ema)


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    """Its averaged copy would call the weights in training."""
    net = Scale(1.0)
    model = sg.ScoreModel(lambda x, t: 2 * net(x, t), sg.VPSDE(), module=net)
    with refused("is a function that holds its module"):
        Averages(model, [0.9])
    # What is copied with its weights is fine: a method, a partial.
    for fine in (net.forward, functools.partial(net)):
        copied = Averages(sg.ScoreModel(fine, sg.VPSDE(), module=net), [0.9])
        net.scale.data.fill_(5.0)
        close(copied.model()(torch.ones(1, dtype=torch.float64), 0.5).eps.detach(), [1.0])
        net.scale.data.fill_(1.0)

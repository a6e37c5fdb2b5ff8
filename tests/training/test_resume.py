"""What may differ when a run goes on: random data, processes, steps."""

from __future__ import annotations

import itertools
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sdegen.data import InfiniteBatches, SeededItems
from sdegen.files import LOCK, read_tensors, write_tensors
from sdegen.report.curves import training
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.identity import read_records
from sdegen.training.trainer import RECORDS
from tests.cases import refused
from tests.trainers import trainer


class Augmented:
    """Points that are moved by three generators whenever they are looked at."""

    shape, classes = (2,), 0

    def __len__(self) -> int:
        return 20

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        shift = torch.tensor([random.gauss(0, 1), np.random.standard_normal()])
        return i / 10 + torch.randn(2) + shift.float(), torch.tensor(0)


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / CHECKPOINT)


@pytest.mark.parametrize("workers", [0, 2])
def test_random_data_resumes_bit_for_bit(tmp_path: Path, workers: int) -> None:
    """In this process or in others: what is drawn for an item depends on neither."""
    list(trainer(tmp_path / "whole", data=Augmented()).steps())
    list(trainer(tmp_path / "part", data=Augmented(), steps=7, workers=workers).steps())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    list(trainer(tmp_path / "part", data=Augmented(), workers=workers).steps())
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "part")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_random_items_are_of_seed_item_and_epoch() -> None:
    data = SeededItems(Augmented(), 3)
    items = {(i, e): tuple(data[i, e][0].tolist()) for i in range(20) for e in range(3)}
    assert len(set(items.values())) == 60
    assert all(tuple(data[visit][0].tolist()) == item for visit, item in items.items())
    assert tuple(SeededItems(Augmented(), 4)[0, 0][0].tolist()) != items[0, 0]


def test_random_items_leave_the_generators_alone() -> None:
    drawn = []
    for look in (False, True):
        torch.manual_seed(5), random.seed(5), np.random.seed(5)
        if look:
            SeededItems(Augmented(), 0)[2, 0]
        drawn.append((float(torch.rand(())), random.random(), np.random.random()))
    assert drawn[0] == drawn[1]


def test_with_other_processes_the_data_go_on_where_they_were(tmp_path: Path) -> None:
    """Six steps of two processes see what twelve of one would have: then come the next."""
    before = [list(itertools.islice(InfiniteBatches(50, 4, rank=r, world=2), 6)) for r in (0, 1)]
    after = itertools.islice(InfiniteBatches(50, 4, start=6, seen=48), 5)
    alone = itertools.islice(InfiniteBatches(50, 4), 17)
    both = [batch for pair in zip(*before, strict=True) for batch in pair]
    assert [*both, *after] == list(alone)

    run = trainer(tmp_path / "r", steps=5)
    list(run.steps())
    run.fabric = TwoProcesses(run.fabric)
    run.seen *= 2
    run.save()
    with pytest.warns(UserWarning, match=r"train.devices = 2, and this run has 1: .* 16 .* 32"):
        again = trainer(tmp_path / "r", steps=6)
    assert again.seen == 160
    expected = next(iter(InfiniteBatches(50, 16, seen=160)))
    assert torch.equal(next(again.batches())[0], again.data.x[expected])
    list(again.steps())
    assert again.seen == 176


class TwoProcesses:
    """An engine that says it has two."""

    world_size = 2

    def __init__(self, fabric: Any) -> None:
        self.fabric = fabric

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fabric, name)


def test_fewer_steps_than_were_taken_are_refused(tmp_path: Path) -> None:
    list(trainer(tmp_path / "r", steps=6).steps())
    with refused(r"is of step 6, beyond train.steps = 5: give train.steps=6 or more"):
        trainer(tmp_path / "r", steps=5)
    assert not list(trainer(tmp_path / "r", steps=6).steps())


def test_records_of_a_run_that_never_saved_are_forgotten(tmp_path: Path) -> None:
    steps = trainer(tmp_path / "r", save_every=50).steps()
    next(steps), steps.close()  # type: ignore[attr-defined]
    list(trainer(tmp_path / "r").steps())
    lines = (tmp_path / "r" / RECORDS).read_text().splitlines()
    assert len(lines) == 3


def test_a_record_that_a_kill_cut_short_is_none(tmp_path: Path) -> None:
    assert read_records(tmp_path / RECORDS) == []
    lines = ['{"step": 1, "loss": NaN}', '{"step": 2}', "[1]", '{"loss": 3}', '{"step": 3, "lo']
    (tmp_path / RECORDS).write_text("\n".join(lines))
    assert [each["step"] for each in read_records(tmp_path / RECORDS)] == [1, 2]
    assert "Training" in training(tmp_path)  # of numbers none of which is finite too


def test_a_folder_is_locked_while_a_trainer_trains_in_it(tmp_path: Path) -> None:
    run = trainer(tmp_path / "r")
    for _ in run.steps():
        assert (tmp_path / "r" / LOCK).exists()
    assert not (tmp_path / "r" / LOCK).exists()


class Counting(torch.optim.AdamW):
    """Keeps a number of its own among its settings, as those without a schedule do."""

    def __init__(self, weights: Any, **how: Any) -> None:
        super().__init__(weights, **how)
        self.param_groups[0]["k"] = 0

    def step(self, closure: Any = None) -> Any:
        self.param_groups[0]["k"] += 1
        return super().step(closure)


def test_settings_of_the_optimiser_that_are_changed_are_heard(tmp_path: Path) -> None:
    """And what it keeps among them goes on, as do those that are not."""
    list(trainer(tmp_path, steps=4, optimizer=partial(Counting, lr=1e-2, eps=1e-7)).steps())
    asked = {"lr": 3e-2, "betas": (0.8, 0.9), "weight_decay": 0.5, "eps": 1e-7}
    again = trainer(tmp_path, optimizer=partial(Counting, **asked))
    group = again.optimizer.param_groups[0]
    assert {**{k: group[k] for k in asked}, "k": group["k"]} == {
        **{**asked, "betas": [0.8, 0.9]},
        "k": 4,
    }
    assert [record.lr for record in again.steps()] == [3e-2, 3e-2]
    group = trainer(tmp_path, steps=12, optimizer=partial(Counting, **asked)).optimizer
    assert group.param_groups[0]["k"] == 12 and group.param_groups[0]["lr"] == 3e-2


def test_another_optimiser_does_not_go_on(tmp_path: Path) -> None:
    adam = partial(torch.optim.Adam, lr=1e-2)
    list(trainer(tmp_path, steps=4, optimizer=adam).steps())
    with refused("was made with Adam, but this run has SGD: choose another run folder"):
        trainer(tmp_path, optimizer=partial(torch.optim.SGD, lr=1e-2))
    with refused("Adam has no 'max_exp_avg_sq' of the weights, .* begin anew"):
        list(trainer(tmp_path, optimizer=partial(adam, amsgrad=True)).steps())
    with refused("Adam has settings that no checkpoint can keep .*Tensor.*: give it plain numb"):
        trainer(tmp_path / "new", optimizer=partial(adam, lr=torch.tensor(1e-2)))


def test_checkpoints_of_before_say_no_optimiser(tmp_path: Path) -> None:
    list(trainer(tmp_path, steps=4).steps())
    tensors, about = read_tensors(tmp_path / CHECKPOINT)
    del about["asked"]
    write_tensors(tmp_path / CHECKPOINT, tensors, about)
    again = trainer(tmp_path, optimizer=partial(torch.optim.Adam, lr=1e-2, betas=(0.1, 0.2)))
    assert again.optimizer.param_groups[0]["betas"] == [0.9, 0.999]

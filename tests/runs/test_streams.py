"""Streams through the command: trained, counted and measured by what they begin with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import IterableDataset

from sdegen.data.classes import ENOUGH
from sdegen.runs.build import build_data
from sdegen.runs.folder import description, in_memory
from sdegen.runs.train import refuse_data, two_of
from sdegen.training import TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import refused
from tests.processes import TINY, typed


class Stream(IterableDataset[Any]):
    """Points of two classes, three to one, the n-th a function of n: without an end, or with."""

    shape = (2,)

    def __init__(self, n: int | None = None, classes: int = 2, start: int = 0) -> None:
        self.n, self.classes, self.start = n, classes, start

    def __iter__(self) -> Iterator[Any]:
        for i in islice(count(self.start), self.n):
            y = int(i % 4 == 3)
            x = torch.tensor([i * 0.618 % 1 - 0.5, i * 0.414 % 1 + y])
            yield (x, y) if self.classes else x


class Unnamed(IterableDataset[Any]):
    """A stream that does not say what it is of."""

    def __iter__(self) -> Iterator[Tensor]:
        yield torch.zeros(2)


def command(*more: str, train: str = "Stream", test: str | None = None) -> list[str]:
    """A tiny run of a stream, held out or not."""
    data = ["~data.train", f"+data.train._target_={__name__}.{train}", "~data.test"]
    data += [] if test is None else [f"+data.test={test}"]
    few = [f"~evaluate.solvers.{name}" for name in ("ddpm", "ddim", "heun")]
    some = ["packages=[tests]", "train.steps=6", "train.save_every=2", "evaluate.budgets=[2]"]
    return [*TINY, *data, *few, *some, *more]


def test_a_stream_trains_and_is_sampled(tmp_path: Path) -> None:
    """Without held-out data nothing is measured, and it is said."""
    code, out, err = typed("train", *command("conditional=true"), cwd=tmp_path)
    assert code == 0, err
    assert "a stream" in out and "6 steps" in out and "samples are not measured" in out
    assert "real data" not in out
    table = json.loads((tmp_path / "outputs" / "toy2d" / "table.json").read_text())
    assert len(table) == 2 and all(row["sliced"] is None for row in table)
    how = ["run=outputs/toy2d", "n=8", "nfe=2", "device=cpu", "packages=[tests]"]
    code, out, err = typed("sample", *how, cwd=tmp_path)
    assert code == 0, err
    assert "The samples are not measured: the run has no held-out data" in out
    (made,) = (tmp_path / "outputs" / "toy2d" / "samples").glob("*/samples.safetensors")
    assert load_file(made)["y"].bincount().tolist() == [6, 2]


@pytest.mark.slow
@pytest.mark.parametrize("n", [None, 7], ids=["endless", "of seven"])
def test_a_stopped_stream_goes_on_bit_for_bit(n: int | None, tmp_path: Path) -> None:
    """In the middle, or where it has begun again."""
    end = [] if n is None else [f"+data.train.n={n}"]
    for more in (["name=whole"], ["name=part", "train.steps=3"], ["name=part"]):
        code, _, err = typed("train", *command(*end, *more), cwd=tmp_path)
        assert code == 0, err
    one, two = (load_file(tmp_path / "outputs" / k / CHECKPOINT) for k in ("whole", "part"))
    assert all(torch.equal(one[k], two[k]) for k in one)
    some = ["run=outputs/part", "n=4", "solver=heun", "nfe=8", "packages=[tests]"]
    code, _, err = typed("evaluate", *some, "split=train", cwd=tmp_path)
    assert code == 0, err
    code, _, err = typed("evaluate", *some, cwd=tmp_path)
    assert code == 1 and "Of a stream nothing is held out: give data.test" in err


def test_with_held_out_data_it_is_measured(tmp_path: Path) -> None:
    """Which may be a stream as well: its beginning is held out."""
    held = f"{{_target_: {__name__}.Stream, start: 1000000, n: 50}}"
    how = command("train.validate_every=3", "objective=sliced", test=held)
    code, out, err = typed("train", *how, cwd=tmp_path)
    assert code == 0, err
    floor, *rows = json.loads((tmp_path / "outputs" / "toy2d" / "table.json").read_text())
    assert floor["solver"] == "real data (floor)" and "not measured" not in out
    assert 0 < floor["sliced"] < min(row["sliced"] for row in rows)
    records = (tmp_path / "outputs" / "toy2d" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(each)["held_out"] is not None for each in records] == [0, 0, 1, 0, 0, 1]


def test_what_needs_held_out_data_says_so_before_the_training(tmp_path: Path) -> None:
    code, _, err = typed("train", *command("objective=sliced"), cwd=tmp_path)
    assert code == 1 and "objective = sliced needs held-out data: give data.test" in err
    assert not list(tmp_path.rglob("*.safetensors"))
    often: Any = SimpleNamespace(train=TrainSettings(validate_every=20), objective=None)
    with refused("train.validate_every = 20 needs held-out data"):
        refuse_data(Stream(), None, often)
    refuse_data(Stream(), Stream(), often)
    with refused("data.train is a Unnamed without shape: it must say the shape"):
        refuse_data(Unnamed(), Stream(), often)
    with refused("The stream of data has no items"):
        two_of(Stream(0))
    with refused("The data have no items"):
        two_of([])
    assert len(two_of(Stream(1))) == 1 and len(two_of(Stream())) == 2


def test_classes_are_counted_in_the_beginning() -> None:
    said = description({}, Stream())
    assert said["counts"] == [ENOUGH - ENOUGH // 4, ENOUGH // 4] and said["classes"] == 2
    assert description({}, Stream(5, classes=4))["counts"] == [4, 1, 0, 0]
    assert description({}, Stream(classes=0))["counts"] == []
    whole = in_memory(Stream(7))
    assert whole.x.shape == (7, 2) and whole.y.tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert len(in_memory(Stream())) == ENOUGH
    with refused("says that it has 1 classes, but an item of it has no label y from 0 to 0"):
        in_memory(Stream(classes=1))

    class Unlabelled(Stream):
        def __iter__(self) -> Iterator[Any]:
            return (x for x, _ in super().__iter__())

    with refused("says that it has 2 classes, but an item of it has no label"):
        in_memory(Unlabelled())


def test_a_stream_without_classes_teaches_none() -> None:
    node = {"_target_": f"{__name__}.Stream", "classes": 0}
    config = {"data": {"train": node}, "packages": ["tests"], "conditional": True}
    with refused("conditional=true, but the data have no classes: say conditional=false"):
        build_data(config)
    assert build_data({**config, "conditional": False})[0].classes == 0


def test_a_stream_is_not_read_that_is_not_asked_for_its_classes() -> None:
    class Silent(Stream):
        def __iter__(self) -> Iterator[Any]:
            raise AssertionError

    assert description({}, Silent(classes=0))["classes"] == 0

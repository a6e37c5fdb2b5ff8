"""What data sets hand over, and how a step takes it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

import sdegen as sg
from sdegen.data import ArrayData
from sdegen.training import Trainer, TrainSettings
from sdegen.training.batches import loaded
from sdegen.training.rates import rate
from sdegen.training.trainer import HELD_OUT, RECORDS
from tests.cases import close, normal, refused
from tests.trainers import trainer

X, Y = normal(40, 2, dtype=torch.float32), torch.arange(40) % 3


class Items(Dataset[Any]):
    """A data set of anything, item by item."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


class Stream(IterableDataset[Any]):
    """The same, read from its beginning alone."""

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(X, Y, strict=True))


class Net(nn.Module):
    """Takes what it is given and remembers the last."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.seen: dict[str, Any] = {}

    def forward(self, x: Tensor, t: Tensor, **given: Any) -> Tensor:
        self.seen = given
        return self.scale * x


KINDS: dict[str, tuple[Any, set[str]]] = {
    "x": (Items(list(X)), set()),
    "x in a tuple": (TensorDataset(X), set()),
    "x and y": (TensorDataset(X, Y), {"y"}),
    "x and names": (
        Items([(x, {"y": int(y), "c": x}) for x, y in zip(X, Y, strict=True)]),
        {"y", "c"},
    ),
    "as Hugging Face's": (
        Items([{"image": x, "label": int(y)} for x, y in zip(X, Y, strict=True)]),
        {"y"},
    ),
    "a stream": (Stream(), {"y"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_items_of_any_kind_train(kind: str, tmp_path: Path) -> None:
    data, names = KINDS[kind]
    net = Net()
    run = Trainer(
        sg.ScoreModel(net, sg.VPSDE()),
        data,
        sg.dsm_loss,
        lambda weights: torch.optim.AdamW(weights),
        TrainSettings(steps=2, batch_size=8, log_every=1, device="cpu"),
        tmp_path,
        conditional=True,
    )
    assert [record.step for record in run.steps()] == [1, 2]
    assert net.seen.keys() == names
    assert all(len(value) == 8 for value in net.seen.values())


@pytest.mark.parametrize("data", [None, Stream()], ids=["items", "stream"])
def test_a_stopped_run_goes_on_where_it_was(data: Any, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", data=data, schedule="cosine", accumulate=3)
    list(whole.steps())
    part = trainer(tmp_path / "part", data=data, schedule="cosine", accumulate=3)
    for record in part.steps():
        if record.step == 8:
            break
    again = trainer(tmp_path / "part", data=data, schedule="cosine", accumulate=3)
    assert again.step == 5
    list(again.steps())
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_parts_of_a_batch_have_the_gradient_of_the_whole(tmp_path: Path) -> None:
    """With a loss without noise, in parts of unequal length too: 16 in five."""

    def loss(model: sg.ScoreModel, x0: Tensor) -> Tensor:
        return (model.net(x0, torch.full((len(x0),), 0.3)) - 1).square().mean(1)

    runs = [trainer(tmp_path / str(n), loss, accumulate=n) for n in (1, 2, 5, 99)]
    records = [[r.loss for r in run.steps()] for run in runs]
    for run, record in zip(runs[1:], records[1:], strict=True):
        close(torch.tensor(record), records[0], rtol=1e-5)
        for a, b in zip(run.model.parameters(), runs[0].model.parameters(), strict=True):
            close(a.detach(), b.detach(), rtol=1e-3, atol=1e-5)


def test_the_learning_rate_goes_as_it_says(tmp_path: Path) -> None:
    warm, steps = 10, 110
    for name in ("constant", "cosine", "rsqrt"):
        close([rate(name, k, warm, steps) for k in (0, 4, 9)], [0.1, 0.5, 1.0], rtol=1e-12)
    close(rate("cosine", 60, warm, steps), 0.5)
    close(rate("cosine", 110, warm, steps), 0.0, atol=1e-15)
    close(rate("rsqrt", 39, warm, steps), math.sqrt(10 / 40))
    close(rate("rsqrt", 99, warm, steps, 25), math.sqrt(25 / 100))
    assert rate("rsqrt", 24, warm, steps, 25) == 1.0 == rate("cosine", 25, warm, steps, 25)
    assert rate("rsqrt", 5, 0, steps) == math.sqrt(1 / 6) and rate("cosine", 0, 0, 1) == 1.0
    lr = [record.lr for record in trainer(tmp_path, schedule="cosine").steps()]
    close(lr, [1e-2 * rate("cosine", k, 3, 12) for k in (3, 7, 11)])


def held_out_losses(folder: Path, held: Any, every: int, loss: Any = sg.dsm_loss) -> list[Any]:
    """Held-out losses of four steps that change no weight."""
    folder.mkdir()
    settings = {"steps": 4, "batch_size": 16, "log_every": 1, "validate_every": every}
    made = Trainer(
        sg.ScoreModel(Net(), sg.VPSDE()),
        TensorDataset(X),
        loss,
        lambda weights: torch.optim.SGD(weights, lr=0.0),
        TrainSettings(device="cpu", **settings),  # type: ignore[arg-type]
        folder,
        held_out=held,
    )
    return [record.held_out for record in made.steps()]


def test_held_out_data_tell_how_it_goes(tmp_path: Path) -> None:
    held = TensorDataset(X)
    first, second, third, fourth = held_out_losses(tmp_path / "a", held, 2)
    assert first is third is None
    assert second is not None and second == fourth  # the same noise, and weights that stay
    assert held_out_losses(tmp_path / "b", held, 0) == [None] * 4
    assert held_out_losses(tmp_path / "c", None, 2) == [None] * 4
    kept = [json.loads(line) for line in (tmp_path / "a" / RECORDS).read_text().splitlines()]
    assert kept[1]["held_out"] == second


def mean_of(model: sg.ScoreModel, x0: Tensor) -> Tensor:
    """A loss that tells which data it was taken of, and has a gradient, which is zero."""
    return x0.mean(1) + 0 * model.net(x0, torch.ones(len(x0))).sum(1)


class Random(Dataset[Any]):
    """Items that are random, and those that they are about."""

    def __init__(self, data: Dataset[Any]) -> None:
        self.plain = data

    def __len__(self) -> int:
        return len(self.plain)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> Any:
        raise AssertionError("What is measured has nothing random in it.")


def test_held_out_losses_are_of_all_classes_of_data_that_are_sorted(tmp_path: Path) -> None:
    """Of 4,096 items, of which a loss is taken of 1,024, a class for each quarter."""
    y = torch.arange(4).repeat_interleave(HELD_OUT)
    x = y[:, None].float().expand(-1, 2).contiguous()
    told = ArrayData(x, y)
    for name, held in {"told": told, "drawn": Random(told)}.items():
        assert held_out_losses(tmp_path / name, held, 4, mean_of)[-1] == 1.5
    # Of data that do not tell their labels it is a fair draw, of std sqrt(5 / 4 / 1024) = 0.035.
    found = held_out_losses(tmp_path / "not", TensorDataset(x, y), 4, mean_of)[-1]
    assert abs(found - 1.5) < 5 * 0.035


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with refused("LBFGS takes the loss several times in a step"):
        Trainer(
            sg.ScoreModel(Net(), sg.VPSDE()),
            TensorDataset(X),
            sg.dsm_loss,
            lambda weights: torch.optim.LBFGS(weights),
            TrainSettings(steps=1, device="cpu"),
            tmp_path,
        )
    for after in (0, -1, 1.5, True):
        with refused("train.after must be a whole number >= 1"):
            TrainSettings(after=after)
    with refused("train.after = 5 is the step from which a .* by train.after=null[.]"):
        TrainSettings(after=5)
    with refused("schedule must be one of constant, cosine, rsqrt"):
        TrainSettings(schedule="linear")
    with refused("accumulate must be a whole number >= 1"):
        TrainSettings(accumulate=0)
    with refused("validate_every = 30 must be a multiple of train.log_every = 20"):
        TrainSettings(validate_every=30)

    class Empty(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    with refused("stream of data has no items"):
        list(trainer(tmp_path / "empty", data=Empty()).steps())


class Worse(Dataset[Any]):
    """Items that do not come, or make no batch."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        if self.error:
            raise self.error
        return X[i][: 1 + i % 2]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, r"^Items of the data do not make a batch \(.*\): give tensors of one shape"),
        (ValueError("two\nlines, a ValueError: mine"), "^two\nlines, a ValueError: mine$"),
    ],
)
def test_what_is_wrong_with_items_is_said_by_processes_too(
    error: Any, said: str, workers: int, tmp_path: Path
) -> None:
    with refused(said):
        list(trainer(tmp_path, data=Worse(error), workers=workers).steps())


def test_other_errors_of_processes_are_as_they_are() -> None:
    def broken(error: Exception) -> Iterator[Any]:
        yield 1
        raise error

    for error in (RuntimeError("Caught KeyError in DataLoader worker process 0."), KeyError("a")):
        with pytest.raises(type(error), match=re.escape(str(error))):
            list(loaded(broken(error)))
    with refused("A process that loads data has ended .DataLoader worker .* exited.*: is there"):
        list(loaded(broken(RuntimeError("DataLoader worker (pid 3) exited unexpectedly."))))

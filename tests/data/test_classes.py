"""Parts of data and labels of samples keep the shares of the classes, whatever their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate

from sdegen.data import (
    ArrayData,
    ImageFolder,
    Mixed,
    class_counts,
    class_labels,
    gather,
    hold_out,
    numbered_as,
    stratified,
)
from sdegen.data.classes import known_labels
from sdegen.data.items import relabelled, split
from tests.cases import refused, refused_with

shares = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any)


@given(counts=shares, seed=st.integers(0, 10))
def test_every_beginning_has_the_classes_in_their_shares(counts: list[int], seed: int) -> None:
    torch.manual_seed(0)
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    y = y[torch.randperm(len(y))]
    order = stratified(y, seed)
    assert order.sort().values.tolist() == list(range(len(y)))
    for k in range(len(y) + 1):
        found = y[order[:k]].bincount(minlength=len(counts))
        ideal = torch.tensor(counts) * k / len(y)
        assert ((found - ideal).abs() <= sum(c > 0 for c in counts)).all()


def test_a_folder_sorted_by_class_gives_every_class() -> None:
    y = torch.arange(10).repeat_interleave(600)
    assert (y[stratified(y)[:1000]].bincount() == 100).all()


def test_the_draw_is_of_its_seed_and_else_uniform() -> None:
    y = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(stratified(y, 3), stratified(y, 3))
    first = torch.stack([stratified(y, seed)[0] for seed in range(1200)]).bincount(minlength=6)
    assert ((first - 200).abs() < 5 * (200 * 5 / 6) ** 0.5).all()


@given(counts=shares, n=st.integers(1, 100))
def test_labels_of_samples_come_as_often_as_the_data_s(counts: list[int], n: int) -> None:
    labels = class_labels(n, counts)
    assert torch.equal(labels, class_labels(n + 7, counts)[:n])  # of i alone, not of n
    found = class_labels(3 * sum(counts), counts).bincount(minlength=len(counts))
    assert found.tolist() == [3 * c for c in counts]


def test_nine_to_one_and_the_old_round() -> None:
    assert class_labels(1000, [900, 100]).bincount().tolist() == [900, 100]
    assert class_labels(12, [50] * 10).tolist() == [*range(10), 0, 1]
    rare = class_labels(100, [0, 0, 0, 0, 0, 50, 0, 0, 0, 50])
    assert rare.unique().tolist() == [5, 9]
    with refused_with("no classes to draw labels from"):
        class_labels(4, [0, 0])


class Plain:
    """A data set of someone's own, which tells no labels beforehand."""

    shape, classes = (2,), 3

    def __len__(self) -> int:
        return 90

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return torch.full((2,), float(i)), torch.tensor(i // 30)


@pytest.mark.parametrize("known", [False, True])
def test_a_part_of_any_data_set(known: bool) -> None:
    data: Any = Plain()
    if known:
        data.y = torch.arange(90) // 30
    part, smaller = gather(data, 30), gather(data, 12)
    assert torch.equal(part.x[:12], smaller.x) and torch.equal(part.y, part.x[:, 0].long() // 30)
    assert len(part.x.unique()) == 30 and set(part.y.tolist()) == {0, 1, 2}
    if known:
        assert part.y.bincount().tolist() == [10, 10, 10]
    assert gather(data).x[:, 0].tolist() == list(range(90))
    assert class_counts(data) == [30, 30, 30]
    assert gather(data, 200).x[:, 0].sort().values.tolist() == list(range(90))


def test_an_array_is_its_own_whole() -> None:
    data = ArrayData(torch.arange(8.0)[:, None], torch.tensor([0] * 6 + [1] * 2), 17)
    assert gather(data) is data
    part = gather(data, 4)
    assert part.levels == 17 and part.y.tolist().count(1) == 1
    assert class_counts(ArrayData(data.x)) == [] and class_counts(data) == [6, 2]


def write(root: Path, names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("L", (4, 4), 10 * ord(name) % 256).save(root / name / "x.png")


def test_held_out_folders_have_the_numbers_of_the_training_folders(tmp_path: Path) -> None:
    write(tmp_path / "train", "abc")
    write(tmp_path / "test", "ac")
    train, test = (ImageFolder(tmp_path / part, 4) for part in ("train", "test"))
    assert test.y.tolist() == [0, 1]
    again = numbered_as(test, train.names)
    assert again.y.tolist() == [0, 2] and again.classes == 3 and again.names == ("a", "b", "c")
    assert [int(y) for _, y in again] == [0, 2] and test.y.tolist() == [0, 1]
    assert numbered_as(train, train.names) is train
    with refused_with("have the class 'b', which is none of the training data's: a, c"):
        numbered_as(train, test.names)
    more = numbered_as(train, test.names, known_alone=False)
    assert more.names == ("a", "c", "b") and more.y.tolist() == [0, 2, 1]


def test_names_fit_the_classes() -> None:
    x, y = torch.zeros(3, 2), torch.tensor([0, 1, 0])
    assert ArrayData(x, y, names=["a", "b", "c"]).classes == 3
    with refused_with("1 names for 2 classes"):
        ArrayData(x, y, names=["a"])


class Kinds(Plain):
    """Items that have their labels from wherever they like, of one kind."""

    names, captions = ("c", "a", "b"), tuple(f"the {k}." for k in range(90))

    def __init__(self, label: Callable[[int], Any], flipped: bool = True) -> None:
        self.label, self.flipped = label, flipped

    @property
    def plain(self) -> Kinds:
        return Kinds(self.label, False)

    def __getitem__(self, i: int) -> Any:
        return torch.full((2,), -1.0 if self.flipped else float(i)), self.label(i // 30)


class Stream(IterableDataset[Any]):
    shape, classes, names = (2,), 3, ("c", "a", "b")

    def __iter__(self) -> Iterator[Any]:
        return iter([{"image": torch.zeros(2), "label": 1}, {"image": torch.zeros(2), "label": 0}])


@pytest.mark.parametrize(
    "label",
    [
        lambda k: k,
        torch.tensor,
        np.int64,
        lambda k: torch.tensor(k, dtype=torch.uint8),  # 0-dim bytes are a mask to torch
        lambda k: {"y": np.uint8(k), "w": 0.5},
        lambda k: {"y": torch.tensor([k])},
    ],
)
def test_labels_of_any_kind_of_data_are_numbered_by_their_names(label: Any) -> None:
    data, names = Kinds(label), ("a", "b", "c")
    again = numbered_as(data, names)
    x, told = split(default_collate([again[0], again[40], again[89]]))
    assert told["y"].flatten().tolist() == [2, 0, 1]
    assert (x == -1).all() and again.plain[89][0].tolist() == [89, 89]
    assert (again.names, again.classes, again.shape, len(again)) == (names, 3, (2,), 90)
    assert again.captions == data.captions and not hasattr(again, "y")
    data.y = torch.arange(90) // 30  # type: ignore[attr-defined]
    assert numbered_as(data, names).y.bincount().tolist() == [30] * 3
    assert numbered_as(data, names).y[[0, 40, 89]].tolist() == [2, 0, 1]
    rest, held = hold_out(data)
    assert class_counts(numbered_as(rest, names)) == [27] * 3 and len(held) == 9
    sets = [ArrayData(torch.zeros(3, 2), torch.tensor([0, 1, 2]), names=data.names)] * 2
    assert [int(y) for _, y in numbered_as(Mixed(sets, [1, 2]), names)][:3] == [2, 2, 0]


def test_labels_of_a_stream_are_numbered_by_their_names() -> None:
    again = numbered_as(Stream(), ("a", "b", "c"))
    assert [int(item["label"]) for item in again] == [0, 2] == [int(i["label"]) for i in again]
    assert again.names == ("a", "b", "c") and again.shape == (2,) and again.levels == 0


def test_what_is_no_label_is_left_as_it_is() -> None:
    numbers, x = torch.tensor([5, 6]), torch.zeros(2)
    for item in (x, (x,), [x], (x, None), {"image": x}, (x, {"w": 1}), (x, {"y": "cat"})):
        assert str(relabelled(item, numbers)) == str(item)


@pytest.mark.parametrize(
    "y", [[0, 1, 1], np.array([0, 1, 1], "u8"), torch.tensor([0.0, 1, 1]), [False, True, True]]
)
def test_labels_are_told_beforehand_by_whole_numbers_of_any_kind(y: Any) -> None:
    for known in ({"classes": 2}, {}):
        found = known_labels(Told(y, **known))
        assert found is not None and found.dtype == torch.int64 and found.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "y", [["a", "b", "b"], [0, 1], [0, -1, 1], [0.5, 1, 1], [[0], [1], [1]], [None] * 3, [0, 1, 2]]
)
def test_what_data_with_classes_tell_as_labels_is_one_of_each_item(y: Any) -> None:
    with refused("has 2 classes, so its y are 3 whole numbers from 0 to 1, .* but they are .*"):
        known_labels(Told(y, classes=2))
    assert known_labels(Told(y, classes=0)) is None
    assert y == [0, 1, 2] or known_labels(Told(y)) is None  # a y of something else


class Told(list[Any]):
    """Three items beside which there is a y."""

    def __init__(self, y: Any, **more: Any) -> None:
        super().__init__([0.0] * 3)
        self.y = y
        vars(self).update(more)


def test_counts_of_classes_are_whole_numbers() -> None:
    for counts in ([3, 1], np.array([3, 1]), torch.tensor([3, 1])):
        assert class_labels(4, counts).bincount().tolist() == [3, 1]  # type: ignore[arg-type]
    for wrong in ([0.5, 0.5], [3, -1]):
        with refused("A class's count must be a whole number >= 0"):
            class_labels(4, wrong)  # type: ignore[arg-type]

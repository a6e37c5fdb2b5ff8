"""What is held out: a draw by data and seed, never trained on, classes in their shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import Dataset

from sdegen.data import (
    ArrayData,
    ImageFolder,
    SeededItems,
    class_counts,
    gather,
    hold_out,
    stratified,
)
from tests.cases import refused


class Own(Dataset[Any]):
    """A data set of someone's own, whose items are random."""

    shape, classes = (1,), 3

    def __init__(self, n: int) -> None:
        self.n, self.drawn = n, True

    @property
    def plain(self) -> Own:
        again = Own(self.n)
        again.drawn = False
        return again

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        return torch.tensor([float(i)]) + self.drawn * torch.rand(1) / 2, torch.tensor(i % 3)


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 3),
)
def test_every_item_is_in_one_of_the_two_and_classes_have_their_shares(
    counts: list[int], share: float, seed: int
) -> None:
    y = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    n = len(y)
    if max(counts) < 2:
        return  # refused
    data = ArrayData(torch.arange(float(n))[:, None], y)
    rest, held = hold_out(data, share, seed)
    assert sorted([*rest.x.flatten().tolist(), *held.x.flatten().tolist()]) == list(range(n))
    kinds = sum(m > 0 for m in counts)
    assert len(held) == min(max(1, round(share * n)), n - kinds)
    assert rest.x.flatten().diff().gt(0).all()
    assert torch.equal(rest.y, y[rest.x.flatten().long()])
    assert rest.classes == held.classes == data.classes
    for k, m in enumerate(counts):
        here = int((held.y == k).sum())
        assert here < m or m == 0  # one of each class is trained on
        # Beside the rounding of each class, one of each is passed over.
        assert abs(here - len(held) * m / n) <= 2 * kinds


def test_as_far_as_no_class_ends_the_order_is_the_stratified_one() -> None:
    """So that a run that was begun goes on with what it has held out."""
    y = torch.arange(3).repeat_interleave(torch.tensor([20, 30, 50]))
    data = ArrayData(torch.arange(100.0)[:, None], y)
    held = hold_out(data, 0.4, 5)[1]
    assert held.x.flatten().tolist() == stratified(y, 5)[:40].tolist()


def test_the_draw_is_the_same_whenever_it_is_made() -> None:
    data = ArrayData(torch.rand(50, 2))
    first, second = hold_out(data), hold_out(data)
    assert torch.equal(first[0].x, second[0].x) and torch.equal(first[1].x, second[1].x)
    assert not torch.equal(first[1].x, hold_out(data, seed=1)[1].x)


def test_a_folder_is_split_by_its_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(10):
            shade = 10 * k + 100 * (name == "b")
            Image.new("L", (8, 8), shade).save(tmp_path / name / f"{k}.png")
    data = ImageFolder(tmp_path, 4, 1, flip=True)
    rest, held = hold_out(data, 0.2)
    assert isinstance(rest, ImageFolder) and rest.flip and not held.flip
    assert class_counts(rest) == [8, 8] and class_counts(held) == [2, 2]
    assert rest.names == held.names == ("a", "b")
    assert not set(rest.files) & set(held.files)
    assert set(rest.files) | set(held.files) == set(data.files)
    # A damaged image is replaced by one of its own part.
    rest.files[-1].write_bytes(b"no image")
    with pytest.warns(UserWarning, match="could not be read"):
        x, _ = rest[len(rest) - 1]
    assert torch.equal(x, rest[0][0])


def test_a_data_set_of_ones_own_is_split_too() -> None:
    rest, held = hold_out(Own(20), 0.25)
    assert len(rest) == 15 and len(held) == 5
    assert rest.shape == (1,) and rest.classes == 3
    seen = [int(x) for x, _ in rest] + [int(x) for x, _ in held]
    assert sorted(seen) == list(range(20))
    assert all(float(x) == int(x) for x, _ in held)  # measured, and so without what is drawn
    assert any(float(x) != int(x) for x, _ in rest)
    assert (gather(rest).x == gather(rest).x.floor()).all()
    again = SeededItems(rest, 0)
    assert torch.equal(again[3, 1][0], SeededItems(rest, 0)[3, 1][0])


def test_what_cannot_be_split_is_refused() -> None:
    data = ArrayData(torch.rand(2, 2))
    assert [len(each) for each in hold_out(data)] == [1, 1]
    singles = ArrayData(torch.rand(3, 2), torch.tensor([0, 1, 2]))
    for single in (ArrayData(torch.rand(1, 2)), singles, Own(0)):
        with refused("A single item cannot be trained on and held out"):
            hold_out(single)
    for wrong in (0, 1, -0.1, 5, float("nan")):
        with refused("share must"):
            hold_out(data, wrong)


def test_labels_that_are_none_are_not_told() -> None:
    data = Own(20)
    data.y = None  # type: ignore[attr-defined]
    rest, held = hold_out(data)
    assert not hasattr(rest, "y") and len(held) == 2
    assert class_counts(rest) == gather(rest).y.bincount().tolist()

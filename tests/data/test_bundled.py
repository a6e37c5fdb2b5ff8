"""Pictures without a download: digits, and patches of photographs."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import datasets as sklearn_datasets

from sdegen.data import (
    digits,
    photo_patches,
    to_uint8,
)
from tests.cases import refused_with


def rows(data: Any) -> Any:
    """The (picture, label) pairs of a data set, sorted: equal for equal sets."""
    return sorted((x.numpy().tobytes(), int(y)) for x, y in zip(data.x, data.y, strict=True))


def test_digits_are_scikit_learns_cut_in_two() -> None:
    train, test, every = (digits(split) for split in ("train", "test", "all"))
    assert (len(train), len(test), len(every)) == (899, 898, 1797)
    assert all(d.shape == (1, 8, 8) and d.classes == 10 for d in (train, test, every))
    assert every.x.min() == -1 and every.x.max() == 1
    bunch = sklearn_datasets.load_digits()
    theirs = ((bunch.images - 8) / 8).astype(np.float32)
    pairs = sorted((x.tobytes(), int(y)) for x, y in zip(theirs, bunch.target, strict=True))
    assert rows(every) == pairs == sorted(rows(train) + rows(test))


def test_the_halves_of_digits_follow_the_seed() -> None:
    assert torch.equal(digits("test", seed=1).x, digits("test", seed=1).x)
    assert rows(digits("test", seed=1)) != rows(digits("test", seed=2))


PHOTO_FOLDER = Path(sklearn_datasets.__file__).parent / "images"


def cut(columns: Any, size: Any, stride: int) -> Any:
    """Patches of the two photographs, from Pillow and plain loops."""
    found = []
    for label, name in enumerate(("china.jpg", "flower.jpg")):
        with Image.open(PHOTO_FOLDER / name) as image:
            photo = np.asarray(image).transpose(2, 0, 1)[:, :, columns]
        _, h, w = photo.shape
        for i, j in itertools.product(
            range(0, h - size + 1, stride), range(0, w - size + 1, stride)
        ):
            found.append((photo[:, i : i + size, j : j + size].tobytes(), label))
    return sorted(found)


@pytest.mark.parametrize("size, stride", [(32, 16), (40, 40)])
def test_patches_come_from_their_own_side_of_the_photographs(size: Any, stride: int) -> None:
    border = 448  # 70 % of 640 columns
    sides = {"train": slice(0, border), "test": slice(border, 640), "all": slice(0, 640)}
    for split, columns in sides.items():
        data = photo_patches(split, size, stride)
        assert data.shape == (3, size, size) and data.classes == 2
        got = zip(to_uint8(data.x).numpy(), data.y.tolist(), strict=True)
        assert sorted((x.tobytes(), y) for x, y in got) == cut(columns, size, stride)


def test_no_column_of_a_photograph_is_in_both_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    column = np.broadcast_to(np.arange(640), (427, 640))
    numbered = np.stack([column // 256, column % 256, 0 * column], 2).astype(np.uint8)
    monkeypatch.setattr(sklearn_datasets, "load_sample_image", lambda name: numbered)
    seen = {}
    for split in ("train", "test"):
        high, low, _ = to_uint8(photo_patches(split, 32, 16).x).long().unbind(1)
        seen[split] = set((256 * high + low).unique().tolist())
    assert max(seen["train"]) < min(seen["test"])
    assert len(seen["train"]) == 448 and len(seen["test"]) == 192


def test_the_seed_of_patches_is_their_order_alone() -> None:
    a, b, again = (photo_patches("test", 64, 64, seed=seed) for seed in (0, 1, 0))
    assert torch.equal(a.x, again.x) and not torch.equal(a.x, b.x)
    assert rows(a) == rows(b)
    assert a.y[: len(a) // 2].unique().tolist() == [0, 1]


def test_bundled_pictures_refuse_bad_arguments() -> None:
    for draw in (digits, photo_patches):
        with refused_with("split = 'valid'"):
            draw("valid")
    with refused_with("size = 0 and stride = 16"):
        photo_patches(size=0)
    with refused_with("size = 32 and stride = 0"):
        photo_patches(stride=0)
    with refused_with("427 x 192 pixels: take a size of at most 192"):
        photo_patches("test", size=193)
    assert len(photo_patches("test", size=192)) > 0

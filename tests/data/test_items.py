"""Items of data sets, of whatever kind, are the same data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from sdegen.data import moments
from sdegen.data.items import batched, collected, split
from tests.cases import close, normal, refused, refused_with

X, Y = normal(6, 2, 3, dtype=torch.float32), torch.tensor([0, 2, 1, 0, 0, 2])

KINDS: dict[str, Any] = {
    "x": list(X),
    "(x,)": [(x,) for x in X],
    "[x, y]": [[x, y] for x, y in zip(X, Y, strict=True)],
    "(x, number)": [(x, int(y)) for x, y in zip(X, Y, strict=True)],
    "(x, names)": [(x, {"c": x[0], "y": y}) for x, y in zip(X, Y, strict=True)],
    "a dictionary": [{"labels": y, "pixel_values": x} for x, y in zip(X, Y, strict=True)],
    "NumPy's": [{"x": x.numpy(), "label": y.numpy()} for x, y in zip(X, Y, strict=True)],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_item_is_its_data(kind: str) -> None:
    items = KINDS[kind]
    x0, given = split(default_collate(items))
    assert torch.equal(x0, X) and (kind in ("x", "(x,)") or torch.equal(given["y"], Y))
    whole = collected(items, SimpleNamespace(classes=0, levels=256))
    assert torch.equal(whole.x, X) and whole.classes == 0 and whole.levels == 256
    told = SimpleNamespace(classes=3, names=("a", "b", "c"))
    named = collected(items, told, Y)
    assert torch.equal(named.y, Y) and named.names == told.names
    if kind not in ("x", "(x,)"):
        assert torch.equal(collected(items, told).y, Y)


def test_two_channels_are_no_pair() -> None:
    """Items (2, length) and items of two numbers, of which either could be unpacked."""

    class Bare(list[Any]):
        shape, classes = (2, 3), 0

    for data in (X, X[:, :, 0]):
        close(moments(Bare(data)).std, data.double().std(correction=0), rtol=1e-9)


WRONG: dict[str, Any] = {
    "none": list(X),
    "too great": [(x, 3) for x in X],
    "negative": [(x, -1) for x in X],
    "no whole number": [(x, 0.5) for x in X],
    "several": [(x, x[0]) for x in X],
    "a word": [(x, "dog") for x in X],
    "not all": [(X[0], 1), X[1]],
}


@pytest.mark.parametrize("kind", WRONG)
def test_items_without_labels_of_their_classes_are_refused(kind: str) -> None:
    with refused_with("says that it has 3 classes, but an item of it has no label y from 0 to 2"):
        collected(WRONG[kind], SimpleNamespace(classes=3))
    assert collected(WRONG[kind], SimpleNamespace(classes=0)).classes == 0


def test_what_is_no_item_is_named() -> None:
    for batch in ({"caption": ["a"], "size": X}, (X, Y, Y), ["a"], None):
        with refused("An item of the data is x, .* but a batch of these is"):
            split(batch)


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([(0.5, 1), (0.2, 0)], r"begins with its data x, a tensor, but this one is \(0.5, 1\)"),
        ([[0.5, 0.1]], r"this one is \[0.5, 0.1\]: make a tensor of its numbers"),
        ([{"x": X[0], "c": 1}, {"x": X[0]}], "has no 'c', which another one has"),
        ([(X[0], None)], r"do not make a batch \(batch must contain .*NoneType"),
        ([X[0], X[0, :1]], r"equal size, but got \[2, 3\] at entry 0 and \[1, 3\] at entry 1"),
        ([(X[0], 1), (X[0],)], "should be of equal size"),
    ],
)
def test_items_that_make_no_batch_say_what_is_in_the_way(items: list[Any], said: str) -> None:
    with refused(said):
        batched(items)


def test_a_number_with_a_label_is_data_where_it_is_an_array() -> None:
    """States may have no axes: items of NumPy's arrays (n,) have their numbers."""
    x = np.linspace(0, 1, 3, dtype=np.float32)
    for items in (list(x), list(zip(x, [0, 1, 2], strict=True)), list(torch.from_numpy(x))):
        assert split(batched(items))[0].tolist() == x.tolist()


def test_data_of_two_shapes_are_no_array() -> None:
    with refused(r"of shapes \(2, 3\) and \(2, 1\), of which no array can be made"):
        collected([X[0], X[1, :, :1]], SimpleNamespace(classes=0))

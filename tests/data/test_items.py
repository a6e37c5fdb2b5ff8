"""Items of data sets, of whatever kind, are the same data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate

from sdegen.data import moments
from sdegen.data.items import collected, split
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

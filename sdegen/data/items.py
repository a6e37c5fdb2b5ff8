"""Items of a data set, of any of the kinds there are: data, and conditions of each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from sdegen.data.arrays import ArrayData

DATA = ("x", "x0", "image", "images", "pixel_values", "data")
"""Names under which an item that is a dictionary may have its data."""
LABELS = ("label", "labels")
"""Names that mean y, as Hugging Face's data sets call it."""


def split(batch: Any) -> tuple[Tensor, dict[str, Any]]:
    """Data x0 (b, *) and conditions by name, of a batch of items.

    Items may be x; (x,); (x, y), whose second part is the condition y; (x, {name: value}); or a
    dictionary with the data as one of ``DATA`` and conditions beside it, a label as y.
    ValueError for anything else.
    """
    if isinstance(batch, Tensor):
        return batch, {}
    if isinstance(batch, Mapping):
        name = next((name for name in DATA if isinstance(batch.get(name), Tensor)), None)
        if name is not None:
            return batch[name], {
                "y" if key in LABELS else key: value for key, value in batch.items() if key != name
            }
    if isinstance(batch, tuple | list) and batch and isinstance(batch[0], Tensor):
        x0, *rest = batch
        if not rest:
            return x0, {}
        if len(rest) == 1:
            return x0, dict(rest[0]) if isinstance(rest[0], Mapping) else {"y": rest[0]}
    raise ValueError(
        "An item of the data is x, (x,), (x, y), (x, {name: value}) or a dictionary with its data "
        f"as {', '.join(DATA)}, all of them tensors, but a batch of these is {described(batch)}."
    )


def described(batch: Any) -> str:
    """What a batch is, in a few words."""
    if isinstance(batch, Mapping):
        return f"a dictionary of {', '.join(map(str, batch))}"
    if isinstance(batch, tuple | list):
        return f"of {', '.join(type(each).__name__ for each in batch)}"
    return f"of {type(batch).__name__}"


def collected(
    items: Iterable[Any],
    data: Any,
    known: Tensor | None = None,
    captions: Callable[[], Sequence[str]] = tuple,
) -> ArrayData:
    """Items of a data set as one array, whose labels are the conditions y of these, or else those
    that are ``known`` beforehand, where it has classes. ``captions`` are asked for when all items
    are read: which image stands in for a damaged one is known then.

    Raises ValueError where it has classes, and an item has no label of them.
    """
    classes, x, y = getattr(data, "classes", 0), list[Tensor](), list[Tensor]()
    for item in items:
        x0, given = split(default_collate([item]))
        x.append(x0)
        label = given.get("y")
        if isinstance(label, Tensor) and label.shape == (1,):
            y.append(label)
    labels = None
    if classes:
        labels = torch.cat(y) if len(y) == len(x) else known
        if labels is None or not are_labels(labels, classes):
            raise ValueError(
                f"The data set says that it has {classes} classes, but an item of it has no label "
                f"y from 0 to {classes - 1}."
            )
        labels = labels.long()
    levels, names = getattr(data, "levels", 0), getattr(data, "names", ())
    return ArrayData(torch.cat(x), labels, levels, names, captions())


def are_labels(y: Tensor, classes: int) -> bool:
    """Whether y is (n,), of whole numbers from 0 on and below the number of classes."""
    whole = not (y.is_floating_point() or y.is_complex())
    return whole and y.ndim == 1 and int(y.min()) >= 0 and int(y.max()) < classes

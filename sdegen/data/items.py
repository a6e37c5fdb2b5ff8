"""Items of a data set, of any of the kinds there are: data, and conditions of each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate

from sdegen.data.arrays import ArrayData

DATA = ("x", "x0", "image", "images", "pixel_values", "data")
"""Names under which an item that is a dictionary may have its data."""
LABELS = ("label", "labels")
"""Names that mean y, as Hugging Face's data sets call it."""


def batched(items: Sequence[Any]) -> Any:
    """Items of a data set as one batch, by torch's ``default_collate``.

    ValueError, which says what is in the way, for items that do not make one: of numbers without
    a tensor, of different shapes or names, or of things that no tensor is made of.
    """
    first = items[0]
    number = isinstance(first, tuple | list) and first and isinstance(first[0], Real)
    if number and not hasattr(first[0], "dtype"):  # NumPy's are arrays without axes
        raise ValueError(
            f"An item of the data begins with its data x, a tensor, but this one is {first!r:.60}:"
            " make a tensor of its numbers, and let a label come after it."
        )
    try:
        return default_collate(list(items))
    except KeyError as error:
        raise ValueError(f"An item of the data has no {error}, which another one has.") from error
    except (TypeError, RuntimeError) as error:
        reason = str(error).removeprefix("default_collate: ").rstrip(".")
        if "not resizable" in reason:  # as torch has it in a loader's process
            reason = "tensors are of different shapes"
        raise ValueError(
            f"Items of the data do not make a batch ({reason}): give tensors of one shape, "
            "numbers or texts, and leave out what there is not."
        ) from error


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

    Raises ValueError where it has classes, and an item has no label of them, and for data of
    different shapes.
    """
    classes, x, y = getattr(data, "classes", 0), list[Tensor](), list[Tensor]()
    for item in items:
        x0, given = split(batched([item]))
        if x and x0.shape != x[0].shape:
            shapes = tuple(x[0].shape[1:]), tuple(x0.shape[1:])
            raise ValueError(
                f"Items of the data are of shapes {shapes[0]} and {shapes[1]}, of which no array "
                "can be made: give them one shape."
            )
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


def are_labels(y: Tensor, classes: int | None) -> bool:
    """Whether y is (n,), of whole numbers from 0 on and below the number of classes, if known."""
    whole = not (y.is_floating_point() or y.is_complex())
    if not whole or y.ndim != 1 or not len(y):
        return whole and y.ndim == 1
    return int(y.min()) >= 0 and (classes is None or int(y.max()) < classes)


def relabelled(item: Any, numbers: Tensor) -> Any:
    """An item whose label k is ``numbers[k]``; one without a label, or with one that is no number,
    as it is."""

    def numbered(label: Any) -> Any:
        known = isinstance(label, Real) or hasattr(label, "dtype")
        # Not as it comes: to torch 0-dim bytes and truths are masks.
        return numbers[torch.as_tensor(label).long()] if known else label

    def named(given: Mapping[Any, Any]) -> dict[Any, Any]:
        return {k: numbered(v) if k in ("y", *LABELS) else v for k, v in given.items()}

    if isinstance(item, Mapping):
        return named(item)
    if isinstance(item, tuple | list) and len(item) == 2:
        x, label = item
        return x, named(label) if isinstance(label, Mapping) else numbered(label)
    return item

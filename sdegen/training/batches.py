"""What a batch of a data set is: data, and conditions of each sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate

from sdegen.model.network import take_values

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


def cut(x0: Tensor, given: dict[str, Any], parts: int) -> list[tuple[Tensor, dict[str, Any]]]:
    """A batch in so many parts, or as many as it has samples."""
    if parts == 1:
        return [(x0, given)]
    return [
        (x0[index], {name: take_values(value, index) for name, value in given.items()})
        for index in torch.arange(len(x0), device=x0.device).chunk(parts)
    ]


def streamed(data: IterableDataset[Any], size: int, rank: int, world: int, seen: int) -> Any:
    """Batches of a stream from where ``seen`` items lie behind it, each process its own.

    A stream is begun again when it ends, and cannot be entered in the middle: what was seen is
    read once more and left out. ValueError for a stream without items.
    """
    items = islice(endless(data), seen + rank, None, world)
    while True:
        yield default_collate(list(islice(items, size)))


def endless(data: IterableDataset[Any]) -> Iterator[Any]:
    """The stream, over and over."""
    while True:
        empty = True
        for item in data:
            empty = False
            yield item
        if empty:
            raise ValueError("The stream of data has no items.")

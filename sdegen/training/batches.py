"""Batches on their way into a step: cut in parts, and taken from a stream."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sdegen.data.items import batched
from sdegen.model.network import take_values
from sdegen.noise.hashing import GOLDEN, mix, signed


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
        yield batched(list(islice(items, size)))


def loaded(loader: Any) -> Iterator[Any]:
    """The batches of a loader, whose processes' ValueErrors say what they say and no traceback;
    ValueError where one of these has ended."""
    try:
        yield from loader
    except ValueError as error:
        said = str(error)
        if not said.startswith("Caught ValueError in DataLoader worker"):
            raise
        raise ValueError(said.rstrip().rpartition("\nValueError: ")[2]) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error) or str(error).startswith("Caught"):
            raise
        raise ValueError(
            f"A process that loads data has ended ({str(error).rstrip('. ')}): is there too little"
            " memory for train.workers of them?"
        ) from error


def endless(data: IterableDataset[Any]) -> Iterator[Any]:
    """The stream, over and over."""
    while True:
        empty = True
        for item in data:
            empty = False
            yield item
        if empty:
            raise ValueError("The stream of data has no items.")


def step_seed(seed: int, rank: int, step: int) -> int:
    """A 32-bit seed for one step of one process: torch's CPU generator reads no more bits."""
    words = torch.tensor([seed, rank, step], dtype=torch.int64)
    key = torch.zeros((), dtype=torch.int64)
    for word in words:
        key = mix(key + signed(GOLDEN) + word)
    return int(key) & 0xFFFFFFFF

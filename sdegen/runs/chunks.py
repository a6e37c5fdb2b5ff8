"""Samples made in chunks: each a file, whole or absent, and what is there is not made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.files import clear_parts, read_tensors, write_tensors
from sdegen.training.identity import flatten
from sdegen.workers import at_work

SAMPLES = "samples.safetensors"
PARTS = "parts"


class Chunk(NamedTuple):
    """Samples x and what belongs to them, by name, and the seconds that they took."""

    tensors: dict[str, Tensor]
    seconds: float


@dataclass(frozen=True)
class Shelf:
    """A folder's chunks: the file of all, and part-files on the way to it.

    config: what a file says of itself.  same: what all its samples have in common.
    """

    folder: Path
    config: Mapping[str, Any]
    same: Mapping[str, Any]

    def put(self, first: int, chunk: Chunk) -> None:
        """A chunk, as the part-file of its first sample."""
        parts = self.folder / PARTS
        parts.mkdir(exist_ok=True)
        write_tensors(parts / f"{first:09}.safetensors", chunk.tensors, self.about(chunk.seconds))

    def about(self, seconds: float) -> dict[str, Any]:
        """What a file says of itself."""
        return {"config": dict(self.config), "same": dict(self.same), "seconds": seconds}

    def chunks(self) -> dict[int, Chunk]:
        """Those that are there, by their first sample, in order; none twice.

        Raises ValueError for samples of another ``same``, and for a damaged file.
        """
        named = [
            (int(file.stem), file)
            for file in (self.folder / PARTS).glob("*.safetensors")
            if file.stem.isdecimal()
        ]
        found, count = dict[int, Chunk](), 0
        for first, file in [(0, self.folder / SAMPLES), *sorted(named)]:
            if file.is_file() and first >= count:
                tensors, about = read_tensors(file)
                refuse_mixture(file, about.get("same", {}), self.same)
                found[first] = Chunk(tensors, about["seconds"])
                count = first + len(tensors["x"])
        return found

    def count(self) -> int:
        """Of part-files, while others write them."""
        return len(list((self.folder / PARTS).glob("[0-9]*.safetensors")))


Job = tuple[int, int]
"""The first of some samples, and how many."""


def jobs(there: Mapping[int, Chunk], n: int, size: int) -> list[Job]:
    """The samples below n that are not there, at most ``size`` at a time."""
    ends = [(first, first + len(chunk.tensors["x"])) for first, chunk in there.items()]
    gaps = pairwise([0, *(end for pair in ends for end in pair), n])
    missing = [(a, min(b, n)) for a, b in list(gaps)[::2]]
    return [(i, min(size, b - i)) for a, b in missing for i in range(a, b, size)]


def nobody(k: int, part: list[Job]) -> None:
    """Of other processes where there are none."""


def gathered(
    shelf: Shelf,
    n: int,
    size: int,
    make: Callable[[int, int], Chunk],
    *,
    devices: int = 1,
    other: Callable[[int, list[Job]], None] = nobody,
) -> Chunk:
    """The first n samples, in one file of the folder: those that are there, and the others made.

    size: of a chunk.  make: (first, how many) -> samples, whose sample i is one and the same in
    any chunk.  devices: processes among which the chunks are dealt out, this one included;
    other(k, jobs) makes those of process k there and puts them on the shelf.

    Raises ValueError where the folder holds samples of another ``same``, or a damaged file, and
    where another process failed.
    """
    from tqdm import tqdm

    path, parts = shelf.folder / SAMPLES, shelf.folder / PARTS
    clear_parts(parts)  # what a killed process was writing there
    there = shelf.chunks()
    todo = jobs(there, n, size)
    theirs = [todo[k::devices] for k in range(1, devices)]
    threads = max(1, torch.get_num_threads() // devices)
    with (
        tqdm(total=len(todo), unit="chunk", leave=False, disable=len(todo) < 2) as bar,
        at_work(other, [part for part in theirs if part], threads) as team,
    ):
        before = shelf.count()

        def look() -> None:
            bar.update(shelf.count() - before - bar.n)

        for first, m in todo[::devices]:
            chunk = make(first, m)
            if len(todo) == 1:  # it goes into the file of all
                there[first] = chunk
            else:
                shelf.put(first, chunk)
                look()
        team.wait(look)
    if len(todo) > 1:
        there = shelf.chunks()
    chunks, count = list[Chunk](), 0
    for first, chunk in sorted(there.items()):
        if first == count:  # beyond n there may be gaps
            chunks.append(chunk)
            count += len(chunk.tensors["x"])
    tensors = {k: torch.cat([each.tensors[k] for each in chunks]) for k in chunks[0].tensors}
    seconds = sum(each.seconds for each in chunks)
    if len(chunks) > 1 or not path.is_file():  # what is there stays, where it is enough
        write_tensors(path, tensors, shelf.about(seconds))
    if len(chunks) == len(there):
        shutil.rmtree(parts, ignore_errors=True)
    return Chunk({k: v[:n] for k, v in tensors.items()}, seconds * n / count)


def refuse_mixture(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """ValueError where samples of a file have something else in common than new ones would."""
    before, now = flatten(dict(old)), flatten(dict(new))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{path} holds samples with {key} = {before.get(key)!r}, where it is "
                f"{now.get(key)!r} now: give name=... for these, or delete the folder."
            )

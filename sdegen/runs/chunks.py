"""Samples made in chunks: each a file, whole or absent, and what is there is not made again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.files import clear_parts, join_tensors, read_tensors, write_tensors
from sdegen.runs import bars
from sdegen.training.identity import flatten
from sdegen.workers import Ended, at_work

SAMPLES = "samples.safetensors"
PARTS = "parts"


class Chunk(NamedTuple):
    """Samples x and what belongs to them, by name, and the seconds that they took."""

    tensors: dict[str, Tensor]
    seconds: float


class Part(NamedTuple):
    """A chunk as it lies on the shelf: its file, how many samples, and the seconds they took."""

    file: Path
    n: int
    seconds: float


Job = tuple[int, int]
"""The first of some samples, and how many."""


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
        (self.folder / PARTS).mkdir(exist_ok=True)
        write_tensors(self.part(first), chunk.tensors, self.about(chunk.seconds))

    def part(self, first: int) -> Path:
        """The part-file of a first sample."""
        return self.folder / PARTS / f"{first:09}.safetensors"

    def about(self, seconds: float) -> dict[str, Any]:
        """What a file says of itself."""
        return {"config": dict(self.config), "same": dict(self.same), "seconds": seconds}

    def parts(self, known: Mapping[int, Part] | None = None) -> dict[int, Part]:
        """Those that are there, by their first sample, in order; none twice, and each read whole,
        one after another, but for those that are known from an earlier look.

        Raises ValueError for samples of another ``same``, and for a damaged file.
        """
        named = [
            (int(file.stem), file)
            for file in (self.folder / PARTS).glob("*.safetensors")
            if file.stem.isdecimal()
        ]
        before = {part.file: part for part in (known or {}).values()}
        found, count = dict[int, Part](), 0
        for first, file in [(0, self.folder / SAMPLES), *sorted(named)]:
            if file.is_file() and first >= count:
                found[first] = before[file] if file in before else self.look_at(file)
                count = first + found[first].n
        return found

    def look_at(self, file: Path) -> Part:
        """A file of the folder; ValueError for another ``same``, and for a damaged one."""
        tensors, about = read_tensors(file)
        refuse_mixture(file, about.get("same", {}), self.same)
        return Part(file, len(tensors["x"]), about["seconds"])

    def done(self, todo: list[Job]) -> int:
        """Samples of these jobs that have come to the shelf, while others put theirs there."""
        parts = self.folder / PARTS
        there = set(os.listdir(parts)) if parts.is_dir() else set()
        return sum(m for first, m in todo if self.part(first).name in there)


def jobs(there: Mapping[int, Part], n: int, size: int) -> list[Job]:
    """The samples below n that are not there, at most ``size`` at a time."""
    ends = [(first, first + part.n) for first, part in there.items()]
    gaps = pairwise([0, *(end for pair in ends for end in pair), n])
    missing = [(a, min(b, n)) for a, b in list(gaps)[::2]]
    return [(i, min(size, b - i)) for a, b in missing for i in range(a, b, size)]


class Share(NamedTuple):
    """What a process has to do of some jobs, and how it waits for those that others do: with a
    look at how far they are."""

    mine: list[Job]
    wait: Callable[[Callable[[], None]], None]


Dealt = Callable[[list[Job]], AbstractContextManager[Share]]
"""Jobs dealt out, until the block is left."""


@contextmanager
def alone(todo: list[Job]) -> Iterator[Share]:
    """All of them to this process."""
    yield Share(todo, lambda look: None)


def among(devices: int, other: Callable[[int, list[Job]], None]) -> Dealt:
    """To so many processes, this one included, of which the others are started here: other(k,
    jobs) makes those of process k there and puts them on the shelf.

    All of them have as many threads, on which the rounding of a network depends.  What is dealt
    raises ValueError where one of them fails.
    """

    @contextmanager
    def dealt(todo: list[Job]) -> Iterator[Share]:
        theirs = [todo[k::devices] for k in range(1, devices)]
        before = torch.get_num_threads()
        threads = max(1, before // devices)
        torch.set_num_threads(threads)
        try:
            with at_work(other, [part for part in theirs if part], threads) as team:
                yield Share(todo[::devices], team.wait)
        finally:
            torch.set_num_threads(before)

    return dealt


def gathered(
    shelf: Shelf,
    n: int,
    size: int,
    make: Callable[[int, int], Chunk],
    dealt: Dealt = alone,
) -> Chunk:
    """The first n samples, in one file of the folder: those that are there, and the others made.

    size: of a chunk.  make: (first, how many) -> samples, whose sample i is one and the same in
    any chunk.  dealt: who makes which.

    In the memory is a chunk at a time: what is returned is the file's, which the system reads as
    it is looked at.

    Raises ValueError where the folder holds samples of another ``same``, or a damaged file, where
    another process failed, and where samples that another one made are not in the folder.
    """
    path, parts = shelf.folder / SAMPLES, shelf.folder / PARTS
    # What a killed process was writing there; one that has not heard of its end may still write.
    clear_parts(parts, age=3600)
    before = shelf.parts()
    todo = jobs(before, n, size)
    total = sum(m for _, m in todo)
    with (
        bars.bar(total=total, unit="sample", leave=False, disable=len(todo) < 2) as bar,
        dealt(todo) as share,
    ):

        def look() -> None:
            bar.update(shelf.done(todo) - bar.n)

        for first, m in share.mine:
            shelf.put(first, make(first, m))
            look()
        try:
            share.wait(look)
        except ValueError as error:
            raise ValueError(f"{error} {left(shelf, todo, isinstance(error, Ended))}") from error
    there = shelf.parts(before)
    chain, count = list[Part](), 0
    for first, part in sorted(there.items()):
        if first == count:  # beyond n there may be gaps
            chain.append(part)
            count += part.n
    if count < n:
        raise ValueError(
            f"Sample {count} of {n} is not in {parts}, though all were made: do all processes see "
            "the same folder? The same command makes what is missing."
        )
    if [part.file for part in chain] != [path]:  # what is there stays, where it is enough
        seconds = sum(part.seconds for part in chain)
        join_tensors(path, [part.file for part in chain], shelf.about(seconds))
    if len(chain) == len(there):
        shutil.rmtree(parts, ignore_errors=True)
    tensors, about = read_tensors(path)
    return Chunk({k: v[:n] for k, v in tensors.items()}, about["seconds"] * n / count)


def left(shelf: Shelf, todo: list[Job], again: bool) -> str:
    """A sentence: what jobs have left on the shelf, and whether the same ones make the others."""
    done, total = shelf.done(todo), sum(m for _, m in todo)
    more = f", and the same command makes the other {total - done}" if again else ""
    return f"{done} of {total} samples are in {shelf.folder / PARTS}{more}."


def refuse_mixture(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """ValueError where samples of a file have something else in common than new ones would."""
    before, now = flatten(dict(old)), flatten(dict(new))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{path} holds samples with {key} = {before.get(key)!r}, where it is "
                f"{now.get(key)!r} now: give name=... for these, or delete the folder."
            )

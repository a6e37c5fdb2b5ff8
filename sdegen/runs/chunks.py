"""Samples made in chunks: each a file, whole or absent, and what is there is not made again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.files import clear_parts, read_tensors, write_tensors
from sdegen.training.identity import flatten

SAMPLES = "samples.safetensors"
PARTS = "parts"


class Chunk(NamedTuple):
    """Samples x and what belongs to them, by name, and the seconds that they took."""

    tensors: dict[str, Tensor]
    seconds: float


def gathered(
    folder: Path,
    config: Mapping[str, Any],
    same: Mapping[str, Any],
    n: int,
    size: int,
    make: Callable[[int, int], Chunk],
) -> Chunk:
    """The first n samples, in one file of the folder: those that are there, and the others made.

    config: what the file says of itself.  same: what all its samples have in common.  size: of a
    chunk.  make: (first, how many) -> samples, whose sample i is one and the same in any chunk.

    Raises ValueError where the folder holds samples of another ``same``, or a damaged file.
    """
    from tqdm import tqdm

    path, parts = folder / SAMPLES, folder / PARTS
    about: dict[str, Any] = {"config": dict(config), "same": dict(same)}
    chunks, count = list[Chunk](), 0
    clear_parts(parts)  # what a killed process was writing there
    for file in [path, *sorted(parts.glob("*.safetensors"))]:
        if file.is_file() and (file == path or int(file.stem) == count):
            tensors, found = read_tensors(file)
            refuse_mixture(file, found.get("same", {}), same)
            chunks.append(Chunk(tensors, found["seconds"]))
            count += len(tensors["x"])
    with tqdm(
        total=n, initial=min(count, n), unit="sample", leave=False, disable=n <= size
    ) as bar:
        while count < n:
            m = min(size, n - count)
            chunks.append(make(count, m))
            if m < n:  # not all at once
                parts.mkdir(exist_ok=True)
                name = f"{count:09}.safetensors"
                write_tensors(parts / name, chunks[-1].tensors, about_with(about, chunks[-1:]))
            count += m
            bar.update(m)
    names = chunks[0].tensors
    tensors = {k: torch.cat([each.tensors[k] for each in chunks]) for k in names}
    about = about_with(about, chunks)
    if len(chunks) > 1 or not path.is_file():  # what is there stays, where it is enough
        write_tensors(path, tensors, about)
    shutil.rmtree(parts, ignore_errors=True)
    return Chunk({k: v[:n] for k, v in tensors.items()}, about["seconds"] * n / count)


def about_with(about: dict[str, Any], chunks: list[Chunk]) -> dict[str, Any]:
    """What a file of these chunks says of itself."""
    return {**about, "seconds": sum(chunk.seconds for chunk in chunks)}


def refuse_mixture(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """ValueError where samples of a file have something else in common than new ones would."""
    before, now = flatten(dict(old)), flatten(dict(new))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise ValueError(
                f"{path} holds samples with {key} = {before.get(key)!r}, where it is "
                f"{now.get(key)!r} now: give name=... for these, or delete the folder."
            )

"""Streams of Hugging Face's library: images of Parquet, JSON and Arrow files, one by one."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sdegen.checks import optional, warn, whole
from sdegen.data.hub import picture_in
from sdegen.data.images import Colour, ImageFiles

KINDS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".arrow": "arrow"}
"""What the library calls the files that it reads here."""


class Row(NamedTuple):
    """A row's number in a stream, and what its column of images has."""

    number: int
    found: Any

    def __str__(self) -> str:
        return f"row {self.number}"


class HubStream(IterableDataset[Any]):
    """The images of files that ``datasets`` streams, one after another: (channels, size, size) in
    [-1, 1], with a label where there are some. It needs ``pip install 'sdegen[data]'``.

    path: a file or a pattern, as "shards/*.parquet": .parquet, .json or .jsonl, .arrow; all of
    one kind, in the order of their names.
    image: the column of images; in JSON what it says is a file's name. label: of classes, a
    ``ClassLabel``, or whole numbers from 0 on of which there are ``classes``; None: there is none.
    shuffle: so many rows are waiting, of which one is drawn at a time with ``seed``; 0: as they
    come. It is the same order every time that the stream is begun, so that a run which reads again
    what it has seen goes on bit for bit. See ``ImageFiles`` for what is done with an image.

    A row whose image cannot be read is left out, and a warning names it the first time.

    Raises ValueError where there is no file, for files of several kinds or none of these, damaged
    ones, a column that they have not, labels that are none of the classes, as ``ImageFiles`` does,
    and without the library.
    """

    def __init__(
        self,
        path: str | Path,
        size: int,
        channels: int = 3,
        image: str = "image",
        label: str | None = "label",
        classes: int | None = None,
        shuffle: int = 0,
        seed: int = 0,
        background: Colour = "white",
    ) -> None:
        self.pictures, self.path = Pictures(size, channels, background), str(path)
        self.shape, self.levels = self.pictures.shape, 256
        whole("shuffle", shuffle, 0), whole("seed", seed, 0)
        optional(whole, "classes", classes)
        table = opened(self.path)
        missing = [name for name in (image, label) if name and name not in table.features]
        if missing:
            known = ", ".join(table.features)
            raise ValueError(f"{self.path!r} has the columns {known}, no {missing[0]!r}")
        names = getattr(table.features[label], "names", None) if label else None
        if label and names is None and classes is None:
            raise ValueError(
                f"the labels {label!r} in {self.path!r} are numbers: say how many classes there "
                "are, classes=10, or label=null"
            )
        self.names = tuple(names or ())
        self.classes = 0 if label is None else len(self.names) or int(classes or 0)
        self.image, self.label, self.warned = image, label, set[int]()
        self.table = undecoded(table, image, label, shuffle, seed)

    def __iter__(self) -> Iterator[Any]:
        for number, row in enumerate(self.table):
            try:
                x = self.pictures.read(Row(number, row[self.image]))
            except ValueError as error:
                self.leave_out(number, error)
                continue
            yield x if self.label is None else (x, self.checked(row[self.label], number))

    def leave_out(self, number: int, error: ValueError) -> None:
        """Say what is wrong with a row, once."""
        if number not in self.warned:
            self.warned.add(number)
            warn(f"In {self.path!r}: {error}. It is left out.")

    def checked(self, label: Any, number: int) -> Tensor:
        """A row's label; ValueError for one of no class."""
        if type(label) is not int or not 0 <= label < self.classes:
            raise ValueError(
                f"the label of row {number} in {self.path!r} is {label!r}, but it must be a "
                f"number from 0 to {self.classes - 1}"
            )
        return torch.tensor(label)


class Pictures(ImageFiles):
    """How the images of rows are decoded."""

    def read(self, row: Row) -> Tensor:
        """The image of a row; ValueError for one that cannot be read."""
        return self._read(row)

    def opened(self, file: Row) -> Any:
        """The bytes of an image, or the path that the row has."""
        return picture_in(file.found)

    def place(self) -> str:
        """In a stream."""
        return "in the stream"


def opened(path: str) -> Any:
    """The stream of a path or a pattern."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ValueError("datasets is not installed: pip install 'sdegen[data]'.") from error
    files = [path] if Path(path).is_file() else sorted(glob.glob(path))
    if not files:
        raise ValueError(f"there is no file {path!r}")
    kinds = {KINDS.get(Path(file).suffix.lower()) for file in files}
    if len(kinds) > 1 or None in kinds:
        raise ValueError(f"{path!r} must be files of one kind, of {', '.join(KINDS)}")
    try:
        table: Any = load_dataset(str(*kinds), data_files=files, split="train", streaming=True)
        if table.features is None:  # it is found out from the first rows
            table = table._resolve_features()
        next(iter(table), None)
    except Exception as error:  # of its readers, whatever they raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path!r} could not be read (is it damaged?): {reason}") from None
    return table


def undecoded(table: Any, image: str, label: str | None, shuffle: int, seed: int) -> Any:
    """The stream with bytes for images, which are decoded here; shuffled where that is asked."""
    from datasets import Image

    table = table.select_columns([image, *([label] if label else [])])
    table = table.cast_column(image, Image(decode=False))
    return table.shuffle(seed=seed, buffer_size=shuffle) if shuffle else table

"""Streams of Hugging Face's library: images of Parquet, JSON and Arrow files, one by one."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sdegen.checks import absent, optional, warn, whole
from sdegen.data.hub import picture_in
from sdegen.data.images import Colour, ImageFiles

KINDS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".arrow": "arrow"}
"""What the library calls the files that it reads here."""


class Row(NamedTuple):
    """A row's number in a stream, what its column of images has, and which stream that is."""

    number: int
    found: Any
    stream: str = ""

    def __str__(self) -> str:
        return f"row {self.number}{self.stream}"


class HubStream(IterableDataset[Any]):
    """The images of files that ``datasets`` streams, one after another: (channels, size, size) in
    [-1, 1], with a label where there are some. It needs ``pip install 'sdegen[data]'``.

    path: a file or a pattern, as "shards/*.parquet": .parquet, .json or .jsonl, .arrow; all of
    one kind, in the order of their names.
    image: the column of images; in JSON what it says is a file's name, beside the file that says
    it. label: of classes, a
    ``ClassLabel``, or whole numbers from 0 on of which there are ``classes``; None: there is none.
    shuffle: so many rows are waiting, of which one is drawn at a time with ``seed``; 0: as they
    come. It is the same order every time that the stream is begun, so that a run which reads again
    what it has seen goes on bit for bit. See ``ImageFiles`` for what is done with an image.

    A row whose image cannot be read is left out, and a warning names it the first time: by its
    place in the shuffled stream, where that is shuffled.

    Raises ValueError where there is no file, for files of several kinds or none of these, one that
    does not begin, or a .parquet that does not end, as such a file does, a column that they have
    not or that is none of images, labels that are none of the classes, as ``ImageFiles`` does, and
    without the library. What else is damaged or gone is a ValueError when it is read, which names
    the file.
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
        self.path, self.files = str(path), found(str(path))
        self.pictures = Pictures(size, channels, background, self.files)
        self.shape, self.levels = self.pictures.shape, 256
        whole("shuffle", shuffle, 0), whole("seed", seed, 0)
        optional(whole, "classes", classes)
        table = opened(self.path, self.files)
        refuse_missing(table, image, label, self.path)
        names = getattr(table.features[label], "names", None) if label else None
        if label and names is None and classes is None:
            raise ValueError(
                f"the labels {label!r} in {self.path!r} are numbers: say how many classes there "
                "are, classes=10, or label=null"
            )
        self.names = tuple(names or ())
        self.classes = 0 if label is None else len(self.names) or int(classes or 0)
        self.image, self.label, self.warned = image, label, set[int]()
        stream = undecoded(table, image, label, self.path, self.files)
        if self.pictures.folder is None:  # whatever the first row has, a later one may have a name
            stream = joined(self.path, self.files, image, label)
        self.table = stream.shuffle(seed=seed, buffer_size=shuffle) if shuffle else stream
        self.stream = " of the shuffled stream" if shuffle else ""

    def __iter__(self) -> Iterator[Any]:
        for number, row in enumerate(self.rows()):
            try:
                x = self.pictures.read(Row(number, row[self.image], self.stream))
            except ValueError as error:
                self.leave_out(number, error)
                continue
            yield x if self.label is None else (x, self.checked(row[self.label], number))

    def rows(self) -> Iterator[Any]:
        """The stream's; ValueError where a file cannot be read on."""
        try:
            yield from self.table
        except Exception as error:  # of its readers, whatever they raise
            raise ValueError(unread(self.path, self.files, error)) from error

    def leave_out(self, number: int, error: ValueError) -> None:
        """Say what is wrong with a row, once."""
        if number not in self.warned:
            self.warned.add(number)
            warn(f"In {self.path!r}: {error}. It is left out.")

    def checked(self, label: Any, number: int) -> Tensor:
        """A row's label; ValueError for one of no class."""
        if type(label) is not int or not 0 <= label < self.classes:
            raise ValueError(
                f"the label of row {number}{self.stream} in {self.path!r} is {label!r}, but it "
                f"must be a number from 0 to {self.classes - 1}"
            )
        return torch.tensor(label)


class Pictures(ImageFiles):
    """How the images of rows are decoded."""

    def __init__(
        self, size: int, channels: int, background: Colour, beside: Sequence[str]
    ) -> None:
        super().__init__(size, channels, background)
        folders = {Path(file).absolute().parent for file in beside}
        self.folder = folders.pop() if len(folders) == 1 else None

    def read(self, row: Row) -> Tensor:
        """The image of a row; ValueError for one that cannot be read."""
        return self._read(row)

    def opened(self, file: Row) -> Any:
        """The bytes of an image, or the path that the row has, beside the file that has it."""
        picture = picture_in(file.found)
        if not isinstance(picture, str) or Path(picture).is_absolute():
            return picture
        if self.folder is None:
            raise ValueError(f"its image is {picture!r}, but in which folder is not known")
        return self.folder / picture

    def place(self) -> str:
        """In a stream."""
        return "in the stream"


def found(path: str) -> list[str]:
    """The files of a path or a pattern; ValueError without the library, too."""
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise ValueError("datasets is not installed: pip install 'sdegen[data]'.") from error
    files = [path] if Path(path).is_file() else sorted(glob.glob(path))
    if not files:
        raise absent("file", path)
    kinds = {KINDS.get(Path(file).suffix.lower()) for file in files}
    if len(kinds) > 1 or None in kinds:
        raise ValueError(f"{path!r} must be files of one kind, of {', '.join(KINDS)}")
    return files


def opened(path: str, files: list[str]) -> Any:
    """The stream of files; ValueError where one of them is none of its kind."""
    from datasets import load_dataset

    for file in files:
        try:
            next(content(file))
        except Exception as error:  # of its readers, whatever they raise
            raise ValueError(damaged(file, error)) from None
    kind = KINDS[Path(files[0]).suffix.lower()]
    try:
        table: Any = load_dataset(kind, data_files=files, split="train", streaming=True)
        # Where the files do not say what they have, it is found out from the first rows.
        return table._resolve_features() if table.features is None else table
    except Exception as error:
        raise ValueError(unread(path, files, error)) from None


def content(file: str) -> Iterator[Any]:
    """What a file begins with, or a Parquet file ends with; and then all of it, piece by piece."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    kind = KINDS[Path(file).suffix.lower()]
    with Path(file).open("rb") as stream:
        if kind == "parquet":
            table = ParquetFile(stream)
            yield table.schema_arrow
            yield from table.iter_batches()
        elif kind == "arrow":
            try:
                batches: Any = pa.ipc.open_stream(stream)
            except (OSError, pa.lib.ArrowInvalid):
                whole = pa.ipc.open_file(stream)
                batches = (whole.get_batch(i) for i in range(whole.num_record_batches))
            yield batches
            yield from batches
        else:
            lines = filter(bytes.strip, stream)
            first = next(lines, b"")
            try:
                yield json.loads(first)
            except ValueError:  # one list, over several lines
                if not any(lines):
                    raise
                yield json.loads(Path(file).read_bytes())
            yield from map(json.loads, lines)


def damaged(file: str, error: Exception) -> str:
    """A sentence on a file that cannot be read."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{file!r} could not be read (is it damaged?): {reason}"


def unread(path: str, files: list[str], error: Exception) -> str:
    """A sentence on what the library raised: of the first file that cannot be read to its end, of
    all of them where each can."""
    for file in files:
        try:
            for _ in content(file):
                pass
        except Exception as reason:
            return damaged(file, reason)
    return damaged(path, error)


def refuse_missing(table: Any, image: str, label: str | None, path: str) -> None:
    """ValueError where a stream has not these columns."""
    missing = [name for name in (image, label) if name and name not in table.features]
    if missing:
        known = ", ".join(table.features)
        raise ValueError(f"{path!r} has the columns {known}, no {missing[0]!r}")


def beside(value: Any) -> bool:
    """Whether what a column of images has is a name beside the file that says it."""
    name = (value or {}).get("path")
    return bool((value or {}).get("bytes") is None and name and not Path(name).is_absolute())


def joined(path: str, files: Sequence[str], image: str, label: str | None) -> Any:
    """The streams of files in several folders, one after another, their images' names whole."""
    from datasets import concatenate_datasets

    streams: list[Any] = []
    for folder, some in groupby(files, lambda file: Path(file).absolute().parent):
        there = list(some)
        table = opened(path, there)
        refuse_missing(table, image, label, there[0])
        stream = undecoded(table, image, label, path, there)
        if label and streams:
            stream = as_labels_of(stream, label, streams[0].features[label])
        whole_names = partial(placed, image=image, folder=folder)
        streams.append(stream.map(whole_names, features=stream.features))
    try:
        return concatenate_datasets(streams)
    except Exception as error:  # of its columns that differ, whatever it raises
        raise ValueError(f"the files {path!r} cannot be one stream: {error}") from error


def as_labels_of(stream: Any, label: str, wanted: Any) -> Any:
    """A stream, its labels of another's kind of whole numbers; as it is where the names of classes
    may differ, or one has no whole numbers."""
    kinds = stream.features[label], wanted
    named = all(hasattr(kind, "names") for kind in kinds)
    numbers = all("int" in str(getattr(kind, "dtype", "")) for kind in kinds)
    return stream.cast_column(label, wanted) if numbers and not named else stream


def placed(row: dict[str, Any], image: str, folder: Path) -> dict[str, Any]:
    """A row whose image's name is one in a folder."""
    if not beside(row[image]):
        return row
    return {**row, image: {**row[image], "path": str(folder / row[image]["path"])}}


def undecoded(table: Any, image: str, label: str | None, path: str, files: list[str]) -> Any:
    """The stream with bytes for images, which are decoded here; ValueError where what the column
    has cannot be taken for images."""
    from datasets import Image

    kind = table.features[image]
    images = table.select_columns([image, *([label] if label else [])])
    try:
        images = images.cast_column(image, Image(decode=False))
        next(iter(images), None)
        return images
    except Exception as error:
        next_row(table, path, files)
        raise ValueError(
            f"the column {image!r} of {path!r} is of {kind}, but it must be of images, or of "
            f"their files' names: {damaged(path, error).partition(': ')[2]}"
        ) from None


def next_row(table: Any, path: str, files: list[str]) -> None:
    """ValueError where not even the first row can be read as it is."""
    try:
        next(iter(table), None)
    except Exception as error:
        raise ValueError(unread(path, files, error)) from None

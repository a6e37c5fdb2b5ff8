"""Data sets of Hugging Face's library, from a folder that it saved."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sdegen.checks import absent
from sdegen.data.images import Colour, ImageFiles


class HubFolder(ImageFiles):
    """The images of a folder that ``datasets`` wrote by ``save_to_disk``, decoded when asked for:
    (channels, size, size) in [-1, 1]. It needs ``pip install 'sdegen[data]'``.

    split: of a folder of several, as "train".
    image: the column of images; label: of classes, a ``ClassLabel`` or whole numbers, whose values
    in their order are then the classes; caption: of texts. None: there is none.

    What is done with an image, see ``ImageFiles``. Nothing of the folder is run, and nothing is
    downloaded.

    Raises ValueError where the folder is missing, is none of these or has several splits of which
    none is named, for a column that it has not or that is of another kind, a row without a
    caption, as ``ImageFiles`` does, and without the library.
    """

    def __init__(
        self,
        path: str | Path,
        size: int,
        channels: int = 3,
        split: str | None = None,
        image: str = "image",
        label: str | None = "label",
        caption: str | None = None,
        background: Colour = "white",
        flip: bool = False,
        crop: str = "centre",
    ) -> None:
        super().__init__(size, channels, background, flip, crop)
        self.path, table = str(path), loaded(path, split)
        self.table = undecoded(table, image, self.path)
        self.image, self.files = image, range(len(table))
        self.y, self.names = torch.zeros(len(table), dtype=torch.int64), ()
        if label is not None:
            self.y, self.names = labelled(table, column(table, label, self.path), label)
        self.classes, self.captions = len(self.names), ()
        if caption is not None:
            self.captions = texts(column(table, caption, self.path), caption)

    def opened(self, file: int) -> Any:
        """The bytes of an image, or the path that the table has."""
        return picture_in(self.table[file][self.image])

    def place(self) -> str:
        """In the folder."""
        return f"in {self.path!r}"


def picture_in(value: Any) -> Any:
    """What a value of a column of images has, not decoded: its bytes as a stream, or a path;
    ValueError for neither."""
    found = value or {}
    if found.get("bytes") is not None:
        return io.BytesIO(found["bytes"])
    if found.get("path") is None:
        raise ValueError("there is no image in this row")
    return found["path"]


def loaded(path: str | Path, split: str | None) -> Any:
    """The table of a folder."""
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError as error:
        raise ValueError("datasets is not installed: pip install 'sdegen[data]'.") from error
    if not Path(path).is_dir():
        raise absent("folder", path)
    try:
        found: Any = load_from_disk(str(path))
    except Exception as error:  # of its readers of JSON and Arrow, whatever they raise
        raise ValueError(
            f"{str(path)!r} could not be read as what save_to_disk writes: {error}"
        ) from None
    splits = list(found) if isinstance(found, DatasetDict) else []
    if splits and split not in splits:
        raise ValueError(f"{str(path)!r} has the splits {', '.join(splits)}: name one by split")
    if not splits and split is not None:
        raise ValueError(f"{str(path)!r} has no splits: leave out split={split}")
    table = found[split] if splits else found
    if not len(table):
        raise ValueError(f"{str(path)!r} has no items")
    return table


def column(table: Any, name: str, path: str) -> Any:
    """A column, in memory."""
    if name not in table.column_names:
        raise ValueError(f"{path!r} has the columns {', '.join(table.column_names)}, no {name!r}")
    return table[name][:]


def texts(values: Sequence[Any], name: str) -> tuple[str, ...]:
    """The captions of a column; ValueError for a row without one."""
    row = next((k for k, each in enumerate(values) if not isinstance(each, str)), None)
    if row is not None:
        raise ValueError(f"the caption {name!r} of row {row} is {values[row]!r}, which is no text")
    return tuple(values)


def undecoded(table: Any, name: str, path: str) -> Any:
    """The table with bytes for images, which are decoded here."""
    from datasets import Image

    if name not in table.column_names or not isinstance(table.features[name], Image):
        kinds = ", ".join(f"{k} ({type(v).__name__})" for k, v in table.features.items())
        raise ValueError(f"{path!r} has no images {name!r}: its columns are {kinds}")
    return table.select_columns([name]).cast_column(name, Image(decode=False))


def labelled(table: Any, values: Any, name: str) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Classes (n,) of a column, and their names."""
    wrong = [each for each in values if type(each) is not int or each < 0]
    if wrong:
        raise ValueError(f"the label {name!r} of an item is {wrong[0]!r}, but it must be a number")
    y = torch.tensor(values)
    names = getattr(table.features[name], "names", None)
    if names is None:
        known, y = y.unique(return_inverse=True)
        names = [str(each) for each in known.tolist()]
    return y, tuple(names)

"""Data from a folder of images."""

from __future__ import annotations

import csv
import io
import json
import mimetypes
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sdegen.checks import absent, warn
from sdegen.data.files import reading
from sdegen.data.images import SUFFIXES, Colour, ImageFiles

METADATA = ("metadata.jsonl", "metadata.csv", "captions.jsonl")
"""Names of a file that says more of a folder's images; the first two as Hugging Face's folders
have it."""
TEXTS = ("text", "caption")
"""Names under which a line of it has the caption."""


class ImageFolder(ImageFiles):
    """The images below a folder, (channels, size, size) in [-1, 1], decoded when asked for.

    Where every image lies in a sub-folder, the first-level sub-folders in sorted order are the
    classes 0, 1, ..., and `names` are theirs, as ImageNet's are; otherwise there are none. `y`
    (n,) are the labels of all images. Files come in sorted order, hidden ones and links to folders
    are not followed, and a warning says which images are passed over for their suffix.

    Where there is a metadata.jsonl, or a captions.jsonl, in the folder or in those below it, each
    line of it is a JSON object with a ``file_name``, relative to where it lies, and a ``text`` (or
    ``caption``), and `captions` are those of the images. Where no line has a text there are none.
    A metadata.csv has the same as columns.

    How an image is laid on the ``background``, cropped, resized and flipped, and what is done with
    a damaged one, see ``ImageFiles``.

    Raises ValueError where the folder is missing or has no image, channels is not 1 or 3,
    size < 1, or background or crop is unknown; where a line of the metadata is no such object or
    names a file that is not there, and where an image has no line; and on reading, where no image
    can be read.
    """

    def __init__(
        self,
        root: str | Path,
        size: int,
        channels: int = 3,
        background: Colour = "white",
        flip: bool = False,
        crop: str = "centre",
    ) -> None:
        super().__init__(size, channels, background, flip, crop)
        self.root = Path(root)
        found = _files_below(self.root)
        self.files = files = _images_among(found, self.root)
        folders = [file.relative_to(self.root).parts[0] for file in files]
        labelled = all(file.parent != self.root for file in files)
        self.names = tuple(sorted(set(folders))) if labelled else ()
        self.classes = len(self.names)
        number = {name: k for k, name in enumerate(self.names)}
        self.y = torch.tensor([number.get(folder, 0) for folder in folders])
        self.captions = _captions(self.root, found, files)

    def opened(self, file: Path) -> Path:
        """The file itself."""
        return file

    def place(self) -> str:
        """Below the folder."""
        return f"below {str(self.root)!r}"


def _captions(root: Path, found: list[Path], files: list[Path]) -> tuple[str, ...]:
    """The captions of a folder's images, none without a file that has them."""
    for kind in METADATA:
        paths = sorted((root / file for file in found if file.name == kind), key=_depth)
        entries = [each for path in paths for each in _entries(path)]
        if not any(text is not None for _, _, text in entries):
            continue
        said: dict[Path, str] = {}
        for where, file, text in entries:
            if text is None:
                raise ValueError(f"{where} has no text, but others have one")
            if not file.is_file():
                raise ValueError(f"{where} is of {str(file)!r}, which is not there")
            said[file] = text  # the last is of the nearest folder
        missing = next((file for file in files if file not in said), None)
        if missing is not None:
            name = str(missing.relative_to(root))
            raise ValueError(f"the {kind} of {str(root)!r} has no line for {name!r}")
        return tuple(said[file] for file in files)
    return ()


def _depth(path: Path) -> tuple[int, Path]:
    return len(path.parts), path


def _entries(path: Path) -> Iterator[tuple[str, Path, str | None]]:
    """What each line of a metadata file is called, which file it is of, and its text."""
    table = path.suffix == ".csv"
    if table and b"file_name" not in path.read_bytes().partition(b"\n")[0]:
        return  # it is about something else, in whatever encoding
    with reading(path, "is it UTF-8?"):
        said = path.read_text(encoding="utf-8-sig")
    for k, line, entry in _rows(said) if table else _objects(said):
        entry = entry if isinstance(entry, dict) else {}
        text, where = next((entry[key] for key in TEXTS if key in entry), None), f"line {k} of"
        if not isinstance(entry.get("file_name"), str) or not isinstance(text, str | None):
            raise ValueError(
                f"{where} {str(path)!r} is {line[:60]!r}, but it must "
                f"{'have' if table else 'be a JSON object with'} a file_name, and a text where "
                "there are captions"
            )
        yield f"{where} {str(path)!r}", path.parent / entry["file_name"], text


Line = tuple[int, str, Any]
"""Its number, what it is, and what it says."""


def _objects(said: str) -> Iterator[Line]:
    """The lines of a .jsonl that are not empty; of one that is no JSON None."""
    for k, line in enumerate(said.split("\n"), 1):
        if line.strip():
            try:
                yield k, line, json.loads(line)
            except ValueError:
                yield k, line, None


def _rows(said: str) -> Iterator[Line]:
    """The rows of a .csv that has a column of file names, by its first one; of one that has none,
    which is about something else, nothing. ValueError for what is no .csv."""
    rows = csv.DictReader(io.StringIO(said, newline=""))
    try:
        if "file_name" in (rows.fieldnames or ()):
            yield from ((rows.line_num, str(row), row) for row in rows)
    except csv.Error as error:
        raise ValueError(
            f"a metadata.csv cannot be read, near line {rows.line_num}: {error}"
        ) from None


def _files_below(root: Path) -> list[Path]:
    """The files below a folder that are not hidden, relative to it."""
    if not root.is_dir():
        raise absent("folder", root)
    found = [file.relative_to(root) for file in root.rglob("*") if file.is_file()]
    return [file for file in found if not any(part.startswith(".") for part in file.parts)]


def _images_among(found: list[Path], root: Path) -> list[Path]:
    """The images among files below a folder, sorted; a warning says which are passed over."""
    images = [root / file for file in found if file.suffix.lower() in SUFFIXES]
    if not images:
        raise ValueError(f"the folder {str(root)!r} has no image, of {', '.join(SUFFIXES)}")
    passed = [file for file in found if file.suffix.lower() not in SUFFIXES and _is_image(file)]
    if passed:
        kinds = Counter(file.suffix for file in passed)
        counted = ", ".join(f"{k} of {suffix}" for suffix, k in sorted(kinds.items()))
        warn(
            f"{len(passed)} images below {str(root)!r} are passed over ({counted}), as "
            f"{str(min(passed))!r} is: make them one of {', '.join(SUFFIXES)}."
        )
    return sorted(images)


OTHERS = (".heic", ".heif", ".avif", ".jxl", ".jp2", ".jfif")
"""Suffixes of images that Python's table may not know."""


def _is_image(file: Path) -> bool:
    kind, _ = mimetypes.guess_type(file.name)
    return (kind or "").startswith("image/") or file.suffix.lower() in OTHERS

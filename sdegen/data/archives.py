"""Images in archives, read where they are: EDM's zip and webdataset's tar shards."""

from __future__ import annotations

import glob
import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.checks import absent, warn
from sdegen.data.files import reading
from sdegen.data.images import SUFFIXES, Colour, ImageFiles, known

LISTING = "dataset.json"
"""What has the labels in EDM's zip."""


class ImageZip(ImageFiles):
    """The images of a zip as EDM's and StyleGAN's dataset_tool.py makes them, decoded when asked
    for: (channels, size, size) in [-1, 1].  Karras et al. (2022), their code.

    Its dataset.json has ``{"labels": [["00000/img00000000.png", 6], ...]}`` or null for labels.
    The numbers that occur are the classes 0, 1, ... in their order, and `names` are these numbers.
    Images come in the order of their names; they may have any size (see ``ImageFiles``), and
    size=None is that of the first.

    Raises ValueError for a missing or damaged zip, one without images, labels that are no whole
    numbers or that an image has none of, and as ``ImageFiles`` does.
    """

    def __init__(
        self,
        path: str | Path,
        size: int | None = None,
        channels: int = 3,
        background: Colour = "white",
        flip: bool = False,
        crop: str = "centre",
    ) -> None:
        self.path, self.open = Path(path), dict[int, zipfile.ZipFile]()
        if not self.path.is_file():
            raise absent("file", path)
        try:
            names = self.zip().namelist()
            listing = self.zip().read(LISTING) if LISTING in names else b"{}"
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(
                f"{str(path)!r} could not be read (is it damaged?): {error}"
            ) from None
        self.files = files = sorted(name for name in names if is_image(name))
        if not files:
            raise ValueError(f"{str(path)!r} has no image, of {', '.join(SUFFIXES)}")
        side = self.size_of(files[0]) if size is None else size
        super().__init__(side, channels, background, flip, crop)
        labels = labels_in(listing, files, str(path))
        self.y, self.names = numbered(labels, len(files))
        self.classes, self.captions = len(self.names), ()

    def zip(self) -> zipfile.ZipFile:
        """The archive, opened once in each process: what is forked shares no place in a file."""
        if os.getpid() not in self.open:
            self.open = {os.getpid(): zipfile.ZipFile(self.path)}
        return self.open[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "open": {}}

    def opened(self, file: str) -> io.BytesIO:
        """The bytes of an image."""
        return io.BytesIO(self.zip().read(file))

    def place(self) -> str:
        """In the zip."""
        return f"in {str(self.path)!r}"

    def size_of(self, file: str) -> int:
        """The shorter side of an image; ValueError for a damaged one."""
        with reading(Path(file), "is it damaged?"), known(self.opened(file)) as image:
            return int(min(image.size))


def is_image(name: str) -> bool:
    """Whether a file in an archive is called as an image is, and not hidden."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def labels_in(listing: bytes, files: Sequence[str], path: str) -> list[int] | None:
    """The labels of images by a dataset.json, None where it has none."""
    try:
        found = json.loads(listing).get("labels")
        by_name = None if found is None else {name: label for name, label in found}
    except (ValueError, AttributeError, TypeError):
        raise ValueError(
            f"the {LISTING} in {path!r} must be an object whose labels are null or a list of "
            "[name, number]"
        ) from None
    if by_name is None:
        return None
    missing = next((name for name in files if name not in by_name), None)
    if missing is not None:
        raise ValueError(f"the {LISTING} in {path!r} has no label of {missing!r}")
    labels = [by_name[name] for name in files]
    wrong = [label for label in labels if type(label) is not int or label < 0]
    if wrong:
        raise ValueError(
            f"the {LISTING} in {path!r} has the label {wrong[0]!r}, which is no whole number"
        )
    return labels


def numbered(labels: Sequence[int] | None, n: int) -> tuple[Tensor, tuple[str, ...]]:
    """Classes 0, 1, ... (n,) of labels, in the order of these, and what they are called; zeros
    and no names without labels."""
    if labels is None:
        return torch.zeros(n, dtype=torch.int64), ()
    values, y = torch.tensor(labels).unique(return_inverse=True)
    return y, tuple(str(each) for each in values.tolist())


class Member(NamedTuple):
    """Where the bytes of a file in a shard are."""

    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.name} in {self.shard}"

    def read(self) -> bytes:
        """These bytes."""
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class ImageShards(ImageFiles):
    """The images of webdataset's shards, decoded when asked for: (channels, size, size) in
    [-1, 1].

    A shard is a plain .tar in which files that are called alike up to the first dot of their names
    are one sample: an image (.jpg, .png, .webp, ...), and beside it a class as a whole number
    (.cls), a caption (.txt), or a JSON object (.json) with a ``label`` or ``cls`` and a
    ``caption`` or ``text``. Every sample has what one has. Labels that occur are the classes 0, 1,
    ... in their order, `names` are these numbers, and `captions` the texts.

    All shards are looked through once, for where their images are, and then read at any place:
    unlike a stream of them, they are shuffled as a whole, and a run goes on bit for bit. A warning
    says how many samples have no image that can be read by its suffix.

    path: of one shard, or a pattern, as "shards/*.tar"; {0000..0099} and {train,val} may stand in
    it, and then there must be a shard of each.

    Raises ValueError where there is no such shard, for a damaged or compressed one, several in one
    file, one without images, a sample with two files of a kind, without what others have, with a
    label that is no whole number or a caption that is no text, and as ``ImageFiles`` does.
    """

    def __init__(
        self,
        path: str | Path,
        size: int,
        channels: int = 3,
        background: Colour = "white",
        flip: bool = False,
        crop: str = "centre",
    ) -> None:
        super().__init__(size, channels, background, flip, crop)
        self.path = str(path)
        groups = [group for shard in shards_of(self.path) for group in groups_in(shard)]
        samples = [sample for group in groups if (sample := sample_of(group))]
        if not samples:
            raise ValueError(f"the shards {self.path!r} have no image, of {', '.join(SUFFIXES)}")
        if len(samples) < len(groups):
            one = next(group for group in groups if sample_of(group) is None)
            first, _ = next(iter(one.values()))
            warn(
                f"{len(groups) - len(samples)} samples in {self.path!r} are passed over, as that "
                f"of {first} is: what follows the first dot of its files' names is none of "
                f"{', '.join(SUFFIXES)}."
            )
        self.files = [sample.image for sample in samples]
        labels = complete("label", [(s.label, s.image) for s in samples])
        self.y, self.names = numbered(labels or None, len(samples))
        self.captions = tuple(complete("caption", [(s.caption, s.image) for s in samples]))
        self.classes = len(self.names)

    def opened(self, file: Member) -> io.BytesIO:
        """The bytes of an image."""
        return io.BytesIO(file.read())

    def place(self) -> str:
        """In the shards."""
        return f"in {self.path!r}"


class Sample(NamedTuple):
    """What a shard says of one image."""

    image: Member
    label: int | None
    caption: str | None


def shards_of(path: str) -> list[str]:
    """The files that a path or a pattern means, each once, sorted; ValueError for a choice of its
    braces that there is none of."""
    found = set[str]()
    for each in [path] if Path(path).is_file() else braced(path):
        files = [each] if Path(each).is_file() else glob.glob(each)
        if not files:
            raise ValueError(f"there is no shard {each!r}")
        found.update(files)
    return sorted(found)


def braced(path: str) -> list[str]:
    """A path with braces in it as one for each of their choices, as shells and webdataset have it:
    {0000..0099}, with as many digits, {0..9..3}, {a..c}, {train,val}, and one inside another. What
    is no choice, as {a}, stays."""
    opening = path.find("{")
    while opening >= 0:
        parts, closing = parted(path, opening)
        choices = [] if len(parts) > 1 else spanned(parts[0])
        if closing and len(parts) > 1:
            choices = [each for part in parts for each in braced(part)]
        if closing and choices:
            return [path[:opening] + c + rest for c in choices for rest in braced(path[closing:])]
        opening = path.find("{", opening + 1)
    return [path]


def parted(path: str, opening: int) -> tuple[list[str], int]:
    """What stands between the commas of a brace, and where its closing one ends, 0 for none."""
    deep, parts = 0, [""]
    for k, letter in enumerate(path[opening + 1 :], opening + 1):
        if letter == "}" and not deep:
            return parts, k + 1
        deep += (letter == "{") - (letter == "}")
        if letter == "," and not deep:
            parts.append("")
        else:
            parts[-1] += letter
    return parts, 0


def spanned(span: str) -> list[str]:
    """What first..last or first..last..step means, both of them there; an empty list for what is
    neither."""
    found = re.fullmatch(r"(\d+|[A-Za-z])\.\.(\d+|[A-Za-z])(?:\.\.(\d+))?", span, re.ASCII)
    if not found or found[1].isdigit() != found[2].isdigit():
        return []
    numbers = found[1].isdigit()
    first, last = (int(each) if numbers else ord(each) for each in found.group(1, 2))
    step = max(1, int(found[3] or 1)) * (1 if last >= first else -1)
    padded = any(len(each) > 1 and each[0] == "0" for each in found.group(1, 2))
    digits = max(map(len, found.group(1, 2))) if padded else 0
    every = range(first, last + (1 if step > 0 else -1), step)
    return [f"{k:0{digits}}" if numbers else chr(k) for k in every]


Group = dict[str, tuple[Member, bytes]]
"""Files that are called alike, by what follows the first dot: where they are, and what is in those
that say something of an image."""


def groups_in(shard: str) -> list[Group]:
    """The files of a shard that are called alike, in the order of the first of them."""
    groups: dict[str, Group] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for info in tar:
                folder, _, name = info.name.rpartition("/")
                key, _, kind = name.partition(".")
                if info.isfile() and key:
                    at = Member(shard, info.name, info.offset_data, info.size)
                    group, kind = groups.setdefault(f"{folder}/{key}", {}), kind.lower()
                    if kind in group:
                        raise ValueError(f"{at} is there twice")
                    group[kind] = at, content(tar, info) if kind in TEXTS else b""
            end = tar.offset
        refuse_more(shard, end)
    except (tarfile.TarError, OSError) as error:
        raise ValueError(
            f"{shard!r} could not be read (is it damaged, or compressed?): {error}"
        ) from None
    return list(groups.values())


TEXTS = ("cls", "txt", "json")
"""What says something of an image, after the first dot of a name."""


def content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """What is in a file of a shard that is looked through."""
    file: Any = tar.extractfile(info)
    read: bytes = file.read()
    return read


def refuse_more(shard: str, end: int) -> None:
    """ValueError unless zeros, a block at least, follow where tarfile stopped: it takes a cut, a
    damaged header and the end of the first of several shards for the end."""
    with open(shard, "rb") as file:
        file.seek(end)
        blocks = iter(lambda: file.read(1 << 20), b"")
        first = next(blocks, b"")
        if len(first) < tarfile.BLOCKSIZE or len(first) % tarfile.BLOCKSIZE:
            raise ValueError(f"{shard!r} is cut short")
        if any(first) or any(map(any, blocks)):
            raise ValueError(
                f"{shard!r} goes on after its end: is it damaged, or are several in one file?"
            )


def sample_of(group: Group) -> Sample | None:
    """What files that are called alike say; None without an image among them."""
    image = next((at for kind, (at, _) in group.items() if f".{kind}" in SUFFIXES), None)
    if image is None:
        return None
    about: Any = {}
    if "json" in group and not ("cls" in group and "txt" in group):
        at, read = group["json"]
        try:
            about = json.loads(read)
        except ValueError:
            about = None
        if not isinstance(about, dict):
            raise ValueError(f"{at} is no JSON object")
    label: Any = about.get("label", about.get("cls"))
    caption = about.get("caption", about.get("text"))
    if "cls" in group:
        label = group["cls"][1].decode(errors="replace").strip()
        label = int(label) if label.isascii() and label.isdecimal() else label
    if "txt" in group:
        at, read = group["txt"]
        with reading(Path(str(at)), "is it UTF-8?"):
            caption = read.decode("utf-8-sig").strip()
    if label is not None and (type(label) is not int or label < 0):
        raise ValueError(f"the label of {image} is {label!r}, but it must be a number from 0 on")
    if not isinstance(caption, str | None):
        raise ValueError(f"the caption of {image} is {caption!r}, which is no text")
    return Sample(image, label, caption)


def complete(what: str, values: Iterable[tuple[Any, Member]]) -> list[Any]:
    """What all samples have, or an empty list where none has; ValueError where some have it."""
    listed = list(values)
    missing = next((image for value, image in listed if value is None), None)
    if missing is not None and any(value is not None for value, _ in listed):
        raise ValueError(f"{missing} has no {what}, but others have one")
    return [] if missing is not None else [value for value, _ in listed]

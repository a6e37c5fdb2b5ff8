"""The field's small data sets as they are downloaded: CIFAR-10's and MNIST's own files."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import absent, one_of
from sdegen.data.arrays import ArrayData, from_uint8

CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
"""The classes of CIFAR-10 by their numbers."""
BATCHES = {
    "train": [f"data_batch_{k}.bin" for k in range(1, 6)],
    "test": ["test_batch.bin"],
}
RECORD = 1 + 3 * 32 * 32
"""Bytes of an image: its label, then all of red, of green and of blue."""


def cifar10(path: str | Path, split: str = "train") -> ArrayData:
    """CIFAR-10 from cifar-10-binary.tar.gz, as it is downloaded: 3 x 32 x 32 in [-1, 1], ten
    classes.  Krizhevsky (2009).

    split: "train", 50,000 images, or "test", 10,000. They are held in memory, as float32.

    Raises ValueError for another split, a missing or damaged file, one without the split's
    batches, batches that are no whole records of 3,073 bytes, labels above 9, and for the Python
    version of the archive, whose pickles can run code. How many records there are is not checked.
    """
    names, path = one_of(split, "split", BATCHES), Path(path)
    parts = []
    for name, read in members(path, names):
        if len(read) % RECORD or not read:
            raise ValueError(
                f"{name} in {str(path)!r} has {len(read)} bytes, which are no records of {RECORD}"
            )
        parts.append(torch.frombuffer(bytearray(read), dtype=torch.uint8).reshape(-1, RECORD))
    records = torch.cat(parts)
    y = records[:, 0].long()
    if int(y.max()) >= len(CIFAR10):
        raise ValueError(f"{str(path)!r} has the label {int(y.max())}, but CIFAR-10's are 0 to 9")
    return ArrayData(from_uint8(records[:, 1:].reshape(-1, 3, 32, 32)), y, 256, CIFAR10)


def members(path: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Files of a .tar.gz by the ends of their names, in the order asked for."""
    present(path)
    try:
        with tarfile.open(path) as tar:
            found = {Path(member.name).name: member for member in tar if member.isfile()}
            missing = [name for name in names if name not in found]
            if missing and missing[0].removesuffix(".bin") in found:
                raise ValueError(
                    f"{str(path)!r} is the Python version of CIFAR-10, whose pickles can run "
                    "code: take the binary version, cifar-10-binary.tar.gz"
                )
            if missing:
                raise ValueError(f"{str(path)!r} has no {missing[0]}")
            for name in names:
                file: Any = tar.extractfile(found[name])
                yield name, file.read()
        ends_well(path)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{str(path)!r} could not be read (is it damaged?): {reason}") from error


def ends_well(path: Path) -> None:
    """EOFError or OSError for a .gz whose sum is another one than its end says: tarfile stops
    before it."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return
    with gzip.open(path) as stream:
        while stream.read(1 << 20):
            pass


MNIST = {"train": "train", "test": "t10k"}
"""How the files of a split begin."""


def mnist(root: str | Path, split: str = "train") -> ArrayData:
    """MNIST, or what comes in files of its names, from the folder they were downloaded to:
    1 x 28 x 28 in [-1, 1], classes by the numbers that occur.  LeCun and others (1998).

    The files are train-images-idx3-ubyte and train-labels-idx1-ubyte, and those of t10k-, as they
    are or with .gz, or train-images.idx3-ubyte, as some unpack them. Fashion-MNIST's and
    Kuzushiji-MNIST's are called alike.

    Raises ValueError for another split, files that are missing, damaged, cut short, or no IDX of
    bytes of the right dimensions, and where there are not as many labels as images.
    """
    begin, root = one_of(split, "split", MNIST), Path(root)
    images = read_idx(root, f"{begin}-images-idx3-ubyte", 3)
    labels = read_idx(root, f"{begin}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise ValueError(
            f"{str(root)!r} has {len(images)} images, but {len(labels)} labels of {split}"
        )
    names = [str(k) for k in range(int(labels.max()) + 1)]
    return ArrayData(from_uint8(images[:, None]), labels.long(), 256, names)


def read_idx(root: Path, name: str, dims: int) -> Tensor:
    """The bytes of an IDX file of that name, with a dot for the last but one dash or .gz after it
    or not, compressed or not whatever it is called, with so many dimensions.

    Two bytes of zero, one of the type, 8 for bytes, one of the number of dimensions; each length
    in four bytes, the highest first; then the data, the last index changing fastest.
    """
    called = [
        f"{each}{end}" for each in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")
    ]
    path = next((root / each for each in called if (root / each).is_file()), root / name)
    present(path)
    try:
        read = path.read_bytes()
        read = gzip.decompress(read) if read[:2] == b"\x1f\x8b" else read
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{str(path)!r} could not be read (is it damaged?): {error}") from error
    magic = bytes((0, 0, 8, dims))
    if read[:4] != magic:
        raise ValueError(
            f"{str(path)!r} begins with {read[:4].hex(' ') or 'nothing'}, but an IDX file of "
            f"bytes in {dims} dimensions with {magic.hex(' ')}"
        )
    begin = 4 + 4 * dims
    shape = [int.from_bytes(read[k : k + 4], "big") for k in range(4, begin, 4)]
    size = torch.Size(shape).numel()
    if len(read) != begin + size or not size:
        raise ValueError(
            f"{str(path)!r} says that it is {' x '.join(map(str, shape))} bytes, but has "
            f"{max(0, len(read) - begin)}: was it cut short?"
        )
    return torch.frombuffer(bytearray(read[begin:]), dtype=torch.uint8).reshape(shape)


def present(path: Path) -> None:
    """ValueError where there is no such file."""
    if not path.is_file():
        raise absent("file", path)

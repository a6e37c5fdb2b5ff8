"""CIFAR-10 and MNIST in the files that they are downloaded in."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from sdegen.data import cifar10, mnist, to_uint8
from tests.cases import refused_with

RNG = np.random.default_rng(0)
PIXELS = {name: RNG.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8) for name, n in
          [*((f"data_batch_{k}", 2) for k in range(1, 6)), ("test_batch", 3)]}  # fmt: skip
LABELS = {name: RNG.integers(0, 10, len(x)).astype(np.uint8) for name, x in PIXELS.items()}


def records(name: str) -> bytes:
    return b"".join(
        bytes([y]) + x.tobytes() for x, y in zip(PIXELS[name], LABELS[name], strict=True)
    )


def archive(path: Path, files: Mapping[str, bytes]) -> Path:
    """A .tar.gz with these files in a folder."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


WHOLE = {f"{name}.bin": records(name) for name in PIXELS} | {"readme.html": b"x"}


def test_cifar_10_is_read_from_its_binary_archive(tmp_path: Path) -> None:
    # Members in another order than their numbers: the batches come by these.
    path = archive(tmp_path / "cifar-10-binary.tar.gz", dict(reversed(WHOLE.items())))
    train, test = cifar10(path), cifar10(path, "test")
    names = [f"data_batch_{k}" for k in range(1, 6)]
    assert np.array_equal(to_uint8(train.x).numpy(), np.concatenate([PIXELS[n] for n in names]))
    assert train.y.tolist() == [int(y) for n in names for y in LABELS[n]]
    assert np.array_equal(to_uint8(test.x).numpy(), PIXELS["test_batch"])
    assert (train.classes, train.levels, train.shape) == (10, 256, (3, 32, 32))
    assert train.names[6] == "frog" and test.names == train.names


def test_what_is_not_cifar_10_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with refused_with("there is no file"):
        cifar10(path)
    with refused_with("Unknown split 'valid': it must be one of test, train"):
        cifar10(archive(path, WHOLE), "valid")
    path.write_bytes(path.read_bytes()[:4000])
    with refused_with("could not be read (is it damaged?)"):
        cifar10(path)
    # One byte of a picture is another one: what packs it knows at its end, and tar does not.
    for split in ("train", "test"):
        whole = bytearray(archive(path, WHOLE).read_bytes())
        whole[len(whole) // 2] ^= 1
        path.write_bytes(whole)
        with refused_with("could not be read (is it damaged?)"):
            cifar10(path, split)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"could not be read \(is it damaged\?\): [^\n]*$"):
        cifar10(path)
    with refused_with("has no test_batch.bin"):
        cifar10(archive(path, {"data_batch_1.bin": b""}), "test")
    with refused_with("6145 bytes, which are no records of 3073"):
        cifar10(archive(path, {**WHOLE, "data_batch_3.bin": records("data_batch_3")[:-1]}))
    with refused_with("has the label 200, but CIFAR-10's are 0 to 9"):
        wrong = bytes([200]) + records("test_batch")[1:]
        cifar10(archive(path, {"test_batch.bin": wrong}), "test")


class Harm:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('it was unpickled')",))


def test_the_python_version_is_refused_and_not_unpickled(tmp_path: Path) -> None:
    files = {f"data_batch_{k}": pickle.dumps(Harm()) for k in range(1, 6)}
    with refused_with("take the binary version, cifar-10-binary.tar.gz"):
        cifar10(archive(tmp_path / "cifar-10-python.tar.gz", files))


def idx(x: np.ndarray, kind: int = 8) -> bytes:
    lengths = b"".join(int(n).to_bytes(4, "big") for n in x.shape)
    return bytes([0, 0, kind, x.ndim]) + lengths + x.tobytes()


IMAGES = RNG.integers(0, 256, (6, 5, 7), dtype=np.uint8)  # not square: no axis is another one
NUMBERS = np.array([3, 0, 9, 1, 1, 2], dtype=np.uint8)


def folder(root: Path, begin: str = "train", end: str = "") -> Path:
    for name, x in (("images-idx3", IMAGES), ("labels-idx1", NUMBERS)):
        content = idx(x)
        written = gzip.compress(content) if end else content
        (root / f"{begin}-{name}-ubyte{end}").write_bytes(written)
    return root


@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnist_is_read_from_idx(tmp_path: Path, end: str) -> None:
    data = mnist(folder(tmp_path, "t10k", end), "test")
    assert np.array_equal(to_uint8(data.x)[:, 0].numpy(), IMAGES)
    assert data.y.tolist() == NUMBERS.tolist() and data.y.dtype == torch.int64
    assert data.classes == 10 and data.levels == 256 and data.names[9] == "9"
    with refused_with("train-images-idx3-ubyte'"):
        mnist(tmp_path)


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_by_the_names_it_has(
    tmp_path: Path, end: str, dot: str, packed: bool
) -> None:
    """With a dot, as some unpack it, and whatever .gz says of a file."""
    for name, x in (("images-idx3", IMAGES), ("labels-idx1", NUMBERS)):
        path = tmp_path / f"train-{name.replace('-', dot)}-ubyte{end}"
        path.write_bytes(gzip.compress(idx(x)) if packed else idx(x))
    data = mnist(tmp_path)
    assert len(data) == 6 and data.y.tolist() == NUMBERS.tolist()


def test_what_is_not_idx_is_refused(tmp_path: Path) -> None:
    images = folder(tmp_path) / "train-images-idx3-ubyte"
    labels = tmp_path / "train-labels-idx1-ubyte"
    for content, words in (
        (b"", "begins with nothing, but an IDX file of bytes in 3 dimensions with 00 00 08 03"),
        (idx(IMAGES, kind=13), "begins with 00 00 0d 03"),
        (idx(IMAGES[0]), "begins with 00 00 08 02"),
        (idx(IMAGES)[:-1], "says that it is 6 x 5 x 7 bytes, but has 209: was it cut short?"),
        (idx(IMAGES)[:7], "was it cut short?"),
        (idx(IMAGES) + b"x", "but has 211"),
        (idx(IMAGES[:0]), "says that it is 0 x 5 x 7 bytes"),
    ):
        images.write_bytes(content)
        with refused_with(words):
            mnist(tmp_path)
    images.write_bytes(idx(IMAGES))
    labels.write_bytes(idx(NUMBERS[:4]))
    with refused_with("has 6 images, but 4 labels of train"):
        mnist(tmp_path)
    labels.unlink()
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(NUMBERS))[:-9])
    with refused_with("could not be read (is it damaged?)"):
        mnist(tmp_path)

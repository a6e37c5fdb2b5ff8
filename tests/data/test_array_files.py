"""Array files: floats as they are, bytes as images, and nothing that can harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdegen.data import (
    from_file,
)
from tests.cases import refused_with


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", "g"])
def test_floats_are_taken_as_they_are(tmp_path: Path, dtype: Any) -> None:
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(5, 2, 3)).astype(dtype))
    np.save(tmp_path / "x.npy", x)
    data = from_file(tmp_path / "x.npy")
    assert data.shape == (2, 3) and data.classes == 0 and data.x.dtype == torch.float32
    assert np.array_equal(data.x.numpy(), x.astype(np.float32))


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 6), dtype=np.uint8)


@pytest.mark.parametrize(
    "stored, expected",
    [
        (IMAGES, IMAGES),
        (IMAGES.transpose(0, 2, 3, 1), IMAGES),
        (IMAGES[:, 0], IMAGES[:, :1]),
        (IMAGES[:, :1], IMAGES[:, :1]),
        (IMAGES[:, :1].transpose(0, 2, 3, 1), IMAGES[:, :1]),
        (IMAGES[:, 0, :, :3], IMAGES[:, :1, :, :3]),
    ],
    ids=["nchw", "nhwc", "nhw", "n1hw", "nhw1", "nh3 is grey"],
)
def test_bytes_are_images(tmp_path: Path, stored: Any, expected: Any) -> None:
    np.save(tmp_path / "x.npy", stored)
    data = from_file(str(tmp_path / "x.npy"))
    assert data.shape == expected.shape[1:]
    np.testing.assert_allclose(data.x.numpy(), expected / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3, 5, 3), (4, 1, 5, 3), (4, 3, 5, 1), (4, 1, 1, 1)])
def test_images_that_can_be_read_both_ways_are_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    with refused_with(f"shape {shape}, which could be"):
        from_file(tmp_path / "x.npy")


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 2, 5, 6), (4, 5, 3, 6), (1, 4, 3, 5, 6)])
def test_bytes_that_are_no_images_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint8))
    with refused_with(f"shape {shape}, but images are"):
        from_file(tmp_path / "x.npy")


@pytest.mark.parametrize("dtype", ["i8", "u2", "?", "c8", "U3", "M8[s]", "f4,f4"])
def test_other_dtypes_are_refused(tmp_path: Path, dtype: Any) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 2), dtype))
    with refused_with("but it must be floats, or uint8 for images"):
        from_file(tmp_path / "x.npy")


def test_floats_beyond_float32_are_named(tmp_path: Path) -> None:
    x = np.zeros((4, 2))
    x[3, 1] = 1e300
    np.save(tmp_path / "x.npy", x)
    with refused_with("x[3, 1] is inf"):
        from_file(tmp_path / "x.npy")


@pytest.mark.parametrize("dtype", ["u1", "i4", ">i8", "u8"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_gives_data_and_labels(tmp_path: Path, dtype: Any, save: Any) -> None:
    x, y = np.random.default_rng(0).normal(size=(3, 2)), np.array([2, 0, 1], dtype)
    path = tmp_path / "a.npz"
    save(path, x=x, y=y)
    for data in (from_file(path, "x", "y"), from_file(path, labels="y")):
        assert torch.equal(data.x, torch.tensor(x).float())
        assert data.y.tolist() == [2, 0, 1] and data.classes == 3
    assert from_file(path, "x").classes == 0
    save(path, x)
    assert torch.equal(from_file(path).x, data.x)


def test_keys_must_fit_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, train=np.zeros((3, 2)), test=np.zeros((3, 2)), y=np.zeros(3))
    for key, labels in ((None, None), (None, "y"), ("x", None), ("train", "z")):
        with refused_with("holds the arrays train, test, y"):
            from_file(path, key, labels)
    with refused_with("the labels 'y' are float64"):
        from_file(path, "train", "y")
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    for arguments in ({"key": "x"}, {"labels": "y"}):
        with refused_with("holds one array"):
            from_file(tmp_path / "a.npy", **arguments)


def test_labels_must_fit_the_data(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for y in (np.zeros(2, int), np.zeros((3, 1), int), np.array([0, -1, 0])):
        np.savez(path, x=np.zeros((3, 2)), y=y)
        with pytest.raises(ValueError, match=r"^the labels 'y' (are|have)"):
            from_file(path, "x", "y")


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (["wolf", "cat", "wolf"], ("cat", "wolf")),
        (np.array([1000, 5, 9]), ("5", "9", "1000")),
        (np.array([2**64 - 1, 3, 3], "u8"), ("3", str(2**64 - 1))),
    ],
)
def test_labels_are_numbered_in_their_order(tmp_path: Path, y: Any, names: Any) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.asarray(y))
    data = from_file(tmp_path / "a.npz", "x", "y")
    assert data.names == names and data.classes == len(names)
    assert [names[int(k)] for _, k in data] == [str(each) for each in y]


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    trap = np.array([Trap()], dtype=object)
    np.save(tmp_path / "a.npy", trap)
    np.savez(tmp_path / "a.npz", x=trap)
    (tmp_path / "b.npy").write_bytes(trap.dumps())
    for name in ("a.npy", "a.npz", "b.npy"):
        with refused_with("which need pickle"):
            from_file(tmp_path / name)


class Trap:
    def __reduce__(self) -> Any:
        return pytest.fail, ("the file was unpickled",)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, np.zeros((30, 20)))
    else:
        np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(30, 20)))
    whole = path.read_bytes()
    middle = len(whole) // 2
    garbled = (
        whole[: middle - 9] + bytes(b ^ 255 for b in whole[middle - 9 : middle]) + whole[middle:]
    )
    broken = [b"", b"\x00" * 50, whole[:middle], whole[:20]] + (
        [garbled] if suffix == ".npz" else []
    )
    for content in broken:
        path.write_bytes(content)
        with refused_with(f"'{path}' could not be read"):
            from_file(path)


def test_a_zip_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("readme.txt", "hello")
    with refused_with("but it must be floats"):
        from_file(tmp_path / "a.npz")


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"")
    with refused_with("ends in '.pt'"):
        from_file(tmp_path / "a.pt")
    with refused_with("there is no file"):
        from_file(tmp_path / "gone.npy")


def test_labels_that_occur_are_the_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((4, 2)), y=np.array([9, 5, 5, 70_000]))
    data = from_file(path, labels="y")
    assert data.y.tolist() == [1, 0, 0, 2]
    assert data.classes == 3 and data.names == ("5", "9", "70000")

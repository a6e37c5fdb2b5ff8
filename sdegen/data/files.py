"""Data from a file: one NumPy array."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sdegen.checks import absent
from sdegen.data.arrays import ArrayData, from_uint8

if TYPE_CHECKING:
    from numpy.typing import NDArray


def from_file(path: str | Path, key: str | None = None, labels: str | None = None) -> ArrayData:
    """The array of a .npy file, or the one called `key` in a .npz file, as a data set.

    Floats (n, ...) are taken as they are. Bytes (uint8) are images, scaled to [-1, 1]: three
    dimensions are always (n, h, w), four are (n, h, w, c) or (n, c, h, w) with c 1 or 3, told
    apart by where the 1 or 3 stands; where both places have one, the array is refused.
    `labels` names an array of integers or texts (n,) in the same .npz. The labels that occur in it
    are the classes 0, 1, ... in their order, and `names` are what they are called there. `key` may
    be left out where only one other array is there.

    Raises ValueError for another suffix, a missing or damaged file, arrays that would need
    pickle (it can run code), a key that is not there, and other dtypes or shapes.
    """
    import numpy as np

    path = Path(path)
    if path.suffix.lower() not in (".npy", ".npz"):
        raise ValueError(f"{str(path)!r} ends in {path.suffix!r}, but .npy or .npz is expected")
    if not path.is_file():
        raise absent("file", path)
    x, y = _load(path, key, labels)
    if y is not None and y.dtype.kind not in "iuU":
        raise ValueError(
            f"the labels {labels!r} are {y.dtype}, but they must be integers or texts"
        )
    data, levels = _as_data(x), 256 if x.dtype.kind == "u" else 0
    if y is None:
        return ArrayData(data, None, levels)
    if y.shape != (len(x),):
        raise ValueError(f"the labels {labels!r} are {y.shape}, but of this data ({len(x)},)")
    if y.dtype.kind != "U" and y.min() < 0:
        raise ValueError(f"the labels {labels!r} have {y.min()}, but classes are from 0 on")
    found, places = np.unique(y, return_inverse=True)
    numbers = torch.from_numpy(places.astype("int64"))
    return ArrayData(data, numbers, levels, [str(name) for name in found.tolist()])


def _load(
    path: Path, key: str | None, labels: str | None
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The array and its labels, as they are stored."""
    import numpy as np

    hint = "is it damaged, or does it hold Python objects, which need pickle?"
    with path.open("rb") as stream:  # np.load leaves a damaged .npz open
        with reading(path, hint):
            loaded = np.load(stream, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            if key is not None or labels is not None:
                raise ValueError(f"{str(path)!r} holds one array: leave out key and labels")
            return loaded, None
        names = loaded.files
        if key is None:
            rest = [name for name in names if name != labels]
            key = rest[0] if len(rest) == 1 else None
        if key not in names or labels not in (None, *names):
            raise ValueError(
                f"{str(path)!r} holds the arrays {', '.join(names)}: "
                f"name its data by key (here {key!r}), its labels by labels (here {labels!r})"
            )
        with reading(path, hint):  # a member that is no array comes as bytes, hence asarray
            y = None if labels is None else np.asarray(loaded[labels])
            return np.asarray(loaded[key]), y


@contextmanager
def reading(file: Path, hint: str) -> Iterator[None]:
    """Turn what decoders raise at a damaged file, almost anything, into one ValueError."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{str(file)!r} could not be read ({hint}): {error}") from error


def _as_data(x: NDArray[Any]) -> Tensor:
    """Floats (n, ...) as float32, bytes as images (n, c, h, w) in [-1, 1]."""
    import numpy as np

    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # ArrayData names the entry beyond float32
            return torch.from_numpy(np.ascontiguousarray(x, np.float32))
    if x.dtype != np.uint8:
        raise ValueError(f"the array is {x.dtype}, but it must be floats, or uint8 for images")
    images = torch.from_numpy(np.ascontiguousarray(x))
    if images.ndim == 3:
        return from_uint8(images[:, None])
    if images.ndim != 4 or not {images.shape[1], images.shape[3]} & {1, 3}:
        raise ValueError(
            f"the uint8 array has the shape {x.shape}, but images are (n, h, w), (n, h, w, c) "
            "or (n, c, h, w) with c 1 or 3: save anything else as floats"
        )
    if {images.shape[1], images.shape[3]} <= {1, 3}:
        raise ValueError(
            f"the uint8 array has the shape {x.shape}, which could be (n, h, w, c) or "
            "(n, c, h, w): save it as floats (n, c, h, w) in [-1, 1]"
        )
    return from_uint8(images if images.shape[1] in (1, 3) else images.permute(0, 3, 1, 2))

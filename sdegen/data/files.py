"""Data from files: a folder of images, or one NumPy array."""

from __future__ import annotations

import mimetypes
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdegen.checks import warn
from sdegen.data.arrays import ArrayData, checked_labels, from_uint8

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")


class ImageFolder(Dataset[tuple[Tensor, Tensor]]):
    """The images below a folder, (channels, size, size) in [-1, 1], decoded when asked for.

    An image is cropped to its central square, resized with Lanczos' filter, and made RGB or
    grey; its EXIF orientation is followed, transparency is dropped, and of several frames or pages
    the first is taken. Where every image lies in a sub-folder, the first-level sub-folders in
    sorted order are the classes 0, 1, ..., and `names` are theirs; otherwise there are none. `y`
    (n,) are the labels of all images. Files come in sorted order, hidden ones and links to folders
    are not followed, and a warning says which images are passed over for their suffix.

    A file that is damaged, or grey with more than 8 bits, is left out when it is found, a warning
    names it, and the next one that can be read stands in its place.

    Raises ValueError where the folder is missing or has no image, channels is not 1 or 3, or
    size < 1; and on reading, where no image can be read.
    """

    def __init__(self, root: str | Path, size: int, channels: int = 3) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels = {channels}, but it must be 1 (grey) or 3 (RGB)")
        if size < 1:
            raise ValueError(f"size = {size}, but it must be at least 1 pixel")
        self.root = Path(root)
        self.shape: tuple[int, ...] = (channels, size, size)
        self.files = _images_below(self.root)
        folders = [file.relative_to(self.root).parts[0] for file in self.files]
        labelled = all(file.parent != self.root for file in self.files)
        self.names = tuple(sorted(set(folders))) if labelled else ()
        self.classes, self.levels = len(self.names), 256
        number = {name: k for k, name in enumerate(self.names)}
        self.y = torch.tensor([number.get(folder, 0) for folder in folders])
        self.left_out: set[int] = set()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        first = range(len(self))[i]
        for j in chain(range(first, len(self)), range(first)):
            if j in self.left_out:
                continue
            try:
                return _decode(self.files[j], self.shape), self.y[j]
            except ValueError as error:
                self.left_out.add(j)
                warn(f"{error}. It is left out, and the next image stands in its place.")
        raise ValueError(f"no image below {str(self.root)!r} can be read")


def _images_below(root: Path) -> list[Path]:
    if not root.is_dir():
        raise ValueError(f"there is no folder {str(root)!r}")
    found = [file.relative_to(root) for file in root.rglob("*") if file.is_file()]
    found = [file for file in found if not any(part.startswith(".") for part in file.parts)]
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


def _decode(file: Path, shape: tuple[int, ...]) -> Tensor:
    """The central square of an image file as a tensor of this shape (c, size, size)."""
    import numpy as np
    from PIL import Image, ImageOps

    channels, size, _ = shape
    with _reading(file, "is it damaged?"), Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith(("I", "F")):
        # Pillow would clip these to 255, which leaves most pixels white.
        raise ValueError(
            f"{str(file)!r} is grey with more than 8 bits (mode {image.mode}): convert it to 8"
        )
    if image.mode == "P":  # straight to RGB, Pillow warns of a palette's transparency
        image = image.convert("RGBA")
    image = image.convert("L" if channels == 1 else "RGB")
    w, h = image.size
    side = min(w, h)
    left, top = (w - side) // 2, (h - side) // 2
    square = image.crop((left, top, left + side, top + side))
    pixels = np.array(square.resize((size, size), Image.Resampling.LANCZOS))
    return from_uint8(torch.from_numpy(pixels).reshape(size, size, channels).permute(2, 0, 1))


def from_file(path: str | Path, key: str | None = None, labels: str | None = None) -> ArrayData:
    """The array of a .npy file, or the one called `key` in a .npz file, as a data set.

    Floats (n, ...) are taken as they are. Bytes (uint8) are images, scaled to [-1, 1]: three
    dimensions are always (n, h, w), four are (n, h, w, c) or (n, c, h, w) with c 1 or 3, told
    apart by where the 1 or 3 stands; where both places have one, the array is refused.
    `labels` names an array of integers (n,) in the same .npz. The labels that occur in it are the
    classes 0, 1, ... in their order, and `names` are what they are called there. `key` may be left
    out where only one other array is there.

    Raises ValueError for another suffix, a missing or damaged file, arrays that would need
    pickle (it can run code), a key that is not there, and other dtypes or shapes.
    """
    path = Path(path)
    if path.suffix.lower() not in (".npy", ".npz"):
        raise ValueError(f"{str(path)!r} ends in {path.suffix!r}, but .npy or .npz is expected")
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    x, y = _load(path, key, labels)
    if y is not None and y.dtype.kind not in "iu":
        raise ValueError(f"the labels {labels!r} are {y.dtype}, but they must be integers")
    data, levels = _as_data(x), 256 if x.dtype.kind == "u" else 0
    if y is None:
        return ArrayData(data, None, levels)
    labelled = checked_labels(torch.from_numpy(y.astype("int64")), data)
    names, numbers = labelled.unique(return_inverse=True)
    return ArrayData(data, numbers, levels, [str(name) for name in names.tolist()])


def _load(
    path: Path, key: str | None, labels: str | None
) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The array and its labels, as they are stored."""
    import numpy as np

    hint = "is it damaged, or does it hold Python objects, which need pickle?"
    with path.open("rb") as stream:  # np.load leaves a damaged .npz open
        with _reading(path, hint):
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
        with _reading(path, hint):  # a member that is no array comes as bytes, hence asarray
            y = None if labels is None else np.asarray(loaded[labels])
            return np.asarray(loaded[key]), y


@contextmanager
def _reading(file: Path, hint: str) -> Iterator[None]:
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

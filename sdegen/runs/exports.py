"""Samples as other programs read them: a folder of PNG files, or bytes in an .npz."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from sdegen.data import to_uint8
from sdegen.files import atomic


def save_png(x: Tensor, y: Tensor | None, numbers: Sequence[int], folder: Path) -> None:
    """Images x (n, c, h, w) in [-1, 1] as png/00000000.png and so on, by the samples' numbers;
    files of others go."""
    from PIL import Image

    place = folder / "png"
    place.mkdir(exist_ok=True)
    for old in {path.name for path in place.glob("*.png")} - {f"{i:08}.png" for i in numbers}:
        (place / old).unlink()
    for i, image in zip(numbers, to_uint8(x).permute(0, 2, 3, 1).numpy(), strict=True):
        bytes_of = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(bytes_of, "PNG")
        with atomic(place / f"{i:08}.png") as part:
            part.write_bytes(bytes_of.getvalue())


def save_npz(x: Tensor, y: Tensor | None, numbers: Sequence[int], folder: Path) -> None:
    """Images x (n, c, h, w) in [-1, 1] as bytes (n, h, w, c), and labels y (n,) where there are
    some: arr_0 and arr_1 of samples.npz, as evaluators of the field read them."""
    import numpy as np

    arrays = [to_uint8(x).permute(0, 2, 3, 1).numpy(), *([] if y is None else [y.numpy()])]
    with atomic(folder / "samples.npz") as part:
        np.savez(part, *arrays)


EXPORTS: dict[str, Callable[[Tensor, Tensor | None, Sequence[int], Path], None]] = {
    "npz": save_npz,
    "png": save_png,
}
"""By the name that a configuration has for them."""


def refuse_export(names: list[str], shape: list[int]) -> None:
    """ValueError where samples of a shape cannot be written as these."""
    if names and not (len(shape) == 3 and shape[0] in (1, 3)):
        raise ValueError(
            f"formats={names} are for images of 1 or 3 channels, but samples of this run have "
            f"the shape {tuple(shape)}: leave formats out."
        )

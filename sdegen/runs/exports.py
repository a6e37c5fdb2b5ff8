"""Samples as other programs read them: PNG files, bytes in an .npz, clips as an animation."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from sdegen.data import to_uint8
from sdegen.files import atomic


def save_png(x: Tensor, y: Tensor | None, numbers: Sequence[int], folder: Path) -> None:
    """Of images x (n, c, h, w) in [-1, 1] those of these numbers, as png/00000000.png and so on;
    files of others go."""
    from PIL import Image

    place = folder / "png"
    place.mkdir(exist_ok=True)
    for old in {path.name for path in place.glob("*.png")} - {f"{i:08}.png" for i in numbers}:
        (place / old).unlink()
    for i in numbers:
        image = pixels(x[i : i + 1])[0].numpy()
        bytes_of = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(bytes_of, "PNG")
        with atomic(place / f"{i:08}.png") as part:
            part.write_bytes(bytes_of.getvalue())


def save_npz(x: Tensor, y: Tensor | None, numbers: Sequence[int], folder: Path) -> None:
    """Of images x (n, c, h, w) in [-1, 1] those of these numbers as bytes (m, h, w, c), and of
    labels y (n,) where there are some: arr_0 and arr_1 of samples.npz, as evaluators of the field
    read them. A thousand at a time are in the memory."""
    import numpy as np

    shape = (len(numbers), *x.shape[2:], x.shape[1])
    kind = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with atomic(folder / "samples.npz") as part, zipfile.ZipFile(part, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, kind)
            for some in batched(numbers, 1000):
                file.write(pixels(x[some]).contiguous().numpy().tobytes())
        if y is not None:
            with archive.open("arr_1.npy", "w") as file:
                np.save(file, y[list(numbers)].numpy())


def pixels(x: Tensor) -> Tensor:
    """Images x (n, c, h, w) in [-1, 1] as bytes (n, h, w, c)."""
    return to_uint8(x).permute(0, 2, 3, 1)


def batched(numbers: Sequence[int], size: int) -> Iterator[list[int]]:
    """So many at a time."""
    for first in range(0, len(numbers), size):
        yield list(numbers[first : first + size])


def save_gif(x: Tensor, y: Tensor | None, numbers: Sequence[int], folder: Path) -> None:
    """Of clips x (n, c, f, h, w) in [-1, 1] the first hundred of these numbers side by side, four
    times as large, as samples.gif, of five frames a second; no file where there are none."""
    from PIL import Image

    some = x[list(numbers)[:100]]
    if not len(some):
        return
    shots = [Image.fromarray(tiled(each).numpy()) for each in some.unbind(2)]
    bytes_of = io.BytesIO()
    more = {"append_images": shots[1:], "duration": 200, "loop": 0}
    shots[0].save(bytes_of, "GIF", save_all=True, **more)
    with atomic(folder / "samples.gif") as part:
        part.write_bytes(bytes_of.getvalue())


def tiled(x: Tensor, scale: int = 4) -> Tensor:
    """Images x (n, c, h, w) in [-1, 1] as one of bytes (H, W, 3), in about a square."""
    columns = math.ceil(math.sqrt(len(x)))
    cells = F.pad(x.float(), (1, 1, 1, 1)).expand(-1, 3, -1, -1)  # grey lines between
    left = cells.new_zeros(-len(x) % columns, *cells.shape[1:])
    rows = torch.cat([cells, left]).unflatten(0, (-1, columns))  # (rows, columns, 3, h, w)
    sheet = rows.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
    large = sheet.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    return pixels(large[None])[0].contiguous()


EXPORTS: dict[str, Callable[[Tensor, Tensor | None, Sequence[int], Path], None]] = {
    "gif": save_gif,
    "npz": save_npz,
    "png": save_png,
}
"""By the name that a configuration has for them."""


def refuse_export(names: list[str], shape: list[int]) -> None:
    """ValueError where samples of a shape cannot be written as these."""
    for name in names:
        kind, dims = ("clips", 4) if name == "gif" else ("images", 3)
        if len(shape) != dims or shape[0] not in (1, 3):
            raise ValueError(
                f"formats=[{name}] are for {kind} of 1 or 3 channels, but samples of this run "
                f"have the shape {tuple(shape)}: leave it out."
            )

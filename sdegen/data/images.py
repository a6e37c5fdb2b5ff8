"""Images in files, decoded one by one when they are asked for."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdegen.checks import flag, one_of, warn, whole
from sdegen.data.arrays import from_uint8
from sdegen.data.files import reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")

CROPS = {"centre": False, "random": True}
"""Which square of an image is taken, and whether it is drawn."""

LEAST = 0.8
"""A drawn square's least side, in units of an image's shorter one."""

Colour = str | int | Sequence[int] | None
"""A name that Pillow knows, a grey level or (red, green, blue) from 0 to 255; None for none."""


class ImageFiles(Dataset[tuple[Tensor, Tensor]], ABC):
    """Images (channels, size, size) in [-1, 1] with labels, decoded when asked for.

    An image is laid on the ``background`` where it is transparent, cropped to a square, resized
    with Lanczos' filter, and made RGB or grey; its EXIF orientation is followed, and of several
    frames or pages the first is taken.

    background: a pixel of colour c and opacity a becomes a c + (1 - a) background, before
        anything is resized; None: c itself, whatever a hides.
    flip: of left and right, with probability 1/2.
    crop: "centre", the largest square in the middle; "random", a square of 0.8 to 1 of its side,
        at any place in the image, as Dhariwal and Nichol (2021) do it.

    What is drawn comes from torch's generator: in training, from (seed, item, epoch), see
    ``SeededItems``. ``plain`` is the same data with nothing drawn, which is what is measured.

    A file that is damaged, or grey with more than 8 bits, is left out when it is found, a warning
    names it, and the next one that can be read stands in its place.

    Raises ValueError where channels is not 1 or 3, size < 1, or background or crop is unknown; and
    on reading, where no image can be read.
    """

    files: Sequence[Any]
    """What each image is read from."""
    y: Tensor
    """Labels (n,)."""
    classes: int
    names: tuple[str, ...]
    captions: tuple[str, ...]

    def __init__(
        self,
        size: int,
        channels: int = 3,
        background: Colour = "white",
        flip: bool = False,
        crop: str = "centre",
    ) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels = {channels}, but it must be 1 (grey) or 3 (RGB)")
        whole("size", size)
        self.shape: tuple[int, ...] = (channels, size, size)
        self.background = None if background is None else _colour(background)
        self.flip, self.crop = flag("flip", flip), one_of(crop, "crop", CROPS)
        self.levels, self.left_out = 256, set[int]()

    @abstractmethod
    def opened(self, file: Any) -> Any:
        """What Pillow opens for one of ``files``: a path, or a stream of its bytes."""

    @abstractmethod
    def place(self) -> str:
        """Where the images are, for an error."""

    @property
    def plain(self) -> ImageFiles:
        """The same images, each always the same: not flipped, the middle of them."""
        again = copy.copy(self)
        again.flip = again.crop = False
        return again

    def part(self, picks: Tensor) -> ImageFiles:
        """Those at ``picks``; a damaged one is replaced by one of these."""
        some = copy.copy(self)
        at = picks.tolist()
        some.files, some.y, some.left_out = [self.files[i] for i in at], self.y[picks], set()
        some.captions = tuple(self.captions[i] for i in at) if self.captions else ()
        return some

    def __len__(self) -> int:
        return len(self.files)

    def shown(self, i: int) -> int:
        """Which image is item i: itself, or the one that stands in its place, as far as damaged
        ones were found; ValueError where none is left."""
        first = range(len(self))[i]
        for j in chain(range(first, len(self)), range(first)):
            if j not in self.left_out:
                return j
        raise ValueError(f"no image {self.place()} can be read")

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        while True:
            j = self.shown(i)
            try:
                return self._read(self.files[j]), self.y[j]
            except ValueError as error:
                self.left_out.add(j)
                warn(f"{error}. It is left out, and the next image stands in its place.")

    def _read(self, file: Any) -> Tensor:
        """An image as a tensor of this shape."""
        import numpy as np
        from PIL import Image, ImageOps

        channels, size, _ = self.shape
        with reading(file, "is it damaged?"):
            stream = self.opened(file)
        image = decoded(stream, file, self.background, "L" if channels == 1 else "RGB")
        w, h = image.size
        # All are drawn whatever is wanted, so that the one does not move what the other draws.
        scale, across, down, turn = torch.rand(4).tolist() if self.flip or self.crop else [0.0] * 4
        side, left, top = min(w, h), (w - min(w, h)) // 2, (h - min(w, h)) // 2
        if self.crop:
            side = max(1, round(side * (LEAST + (1 - LEAST) * scale)))
            left, top = int(across * (w - side + 1)), int(down * (h - side + 1))
        square = image.crop((left, top, left + side, top + side))
        square = square.resize((size, size), Image.Resampling.LANCZOS)
        if self.flip and turn < 0.5:
            square = ImageOps.mirror(square)
        pixels = torch.from_numpy(np.array(square)).reshape(size, size, channels)
        return from_uint8(pixels.permute(2, 0, 1))


def _colour(background: str | int | Sequence[int]) -> tuple[int, ...]:
    """Red, green and blue of a colour, refused unless it is one."""
    from PIL import ImageColor

    colour: Any = background
    if isinstance(colour, str):
        try:
            return ImageColor.getrgb(colour)[:3]
        except ValueError:
            colour = None
    levels = [colour] * 3 if isinstance(colour, int) else colour
    if (
        not isinstance(levels, Sequence)
        or len(levels) != 3
        or not all(type(each) is int and 0 <= each <= 255 for each in levels)
    ):
        raise ValueError(
            f"background = {background!r}, but it must be a colour, as white or '#202020', a grey "
            "level or [red, green, blue] from 0 to 255, or null for none"
        )
    return tuple(levels)


def decoded(stream: Any, file: Any, background: tuple[int, ...] | None, mode: str) -> Any:
    """An image, of a path or a stream of bytes, as an image of a mode, on a background where it is
    transparent; ``file`` is what errors call it."""
    from PIL import ImageOps

    with reading(file, "is it damaged?"), known(stream) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith(("I", "F")):
        # Pillow would clip these to 255, which leaves most pixels white.
        raise ValueError(
            f"{str(file)!r} is grey with more than 8 bits (mode {image.mode}): convert it to 8"
        )
    if background is not None and image.has_transparency_data:
        return _on(image.convert("RGBA"), background).convert(mode)
    if image.mode == "P":  # straight to RGB, Pillow warns of a palette's transparency
        image = image.convert("RGBA")
    return image.convert(mode)


def known(stream: Any) -> Any:
    """An image of a path or a stream, opened; ValueError for what is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(stream)
    except UnidentifiedImageError:  # whose own words are the address of a stream
        raise ValueError("it is no image that Pillow knows") from None


def _on(image: Any, background: tuple[int, ...]) -> Any:
    """An RGBA image laid on a colour: a c + (1 - a) background, to the nearest level."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image, np.float32)
    c, a = pixels[..., :3], pixels[..., 3:] / 255
    laid = a * c + (1 - a) * np.asarray(background, np.float32)
    return Image.fromarray(laid.round().astype(np.uint8))

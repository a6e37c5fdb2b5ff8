"""A letter, drawn as handwritten digits are scanned: a class more for a model of digits."""

from __future__ import annotations

import torch

from sdegen.checks import text, whole
from sdegen.data.arrays import ArrayData

SIDE = 64
"""Pixels of the page that a letter is drawn on, eight to one of the picture."""
LEVELS = 17
"""Values of ``digits``."""


def letters(n: int = 5, letter: str = "W", seed: int = 0, label: int = 10) -> ArrayData:
    """A letter n times, 1 x 8 x 8 in [-1, 1] of the digits' 17 values, each somewhat turned and
    moved, all of one class: the digits' ten have the numbers and names before it.

    ValueError for n below 1, more or less than one letter, and a label below 10, whose names would
    be the digits'.
    """
    from PIL import Image, ImageDraw, ImageFont

    whole("n", n), whole("label", label, 10)
    if len(text("letter", letter)) != 1:
        raise ValueError(f"letter is one letter, but it is {letter!r}.")
    draws, found = torch.Generator().manual_seed(seed), []
    font = ImageFont.load_default(52)
    for turn, right, down in (torch.rand(n, 3, generator=draws) * 2 - 1).tolist():
        page = Image.new("L", (SIDE, SIDE))
        where = (SIDE / 2 + 4 * right, SIDE / 2 + 4 * down)
        ImageDraw.Draw(page).text(where, letter, 255, font, anchor="mm", stroke_width=2)
        page = page.rotate(12 * turn, Image.Resampling.BICUBIC)
        pixels = torch.frombuffer(bytearray(page.tobytes()), dtype=torch.uint8).float()
        small = pixels.reshape(1, 8, 8, 8, 8).mean((2, 4)) / 255
        found.append((small * (LEVELS - 1)).round() / (LEVELS - 1) * 2 - 1)
    names = [*map(str, range(label)), letter]
    return ArrayData(torch.stack(found), torch.full((n,), label), LEVELS, names)

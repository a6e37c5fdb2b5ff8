"""Markup and its pictures: strings of glyphs, some of them raised or lowered, drawn and read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

from sdegen.checks import listed, tensor, whole
from sdegen.data.arrays import ArrayData, from_uint8

GLYPHS = "0123456789abcxyz+"
MARKS = {"": (11, 8), "^": (8, 4), "_": (8, 12)}
"""What stands before a glyph, and with it the glyph's size and the height of its middle."""
TOKENS = GLYPHS + "^_"
MOST, HIGH, WIDE = 4, 16, 8
"""Glyphs of a string at most, and pixels of a glyph's cell."""


def markup(n: int = 20_000, seed: int = 0) -> ArrayData:
    """n strings of 3 or 4 glyphs, drawn 1 x 16 x 32 in [-1, 1], white on black; captions: the
    strings, as "x^2+y".

    Each glyph is one of ``GLYPHS``, as it is, raised by "^" or lowered by "_", half of them as
    they are: some 1.2 million strings, so that those of another seed are hardly ever among them.
    """
    generator = torch.Generator().manual_seed(seed)
    glyphs = torch.randint(len(GLYPHS), (whole("n", n), MOST), generator=generator)
    marks = torch.tensor([0.5, 0.25, 0.25]).multinomial(n * MOST, True, generator=generator)
    long = torch.randint(3, MOST + 1, (n,), generator=generator)
    signs, each = list(MARKS), zip(glyphs.tolist(), marks.reshape(n, MOST).tolist(), long.tolist(),
                                   strict=True)  # fmt: skip
    captions = [
        "".join(signs[m] + GLYPHS[g] for g, m in zip(gs[:k], ms[:k], strict=True))
        for gs, ms, k in each
    ]
    return ArrayData(drawn_markup(captions), levels=256, captions=captions)


def markup_tokens(captions: Sequence[str]) -> Tensor:
    """Strings as int64 (n, 2 MOST): token k of ``TOKENS`` is k + 1, and 0 where there is none.

    Raises ValueError for a string of other signs, and one that is too long.
    """
    ids = torch.zeros(len(captions), 2 * MOST, dtype=torch.int64)
    for row, caption in zip(ids, listed("Strings of markup", captions), strict=True):
        list(parsed(caption))  # refuses what is none
        row[: len(caption)] = torch.tensor([TOKENS.index(sign) + 1 for sign in caption])
    return ids


def parsed(caption: str) -> list[tuple[str, str]]:
    """The glyphs of a string, each with its mark; ValueError for what is none."""
    found, mark = list[tuple[str, str]](), ""
    for sign in caption:
        if not mark and sign in MARKS:
            mark = sign
        elif sign in GLYPHS:
            found.append((mark, sign))
            mark = ""
        else:
            raise ValueError(
                f"{caption!r} is no markup: after {mark or 'a glyph'} comes {sign!r}."
            )
    if mark or not 1 <= len(found) <= MOST:
        raise ValueError(f"Markup is 1 to {MOST} glyphs, each after its mark, not {caption!r}.")
    return found


def drawn_markup(captions: Sequence[str]) -> Tensor:
    """Strings as pictures (n, 1, 16, 32) in [-1, 1]; ValueError for what is no markup."""
    names, cells = templates()
    at = torch.full((len(captions), MOST), len(names))
    for row, caption in zip(at, listed("Strings of markup", captions), strict=True):
        for k, glyph in enumerate(parsed(caption)):
            row[k] = names.index(glyph)
    return cells[at].movedim(1, 2).flatten(2)[:, None]


def read_markup(x: Tensor) -> list[str]:
    """What pictures (n, 1, 16, 32) say: of each cell the nearest glyph, or that there is none, as
    in one that is not finite.

    Of ``drawn_markup`` it is the inverse. Raises ValueError for pictures of another shape.
    """
    if tensor("A picture", x).shape[1:] != (1, HIGH, MOST * WIDE):
        raise ValueError(f"Markup's pictures are (n, 1, 16, 32), but these are {tuple(x.shape)}.")
    names, cells = templates()
    parts = x[:, 0].unflatten(2, (MOST, WIDE)).movedim(2, 1).reshape(-1, HIGH * WIDE)
    parts = parts.cpu().float()
    nearest = torch.cdist(parts, cells.flatten(1)).argmin(1)
    nearest[~parts.isfinite().all(1)] = len(names)
    signs = ["".join(names[k]) if k < len(names) else "" for k in nearest.tolist()]
    return ["".join(signs[k : k + MOST]) for k in range(0, len(signs), MOST)]


@lru_cache
def templates() -> tuple[list[tuple[str, str]], Tensor]:
    """Every glyph with its mark, and their cells (k + 1, 16, 8), the last one empty; by the font
    that comes with Pillow."""
    from PIL import Image, ImageDraw, ImageFont

    names, cells = list(product(MARKS, GLYPHS)), list[Tensor]()
    for mark, glyph in names:
        size, middle = MARKS[mark]
        image = Image.new("L", (WIDE, HIGH))
        place = (WIDE / 2, middle)
        font = ImageFont.load_default(size)
        ImageDraw.Draw(image).text(place, glyph, fill=255, font=font, anchor="mm")
        cells.append(torch.tensor(list(image.tobytes()), dtype=torch.uint8).reshape(HIGH, WIDE))
    return names, from_uint8(torch.stack([*cells, torch.zeros_like(cells[0])]))

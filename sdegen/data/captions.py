"""Captions of data: their words, numbers for these, and digits whose captions say all there is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from sdegen.checks import listed, whole
from sdegen.data.arrays import ArrayData
from sdegen.data.bundled import digits


def words_in(caption: str) -> list[str]:
    """The words of a caption, in small letters: runs of letters, digits and apostrophes."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", caption.lower())


def vocabulary(captions: Sequence[str]) -> tuple[str, ...]:
    """All words of captions, sorted."""
    return tuple(sorted({word for caption in captions for word in words_in(caption)}))


def tokens(captions: Sequence[str], words: Sequence[str]) -> Tensor:
    """Captions as int64 (n, L), L the longest one's length: word k of ``words`` is k + 1, and 0
    stands where there is none, as ``padding_idx=0`` of torch's embeddings has it.

    Raises ValueError for a word that is not among ``words``.
    """
    number = {word: k + 1 for k, word in enumerate(words)}
    found = [words_in(caption) for caption in listed("Captions", captions)]
    unknown = next((word for each in found for word in each if word not in number), None)
    if unknown is not None:
        raise ValueError(f"The word {unknown!r} is not among the {len(number)} that are known.")
    ids = torch.zeros(len(found), max(map(len, found), default=0), dtype=torch.int64)
    for row, each in zip(ids, found, strict=True):
        row[: len(each)] = torch.tensor([number[word] for word in each], dtype=torch.int64)
    return ids


NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (1.0, 0.2, 0.2),
    "green": (0.2, 0.9, 0.2),
    "blue": (0.3, 0.4, 1.0),
    "yellow": (1.0, 0.9, 0.2),
}
"""Red, green and blue of a digit's ink, in [0, 1]."""
PLACES = {"top left": (0, 0), "top right": (0, 1), "bottom left": (1, 0), "bottom right": (1, 1)}
"""Row and column of a quarter of the picture."""
SIZES = {"small": 0.75, "large": 1.0}
"""Side of a digit, in units of a quarter's."""
HELD_OUT = 32
"""Combinations of digit, colour, place and size, of 320, that no picture of training has."""
EACH = 8
"""Pictures that a digit's image is in, each in another combination."""
SPLITS = ("train", "test", "novel")


def captioned_digits(split: str = "train", size: int = 16, seed: int = 0) -> ArrayData:
    """Handwritten digits in colour, somewhere on black, 3 x size x size in [-1, 1], labelled by
    digit, with a caption of each: "small red seven top left".

    The images are those of ``digits``, of its training or its test half, each in 8 pictures. Of
    the 320 combinations of 10 digits, 4 colours, 4 places and 2 sizes 32 are held out, drawn with
    the seed. split: "train", the other 288 with training images; "test", these with test images;
    "novel", the 32 with test images: combinations whose words are all known and that were never
    seen together.

    Raises ValueError for another split, and for a size that is odd or below 8.
    """
    if split not in SPLITS:
        raise ValueError(f"split = {split!r}, but it must be one of {', '.join(SPLITS)}")
    if whole("size", size, 8) % 2:
        raise ValueError(f"size = {size}, but it must be even, for four places of one size")
    images = digits("train" if split == "train" else "test", seed)
    every = list(product(range(10), COLOURS, PLACES, SIZES))
    generator = torch.Generator().manual_seed(seed)
    held = set(torch.randperm(len(every), generator=generator)[:HELD_OUT].tolist())
    mine = [each for k, each in enumerate(every) if (k in held) == (split == "novel")]
    of_digit = [[each for each in mine if each[0] == digit] for digit in range(10)]
    picked = list[tuple[int, str, str, str]]()
    at = list[int]()
    for i, digit in enumerate(images.y.tolist()):
        order = torch.randperm(len(of_digit[digit]), generator=generator).tolist()
        picked += [of_digit[digit][k] for k in order[:EACH]]
        at += [i] * min(EACH, len(order))
    x = drawn_as(picked, images.x[at], size)
    captions = [f"{large} {colour} {NUMBERS[k]} {place}" for k, colour, place, large in picked]
    return ArrayData(x, images.y[at], 0, NUMBERS, captions)


def drawn_as(picked: Sequence[tuple[int, str, str, str]], images: Tensor, size: int) -> Tensor:
    """Pictures (n, 3, size, size) of digits (n, 1, 8, 8), each in the middle of a quarter, on
    black, as the combination of its digit, colour, place and size says."""
    x = torch.full((len(picked), 3, size, size), -1.0)
    colour = torch.tensor([COLOURS[each[1]] for each in picked])[:, :, None, None]
    half = size // 2
    for (place, (row, column)), (large, share) in product(PLACES.items(), SIZES.items()):
        here = torch.tensor([each[2:] == (place, large) for each in picked])
        side = round(half * share)
        ink = F.interpolate((images[here] + 1) / 2, (side, side), mode="bilinear", antialias=True)
        top, left = (half * k + (half - side) // 2 for k in (row, column))
        place_in = x[here]
        place_in[..., top : top + side, left : left + side] += 2 * colour[here] * ink.clamp(0, 1)
        x[here] = place_in
    return x

"""Random numbers as a pure function of key and counter: SplitMix64, Steele et al. (2014)."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
MULTIPLIERS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
AT_ONCE = {"cpu": 2**17}
"""Pairs of normals that are made at once at most, on a device: every part has the price of its
kernels, which is the higher, the faster they are. Other devices: ``MANY_AT_ONCE``."""
MANY_AT_ONCE = 2**20


def normals(keys: Tensor, number: Tensor | int, x: Tensor) -> Tensor:
    """Standard normal draws like x (b, *), of streams (b, 1) and the number of a draw.

    Beside the draws it takes at most their memory again, and is the same however it is divided.
    """
    b, n = len(x), math.prod(x.shape[1:])
    m, limit = (n + 1) // 2, AT_ONCE.get(x.device.type, MANY_AT_ONCE)
    if x.element_size() < 4:  # made in 32 bits, they need four times their own memory
        limit = max(1, limit // 4)
    if b * m <= limit:
        z = torch.cat(pairs(keys, number, m, x.dtype), dim=1)
        return (z if n == 2 * m else z[:, :n]).view(x.shape).to(x.dtype)
    # On the way a pair takes the memory of 4, 2 or 1.5 of its kind, of 2, 4 or 8 bytes a number.
    size = b * m // max(1 + 8 // x.element_size(), b * m // limit)
    z = x.new_empty(b, n)
    own = isinstance(number, Tensor) and number.ndim > 0 and len(number) == b
    for rows, columns in blocks(b, m, max(1, size)):
        part = number[rows] if own else number  # type: ignore[index]
        made = pairs(keys[rows], part, columns.stop - columns.start, x.dtype, columns.start)
        for half, place in zip(made, (z[rows, :m], z[rows, m:]), strict=True):
            place = place[:, columns]  # of an odd number the last pair gives one
            place.copy_(half[:, : place.shape[1]])
        del made, half  # before the next is made
    return z.view(x.shape)


def blocks(b: int, m: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the parts of a table (b, m) that have at most so many places."""
    tall, wide = max(1, size // m), min(m, size)
    for i in range(0, b, tall):
        for j in range(0, m, wide):
            yield slice(i, i + tall), slice(j, min(j + wide, m))


def pairs(
    keys: Tensor, number: Tensor | int, n: int, dtype: torch.dtype, skip: int = 0
) -> tuple[Tensor, Tensor]:
    """n pairs of standard normal draws, 2 x (b, n), of streams (b, 1) and the number of a draw.

    skip: pairs before these that the draw has too.
    """
    b, start = len(keys), keys + number
    spare = torch.empty_like(start)
    start = stir(start, spare)
    step = stir(keys ^ start, spare).bitwise_or_(ONE)
    places = torch.arange(skip + 1, skip + n + 1, device=keys.device)
    bits = torch.addcmul(start, places, step)
    del start, step, spare, places  # where one block is all, the next line is the peak
    # Single precision is decided in single precision: the bits agree on every device, and
    # 32 bits of a uniform reach 6.7 standard deviations.
    real = torch.float64 if dtype == torch.float64 else torch.float32
    memory = bits.new_empty(real.itemsize // 4, b, n)
    words = stir(bits, memory[0]).view(torch.uint32).view(b, n, 2).unbind(2)
    radius, angle = memory.view(real).view(2, b, n).unbind()
    radius.copy_(words[UPPER]).add_(HALF).mul_(UNIT).log_().mul_(MINUS_TWO).sqrt_()
    angle.copy_(words[1 - UPPER]).mul_(TURN)
    del bits, words
    cos = torch.cos(angle)
    angle.sin_().mul_(radius)
    return radius.mul_(cos), angle


@lru_cache(maxsize=4096)
def placed(move: bytes) -> int:
    """The number (64 bits) of a move from t to s, from the bits of both: see ``move``."""
    first, last = struct.unpack("<2I", move)
    return splitmix(splitmix(first + GOLDEN) + last)


def move(t: np.ndarray, s: np.ndarray) -> bytes:
    """A move as the bits of its times, () or (b,), in single precision.

    Another processor's last bit of a time is the same move there, and the same noise.
    """
    return t.astype("<f4").tobytes() + s.astype("<f4").tobytes()


def placed_all(t: Tensor, s: Tensor, device: torch.device) -> Tensor:
    """``placed`` of every move, (b, 1) on a device, from times () or (b,)."""
    bits = (end.detach().to(device).float().contiguous().view(torch.int32) for end in (t, s))
    first, last = (each.long().bitwise_and_(2**32 - 1) for each in bits)
    return mix(mix(first + signed(GOLDEN)) + last).reshape(-1, 1)


def splitmix(z: int) -> int:
    """``mix`` of one number, as Python's integer from 0 to 2^64."""
    z %= 2**64
    for shift_by, factor in zip((30, 27), MULTIPLIERS, strict=True):
        z = (z ^ (z >> shift_by)) * factor % 2**64
    return z ^ (z >> 31)


def signed(n: int) -> int:
    """The 64-bit integer with n's lowest 64 bits."""
    return (n + 2**63) % 2**64 - 2**63


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser: every bit of the result depends on every bit of z (int64)."""
    return stir(z.clone(), torch.empty_like(z))


def stir(z: Tensor, spare: Tensor) -> Tensor:
    """``mix`` in place, with memory for as many numbers to spare."""
    for (k, mask), factor in zip(SHIFTS, FACTORS, strict=False):
        z.bitwise_xor_(shift(z, k, mask, spare)).mul_(factor)
    return z.bitwise_xor_(shift(z, *SHIFTS[2], spare))


def shift(z: Tensor, k: Tensor, mask: Tensor, out: Tensor) -> Tensor:
    """Logical right shift, into out: torch's own copies the sign bit, which the mask removes."""
    return torch.bitwise_right_shift(z, k, out=out).bitwise_and_(mask)


def constant(c: float) -> Tensor:
    """A number as a tensor () of the host, which a kernel anywhere takes as it is.

    Of a Python number torch makes such a tensor at each operation, which on a small state takes as
    long as the operation itself.
    """
    kind = torch.int64 if isinstance(c, int) else torch.float64
    return torch.tensor(c, dtype=kind, device="cpu")


SHIFTS = tuple((constant(k), constant((1 << (64 - k)) - 1)) for k in (30, 27, 31))
FACTORS = tuple(constant(signed(c)) for c in MULTIPLIERS)
ONE, HALF, MINUS_TWO = constant(1), constant(0.5), constant(-2.0)
UNIT, TURN = constant(2.0**-32), constant(2 * math.pi * 2.0**-32)
UPPER = int(sys.byteorder == "little")
"""The place of a 64-bit number's upper word in memory."""

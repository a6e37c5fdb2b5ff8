"""Messages: whole numbers as bytes, each at the length that its law asks for.

    state <- (state // freq) total + start + state mod freq

Range asymmetric numeral systems, Duda (2013), on one integer of any length: what is pushed last is
popped first, and nothing is rounded.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass, field
from functools import lru_cache

import torch

CLASSES = 40
"""Indices are below 2^40."""
TOTAL = 2**16
NAME = b"sdegen-2"
SEAL = struct.Struct("<8sI")
"""What a file begins with: the name, and a CRC-32 of all that follows."""


@dataclass
class Message:
    """Numbers on a stack, as one integer."""

    state: int = 1

    @classmethod
    def of(cls, data: bytes) -> Message:
        """Of its bytes."""
        return cls(int.from_bytes(data, "big"))

    def to_bytes(self) -> bytes:
        """As many as it takes."""
        return self.state.to_bytes((self.state.bit_length() + 7) // 8, "big")

    def push(self, start: int, freq: int, total: int) -> None:
        """A symbol that has the places [start, start + freq) of total."""
        whole, rest = divmod(self.state, freq)
        self.state = whole * total + start + rest

    def place(self, total: int) -> int:
        """Where the symbol to be popped is."""
        return self.state % total

    def take(self, total: int) -> int:
        """A symbol of total that are alike."""
        at = self.place(total)
        self.pop(at, 1, total)
        return at

    def pop(self, start: int, freq: int, total: int) -> None:
        """Undo the push of a symbol."""
        whole, rest = divmod(self.state, total)
        self.state = whole * freq + rest - start


@dataclass(frozen=True)
class Zipf:
    """Whole numbers k >= 1 with p(k) ~ k^-s,  s = 1 + 1 / (kl + log2(e) / e + 1).

    What the indices of a channel of kl bits are coded by: at most kl + log2(kl + 1) + 4 bits on
    average, Li & El Gamal (2018), theorem 1. A number is its class, floor(log2 k), by its share of
    p in whole parts of 2^16, and the bits after the first, all alike.
    """

    kl: float
    _edges: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_edges", edges(self.kl))

    def push(self, message: Message, k: int) -> float:
        """Write k; its length in bits."""
        c = k.bit_length() - 1
        start, freq = self._edges[c], self._edges[c + 1] - self._edges[c]
        message.push(k - 2**c, 1, 2**c)
        message.push(start, freq, TOTAL)
        return c + math.log2(TOTAL / freq)

    def pop(self, message: Message) -> int:
        """Read k."""
        at = message.place(TOTAL)
        c = next(c for c in range(CLASSES) if at < self._edges[c + 1])
        message.pop(self._edges[c], self._edges[c + 1] - self._edges[c], TOTAL)
        return 2**c + message.take(2**c)


@lru_cache(maxsize=1024)
def edges(kl: float) -> tuple[int, ...]:
    """Where each class of Zipf's numbers begins among TOTAL places: none is without one."""
    s = 1 + 1 / (kl + math.log2(math.e) / math.e + 1)
    first = torch.tensor([2.0**c for c in range(CLASSES + 1)], dtype=torch.float64)
    tail = torch.special.zeta(torch.tensor(s, dtype=torch.float64), first)  # sum of j^-s, j >= k
    share = (tail[0] - tail) / (tail[0] - tail[-1])
    inner = (share[1:-1] * (TOTAL - CLASSES)).round().long() + torch.arange(1, CLASSES)
    return (0, *inner.tolist(), TOTAL)


def sealed(body: bytes) -> bytes:
    """Bytes behind their name and CRC-32."""
    return SEAL.pack(NAME, zlib.crc32(body)) + body


def opened(data: bytes, least: int) -> bytes:
    """What ``sealed`` was given, of so many bytes at least; ValueError for bytes that are none of
    its, or were changed since."""
    if not isinstance(data, bytes) or not data.startswith(NAME):
        raise ValueError("These are no bytes of compressed(...).data: they begin otherwise.")
    body = data[SEAL.size :]
    if len(body) < least or SEAL.unpack_from(data)[1] != zlib.crc32(body):
        raise ValueError(
            f"These {len(data)} bytes are not as compressed(...) made them: they were cut, "
            "lengthened or changed, as their CRC-32 shows."
        )
    return body


def check_read(right: bool) -> None:
    """ValueError where numbers are read that cannot have been written."""
    if not right:
        raise ValueError(
            "This message cannot be read to its end: another version of sdegen or of torch made "
            "it, whose laws of numbers differ."
        )

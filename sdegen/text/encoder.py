"""The contract of a text encoder: captions in, tokens out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sdegen.text.readers import Reader

NO_TEXT = {"mask": False}
"""The null condition: without a token that counts a network attends to one that is learned.

It is what ``dropped`` puts in a caption's place, what ``CFG`` extrapolates from, and what the
empty caption is, whatever the encoder."""


class Encoder(Protocol):
    """Captions -> the conditions ``tokens`` and ``mask`` of a network.

    width:  e, of the vectors that the network is built for (``token_width``).
    words:  how many words it looks up itself; 0 where it is given vectors.
    most:   tokens of a caption, at most, as the network sees them.
    known:  what it took of the training captions, as JSON: settings that build it again without
            them.
    """

    @property
    def width(self) -> int: ...

    @property
    def words(self) -> int: ...

    @property
    def most(self) -> int: ...

    @property
    def known(self) -> dict[str, Any]: ...

    def learn(self, captions: Sequence[str]) -> Encoder:
        """The encoder of data with these captions, all of whose settings are known."""
        ...

    def reader(self) -> Reader | None:
        """A module that is trained and saved with the network and stands before it; None where
        the network takes the tokens as they are."""
        ...

    def __call__(self, captions: Sequence[str]) -> Mapping[str, Tensor]:
        """tokens (b, m, e) or int64 (b, m), and mask (b, m), True where a token is one; m is the
        same whatever the captions, so that one can stand in another's place.

        Of an empty caption no token is one. ValueError for a caption that cannot be told.
        """
        ...


def encoded(
    encoder: Encoder, captions: Sequence[str], batch: int = 64
) -> tuple[dict[str, Tensor], Tensor]:
    """Conditions of each distinct caption, encoded once, and which of them each caption has (n,).

    The encoder is asked for ``batch`` captions at a time.
    """
    number = {caption: k for k, caption in enumerate(dict.fromkeys(captions))}
    distinct = list(number)
    parts = [encoder(distinct[i : i + batch]) for i in range(0, len(distinct), batch)]
    told = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return told, torch.tensor([number[caption] for caption in captions])

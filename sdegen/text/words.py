"""Encoders whose words are learned with the model: a table of vectors, and a transformer.

A word that no training caption has is refused, by its name. The alternative, one number for all
such words, would have a vector that no training step has ever moved, and a typing error in a
prompt would be drawn as something else without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from sdegen.checks import listed, optional, whole
from sdegen.data.captions import tokens, vocabulary, words_in
from sdegen.text.readers import TransformerReader


@dataclass(frozen=True)
class Words:
    """The words of a caption in their order, each a vector that is learned with the network.

    width:      of the vectors.
    vocabulary: the words that are known, in the order of their numbers 1, 2, ...; None for those
                of the training captions.
    length:     words of a caption, at most; None for the longest training caption's.
    """

    width: int = 64
    vocabulary: Sequence[str] | None = None
    length: int | None = None

    def __post_init__(self) -> None:
        whole("text.width", self.width)
        check_words(self.vocabulary, self.length)

    @property
    def words(self) -> int:
        """How many there are."""
        return len(self.vocabulary or ())

    @property
    def most(self) -> int:
        """As many as words."""
        return self.length or 1

    @property
    def known(self) -> dict[str, Any]:
        """Vocabulary and length."""
        return {"vocabulary": list(self.vocabulary or ()), "length": self.length}

    def learn(self, captions: Sequence[str]) -> Words:
        """With the words of captions, and the longest one's length, where these are open."""
        words, length = vocabulary_of(self.vocabulary, self.length, captions)
        return replace(self, vocabulary=words, length=length)

    def reader(self) -> None:
        """None: the network has the table."""

    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """tokens int64 (b, length), mask (b, length); ValueError for a word that is not known and
        for more words than ``length``."""
        return numbers(captions, self.vocabulary or (), self.most)


@dataclass(frozen=True)
class WordTransformer:
    """Words that know of each other: a small transformer over them, learned with the network.

    vocabulary and length as of ``Words``, width of its tokens, layers and heads as of
    ``TransformerReader``. The network sees a summary of the caption before its words.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    vocabulary: Sequence[str] | None = None
    length: int | None = None
    words: ClassVar[int] = 0

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads"):
            whole(f"text.{name}", getattr(self, name))
        check_words(self.vocabulary, self.length)

    @property
    def most(self) -> int:
        """The summary, and as many as words."""
        return 1 + (self.length or 1)

    @property
    def known(self) -> dict[str, Any]:
        """Vocabulary and length."""
        return {"vocabulary": list(self.vocabulary or ()), "length": self.length}

    def learn(self, captions: Sequence[str]) -> WordTransformer:
        """With the words of captions, and the longest one's length, where these are open."""
        words, length = vocabulary_of(self.vocabulary, self.length, captions)
        return replace(self, vocabulary=words, length=length)

    def reader(self) -> TransformerReader:
        """The transformer."""
        words, length = len(self.vocabulary or ()), self.length or 1
        return TransformerReader(self.width, words, length, self.layers, self.heads)

    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """tokens int64 (b, length), mask (b, length), refused as ``Words`` does."""
        return numbers(captions, self.vocabulary or (), self.length or 1)


def check_words(vocabulary: Sequence[str] | None, length: int | None) -> None:
    """ValueError for a vocabulary that is no list of texts, as one text, whose letters it would
    be, and for a length that is no number of words."""
    optional(whole, "text.length", length)
    if vocabulary is not None:
        listed("Words of text.vocabulary", vocabulary)


def vocabulary_of(
    words: Sequence[str] | None, length: int | None, captions: Sequence[str]
) -> tuple[tuple[str, ...], int]:
    """Vocabulary and length, of captions where they are open; ValueError for captions that none
    of the known words fit."""
    words = vocabulary(captions) if words is None else tuple(words)
    if not words:
        raise ValueError("There are no words to learn: no caption of the data has one.")
    if len(set(words)) < len(words) or any(words_in(word) != [word] for word in words):
        raise ValueError(
            "text.vocabulary is of different words, each in small letters and without spaces."
        )
    longest = max(len(words_in(caption)) for caption in captions)
    return words, longest if length is None else length


def numbers(captions: Sequence[str], words: Sequence[str], length: int) -> dict[str, Tensor]:
    """Captions as numbers of words (b, length), and where there is one."""
    for caption in listed("Captions", captions):
        if (n := len(words_in(caption))) > length:
            raise ValueError(
                f"The caption {caption!r} has {n} words, but {length} are the most: shorten it."
            )
    found = tokens(captions, words)
    ids = torch.zeros(len(captions), length, dtype=torch.int64)
    ids[:, : found.shape[1]] = found
    return {"tokens": ids, "mask": ids != 0}

"""Which words of one caption are which of another, as matrices over the columns of their maps.

Column j of a map is word j of the caption, in the order of ``sdegen.data.captions.words_in``;
``before`` tokens may stand before the first, as a summary does. All are of a leading axis of 1,
for every sample alike: ``torch.cat`` makes one of several, a row for each sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sdegen.checks import nearest, number, whole
from sdegen.data.captions import words_in


def replacement(caption: str, edited: str, before: int = 0) -> Tensor:
    """W (1, n, n) of two captions of n words each: word j stands where word j was.

    Hertz et al. (2022), section 3.2, word swap. ValueError for captions of unequal length.
    """
    one, two = words_of(caption), words_of(edited)
    if len(one) != len(two):
        raise ValueError(
            f"{caption!r} has {len(one)} words and {edited!r} has {len(two)}: words are replaced "
            "one by one, so say it in as many, or take refinement, which finds those that stay."
        )
    return torch.eye(whole("before", before, 0) + len(one))[None]


def refinement(caption: str, edited: str, before: int = 0) -> Tensor:
    """W (1, n, m) of captions of n and m words: W_ij = 1 where word j is word i, kept.

    The words that are kept are a longest common subsequence; the column of a new one is zero.
    Hertz et al. (2022), section 3.2, adding a new phrase. ValueError where no word is kept.
    """
    one, two = words_of(caption), words_of(edited)
    kept = common(one, two)
    if not kept:
        raise ValueError(f"No word of {caption!r} is in {edited!r}: there is nothing to keep.")
    W = torch.zeros(len(one), len(two))
    for i, j in kept:
        W[i, j] = 1
    return beside(W, whole("before", before, 0))[None]


def reweighting(caption: str, weights: Mapping[str, float], before: int = 0) -> Tensor:
    """c (1, n) of a caption of n words: the weights of those that are named, 1 of others.

    Hertz et al. (2022), section 3.2, attention re-weighting. ValueError for a word that the
    caption has not, and a weight that is no finite number.
    """
    words, c = words_of(caption), torch.ones(whole("before", before, 0) + len(words_of(caption)))
    for word, weight in weights.items():
        c[places(words, word, caption, before)] = number(f"The weight of {word!r}", weight)
    return c[None]


def marking(caption: str, chosen: str, before: int = 0) -> Tensor:
    """Booleans (1, n) of a caption of n words, true of the chosen ones.

    ValueError for a word that the caption has not, and for none.
    """
    words = words_of(caption)
    c = torch.zeros(whole("before", before, 0) + len(words), dtype=torch.bool)
    for word in words_of(chosen):
        c[places(words, word, caption, before)] = True
    return c[None]


def words_of(caption: str) -> list[str]:
    """The words of a caption; ValueError for one without any."""
    words = words_in(caption)
    if not words:
        raise ValueError(f"A caption has words, but this one is {caption!r}.")
    return words


def places(words: Sequence[str], word: str, caption: str, before: int) -> list[int]:
    """The columns of a word; ValueError where there is none."""
    found = [before + j for j, each in enumerate(words) if each == word.lower()]
    if not found:
        hint = nearest(word, words)
        raise ValueError(f"The word {word!r} is not in {caption!r}{f': {hint}' if hint else '.'}")
    return found


def common(one: Sequence[str], two: Sequence[str]) -> list[tuple[int, int]]:
    """Places (i, j) of a longest common subsequence of words, from their beginning on."""
    n, m = len(one), len(two)
    longest = [[0] * (m + 1) for _ in range(n + 1)]  # of one[i:] and two[j:]
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            same = 1 + longest[i + 1][j + 1] if one[i] == two[j] else 0
            longest[i][j] = max(same, longest[i + 1][j], longest[i][j + 1])
    kept, i, j = list[tuple[int, int]](), 0, 0
    while i < n and j < m:
        if one[i] == two[j]:  # taking it is never worse
            kept.append((i, j))
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    return kept


def beside(W: Tensor, before: int) -> Tensor:
    """The same behind so many tokens, which are kept."""
    W = F.pad(W, (before, 0, before, 0))
    W[:before, :before] = torch.eye(before)
    return W

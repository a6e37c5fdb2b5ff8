"""Several data sets as one, in given shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from sdegen.checks import whole
from sdegen.data.classes import plain


class Mixed(Dataset[Any]):
    """Items of several data sets in turn: ``shares[k]`` of the k-th in every round.

    A round is shares[0] items of the first set, then shares[1] of the second, and so on; a set
    that is at its end begins again, and there are as many rounds as show each item once at least.
    So the mean of a loss over all is sum_k shares[k] loss_k / sum_k shares[k]: of a few instances
    and samples that a model made itself it is DreamBooth's, with a prior's weight of shares[1] /
    shares[0].  Ruiz et al. (2023), eq. 2.

    ValueError for sets that do not say what they are, of different shapes, numbers of values or
    names of classes, some with classes and some without, one without items that has a share, and
    for shares that are not whole numbers, one for each set, of which one is above 0.
    """

    def __init__(self, sets: Sequence[Any], shares: Sequence[int]) -> None:
        if not sets or len(shares) != len(sets) or not any(shares):
            raise ValueError(
                f"There are {len(sets)} data sets and shares = {list(shares)}: give each set one, "
                "and one above 0."
            )
        for share in shares:
            whole("A share", share, 0)
        for each in sets:
            for name in ("shape", "classes", "levels"):
                if not hasattr(each, name):
                    raise ValueError(
                        f"A data set that is mixed says its {name}, but {type(each).__name__} "
                        "does not: make it an ArrayData, or give it one."
                    )
        shapes = {tuple(each.shape) for each in sets}
        if len(shapes) > 1:
            raise ValueError(f"Data sets of the shapes {sorted(shapes)} cannot be mixed.")
        for each, share in zip(sets, shares, strict=True):
            if share and not len(each):
                raise ValueError(f"A data set without items has a share of {share}.")
        known = {bool(each.classes) for each, share in zip(sets, shares, strict=True) if share}
        if len(known) > 1:
            raise ValueError(
                "Data sets with classes and without cannot be mixed: the items of these would be "
                "of class 0. Give all of them labels, or none."
            )
        if len(levels := {each.levels for each in sets}) > 1:
            raise ValueError(f"Data sets of {sorted(levels)} values cannot be mixed.")
        names = [tuple(getattr(each, "names", ())) for each in sets]
        longest = max(names, key=len)
        if any(each != longest[: len(each)] for each in names):
            raise ValueError(f"Data sets whose classes are {names} cannot be mixed.")
        self.sets, self.shares, self.shape = tuple(sets), tuple(shares), shapes.pop()
        self.classes = max(each.classes for each in sets)
        self.levels, self.names = levels.pop(), longest
        # In a round, which set an item is of, and the how many-th of these.
        self.round = [(k, i) for k, share in enumerate(shares) for i in range(share)]
        rounds = max(-(-len(each) // n) for each, n in zip(sets, shares, strict=True) if n)
        self.length = rounds * len(self.round)

    @property
    def plain(self) -> Mixed:
        """The same items, each always the same."""
        return Mixed([plain(each) for each in self.sets], self.shares)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> Any:
        if not 0 <= i < self.length:
            raise IndexError(f"There is no item {i} of {self.length}.")
        turn, place = divmod(i, len(self.round))
        k, nth = self.round[place]
        return self.sets[k][(turn * self.shares[k] + nth) % len(self.sets[k])]

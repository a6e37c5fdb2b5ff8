"""Parts of a data set: what is held out of training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdegen.checks import number
from sdegen.data.arrays import ArrayData
from sdegen.data.classes import plain, stratified
from sdegen.data.folders import ImageFolder


class Part(Dataset[Any]):
    """The items of a data set at ``picks``, with what it says of all: shape, classes, names,
    levels, and the labels ``y`` of these where it has them."""

    def __init__(self, data: Any, picks: Tensor) -> None:
        self.data, self.picks = data, picks
        self.shape, self.classes = data.shape, data.classes
        self.levels, self.names = getattr(data, "levels", 0), tuple(getattr(data, "names", ()))
        if hasattr(data, "y"):
            self.y = torch.as_tensor(data.y).cpu()[picks]

    @property
    def plain(self) -> Part:
        """The same items, each always the same."""
        return Part(plain(self.data), self.picks)

    def __len__(self) -> int:
        return len(self.picks)

    def __getitem__(self, i: int) -> Any:
        return self.data[int(self.picks[i])]


def part(data: Any, picks: Tensor) -> Any:
    """The items of a data set at ``picks``, as a data set of its kind."""
    if isinstance(data, ArrayData):
        some: Any = copy.copy(data)
        some.x, some.y = data.x[picks], data.y[picks]
        return some
    if isinstance(data, ImageFolder):  # so that a damaged image is replaced by one of the part
        some = copy.copy(data)
        some.files, some.y = [data.files[i] for i in picks.tolist()], data.y[picks]
        some.left_out = set()
        return some
    return Part(data, picks)


def hold_out(data: Any, share: float = 0.1, seed: int = 0) -> tuple[Any, Any]:
    """A data set in two: what is trained on, and ``share`` of it that is held out.

    A draw by the seed and the number and labels of the data alone, the same whenever it is made.
    Held out are the first share n data in the order of ``stratified``, to the nearest whole
    number and at least one: of each class its share, to within one, and never all of a class
    while share < 1/2. They keep this order, and are ``plain``.

    Raises ValueError unless 0 < share < 1, and for a single item.
    """
    if not 0 < number("share", share) < 1:
        raise ValueError(f"share must lie between 0 and 1, but it is {share!r}.")
    n = len(data)
    if n < 2:
        raise ValueError("A single item cannot be trained on and held out.")
    y = torch.as_tensor(data.y).cpu() if hasattr(data, "y") else torch.zeros(n, dtype=torch.int64)
    order, k = stratified(y, seed), min(max(1, round(share * n)), n - 1)
    return part(data, order[k:].sort().values), plain(part(data, order[:k]))

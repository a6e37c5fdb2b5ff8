"""Parts of a data set: what is held out of training."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdegen.checks import number
from sdegen.data.arrays import ArrayData
from sdegen.data.classes import captions_at, drawn, known_labels, plain
from sdegen.data.images import ImageFiles
from sdegen.data.mixed import Mixed


class Part(Dataset[Any]):
    """The items of a data set at ``picks``, with what it says of all: shape, classes, names,
    levels, and the labels ``y`` and captions of these where it has them."""

    def __init__(self, data: Any, picks: Tensor) -> None:
        self.data, self.picks = data, picks
        self.shape, self.classes = data.shape, data.classes
        self.levels, self.names = getattr(data, "levels", 0), tuple(getattr(data, "names", ()))
        self.captions = captions_at(data, picks)
        known = known_labels(data)
        if known is not None:
            self.y = known[picks]

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
        some.captions = captions_at(data, picks)
        return some
    if isinstance(data, ImageFiles):
        return data.part(picks)
    return Part(data, picks)


def hold_out(data: Any, share: float = 0.1, seed: int = 0) -> tuple[Any, Any]:
    """A data set in two: what is trained on, and ``share`` of it that is held out.

    A draw by the seed and the number and labels of the data alone, the same whenever it is made.
    Held out are the first share n data in the order of ``stratified``, to the nearest whole
    number and at least one: of each class its share, to within one for each class there is. The
    last of a class in that order is passed over and trained on, whatever the share, so that no
    class is held out whole; where nothing else is left, fewer are held out. They keep this
    order, and are ``plain``. Of sets that are mixed it is done in each of them, since an item may
    come in several rounds; one with nothing to spare is trained on.

    Raises ValueError unless 0 < share < 1, and where no class has a second item.
    """
    if not 0 < number("share", share) < 1:
        raise ValueError(f"share must lie between 0 and 1, but it is {share!r}.")
    found = apart(data, share, seed)
    if found is None:
        raise ValueError(
            "A single item cannot be trained on and held out, and there is no second one of any "
            "class."
        )
    return found


def apart(data: Any, share: float, seed: int) -> tuple[Any, Any] | None:
    """``hold_out`` of a share that is one; None where there is nothing to spare."""
    if isinstance(data, Mixed):
        return mixed_apart(data, share, seed)
    n, known = len(data), known_labels(data)
    order = drawn(data, n, seed)
    labels = [0] * n if known is None else known[order].tolist()
    spare = torch.ones(n, dtype=torch.bool)
    spare[list({label: place for place, label in enumerate(labels)}.values())] = False
    if not spare.any():
        return None
    held = order[spare][: max(1, round(share * n))]
    rest = torch.ones(n, dtype=torch.bool)
    rest[held] = False
    return part(data, rest.nonzero()[:, 0]), plain(part(data, held))


def mixed_apart(data: Mixed, share: float, seed: int) -> tuple[Mixed, Mixed] | None:
    """``apart`` in each of the sets that are mixed; one with nothing to spare is held out with a
    share of 0, for what it says of all."""
    pairs = [(each, apart(each, share, seed)) for each in data.sets]
    shares = [0 if some is None else k for (_, some), k in zip(pairs, data.shares, strict=True)]
    if not any(shares):
        return None
    rest = [each if some is None else some[0] for each, some in pairs]
    held = [plain(each) if some is None else some[1] for each, some in pairs]
    return Mixed(rest, data.shares), Mixed(held, shares)

"""Classes of data: labels for samples, parts that keep their shares, and numbers by name."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from sdegen.checks import whole
from sdegen.data.arrays import ArrayData
from sdegen.data.images import ImageFiles
from sdegen.data.items import are_labels, collected, relabelled

ENOUGH = 5000
"""Items that stand for a data set where all of them would take too long."""


def stratified(y: Tensor, seed: int = 0) -> Tensor:
    """An order (n,) of data with labels y (n,), whose every beginning has the classes' shares.

    The r-th of the m data of a class, in an order drawn with the seed, has its place at
    (r + 1/2) / m, and all come by their places. Of the first k data m k / n are then of that
    class, to within one for each class there is. Equal labels give a random order.
    """
    shuffled = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    by_class = shuffled[y[shuffled].argsort(stable=True)]
    counts = y.bincount()
    counts = counts[counts > 0]
    rank = torch.cat([counts[:0], *(torch.arange(int(m)) for m in counts)])
    places = (rank.double() + 0.5) / counts.repeat_interleave(counts)
    return by_class[places.argsort(stable=True)]


def class_labels(n: int, counts: Sequence[int]) -> Tensor:
    """Labels (n,) of n samples, in the shares of the ``counts`` of classes 0, 1, ...

    Label i depends on i and the counts alone, whatever n. ValueError if all counts are zero, and
    for one that is no whole number from 0 on.
    """
    for count in torch.as_tensor(counts).tolist():
        whole("A class's count", count, 0)
    if not any(counts):
        raise ValueError("There are no classes to draw labels from: all counts are zero.")
    y = torch.arange(len(counts)).repeat_interleave(torch.as_tensor(counts))
    return y[stratified(y)][torch.arange(n) % len(y)]


def class_counts(data: Any) -> list[int]:
    """How often each of the classes 0, 1, ... comes in a data set, empty without classes; of one
    that has no ``y`` to tell them, in a part of it."""
    if not data.classes:
        return []
    known = known_labels(data)
    y = gather(data, ENOUGH).y.cpu() if known is None else known
    return y.bincount(minlength=data.classes).tolist()


def gather(data: Any, most: int | None = None, seed: int = 0) -> ArrayData:
    """A data set as one array: all of it in its order, or at most ``most`` of it.

    These are drawn with the seed and are in the order of ``stratified``, so that a smaller part
    is the beginning of a larger one. Of a data set that has labels but no ``y`` to tell them
    beforehand the draw is uniform. Items that are random are taken without it (``plain``).

    Items are of the kinds that ``split`` takes apart; ValueError for others, and where a data set
    has classes and an item no label of them.
    """
    if most is None and isinstance(data, ArrayData):
        return data
    data = plain(data)
    picks = torch.arange(len(data)) if most is None else drawn(data, most, seed)
    if isinstance(data, ArrayData):
        y = data.y[picks] if data.classes else None
        said = captions_at(data, picks)
        return ArrayData(data.x[picks], y, data.levels, data.names, said)
    known = known_labels(data)
    items = (data[i] for i in picks.tolist())
    labels = None if known is None else known[picks]
    return collected(items, data, labels, lambda: captions_at(data, picks))


def drawn(data: Any, most: int, seed: int = 0) -> Tensor:
    """Where ``most`` items of a data set at most are, drawn with the seed, ``stratified`` by the
    labels that it tells beforehand."""
    known = known_labels(data)
    y = torch.zeros(len(data), dtype=torch.int64) if known is None else known
    return stratified(y, seed)[:most]


def known_labels(data: Any) -> Tensor | None:
    """The labels (n,) that a data set tells beforehand, by ``y``; None without them, of data that
    have no classes, and where a ``y`` of data that do not say whether they have some are none.

    ValueError where data that have classes tell something else as their labels.
    """
    y, classes = getattr(data, "y", None), getattr(data, "classes", None)
    if y is None or classes == 0:
        return None
    try:
        given = torch.as_tensor(y).cpu()
    except (TypeError, ValueError, RuntimeError):  # of texts, or of nothing
        given = torch.empty(0, 0)
    if given.shape == (len(data),):
        labels = given.real.long()
        if torch.equal(labels.to(given.dtype), given) and are_labels(labels, classes):
            return labels
    if classes is None:
        return None
    raise ValueError(
        f"The data set has {classes} classes, so its y are {len(data)} whole numbers from 0 to "
        f"{classes - 1}, one for each item, but they are {y!s:.60}."
    )


def captions_at(data: Any, picks: Tensor) -> tuple[str, ...]:
    """The captions of a data set's items at ``picks``, none of one without captions; of images,
    those of what stands in for damaged ones that were found."""
    captions, shown = getattr(data, "captions", ()), getattr(data, "shown", int)
    return tuple(captions[shown(i)] for i in picks.tolist()) if captions else ()


def plain(data: Any) -> Any:
    """A data set without what is drawn for each epoch anew, flips and crops, where it can say so
    by ``plain``; another one as it is."""
    return getattr(data, "plain", data)


def numbered_as(data: Any, names: Sequence[str], known_alone: bool = True) -> Any:
    """A data set whose classes have the numbers that they have in ``names``.

    Raises ValueError for a class that is not among them; or, without ``known_alone``, such
    classes get the numbers that follow. A data set without names is left as it is.
    """
    own = tuple(getattr(data, "names", ()))
    if not own or not names or own == tuple(names):
        return data
    others = [name for name in own if name not in names]
    if others and known_alone:
        raise ValueError(
            f"The data have the class {others[0]!r}, which is none of the training data's: "
            f"{', '.join(names)}."
        )
    every = (*names, *others)
    numbers = torch.tensor([every.index(name) for name in own])
    if not isinstance(data, ArrayData | ImageFiles):  # whose items have their labels from y
        kind = RenumberedStream if isinstance(data, IterableDataset) else Renumbered
        return kind(data, numbers, every)
    again: Any = copy.copy(data)
    again.y = numbers[data.y]
    again.names, again.classes = every, len(every)
    return again


class Renumbered(Dataset[Any]):
    """A data set whose items' labels k are ``numbers[k]``: the places of their names in ``names``.

    Of data of any kind, whose items have their labels from wherever they like.
    """

    def __init__(self, data: Any, numbers: Tensor, names: tuple[str, ...]) -> None:
        self.data, self.numbers, self.names, self.classes = data, numbers, names, len(names)
        self.shape, self.levels = data.shape, getattr(data, "levels", 0)
        self.captions = tuple(getattr(data, "captions", ()))
        known = known_labels(data)
        if known is not None:
            self.y = numbers[known]

    @property
    def plain(self) -> Renumbered:
        """The same items, each always the same."""
        return Renumbered(plain(self.data), self.numbers, self.names)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Any:
        return relabelled(self.data[i], self.numbers)


class RenumberedStream(IterableDataset[Any]):
    """The same of a stream."""

    def __init__(self, data: Any, numbers: Tensor, names: tuple[str, ...]) -> None:
        self.data, self.numbers, self.names, self.classes = data, numbers, names, len(names)
        self.shape, self.levels = data.shape, getattr(data, "levels", 0)

    def __iter__(self) -> Iterator[Any]:
        return (relabelled(item, self.numbers) for item in self.data)

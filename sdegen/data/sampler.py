"""The order of the data: endless batches that resume at any step, and random items that do."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sys
from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from sdegen.data.arrays import ArrayData
from sdegen.data.images import ImageFiles


class InfiniteBatches(Sampler[list[int]]):
    """Batches of `batch_size` indices into n data, without end: a DataLoader's batch_sampler.

    One fresh permutation of 0..n-1 after another makes an endless sequence, and it is cut into
    batches; a batch may reach into the next permutation, so all have the same size. Step k of
    rank r is batch k world + r: between them, the ranks see each index once in an epoch.

    Nothing is remembered: step k follows from the arguments alone, and `start=k` begins with
    what an undisturbed run would have seen at step k. Where the steps before were of another size
    or number of ranks, `seen` says how many data all ranks together have seen in them.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        seen: int | None = None,
    ) -> None:
        if n < 1 or batch_size < 1:
            raise ValueError(f"n = {n} and batch_size = {batch_size}, but both must be at least 1")
        if not 0 <= rank < world:
            raise ValueError(
                f"rank = {rank} of world = {world}, but ranks are counted from 0 to world - 1"
            )
        if start < 0:
            raise ValueError(f"start = {start}, but steps are counted from 0")
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self.rank, self.world = rank, world
        self.seen = start * world * batch_size if seen is None else seen

    def __iter__(self) -> Iterator[list[int]]:
        for visits in self.visits():
            yield [index for index, _ in visits]

    def visits(self) -> Iterator[list[tuple[int, int]]]:
        """The same batches, each index with the epoch that it is seen in."""
        epoch, order = -1, list[int]()
        for k in count():
            first = self.seen + (k * self.world + self.rank) * self.batch_size
            batch = []
            for position in range(first, first + self.batch_size):
                if position // self.n != epoch:
                    epoch = position // self.n
                    order = self._permutation(epoch)
                batch.append((order[position % self.n], epoch))
            yield batch

    def _permutation(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, epoch))
        return torch.randperm(self.n, generator=generator).tolist()


class SeededItems(Dataset[Any]):
    """The items of a data set, asked for by (index, epoch).

    An item that is random, as an augmented image is, is a function of (seed, index, epoch): while
    it is made, the generators of torch, `random` and NumPy begin anew with these. So it is the
    same in any process, and in a run that was stopped and goes on. A generator of the data set's
    own is out of reach.
    """

    def __init__(self, data: Any, seed: int) -> None:
        self.data, self.seed = data, seed
        drawn = isinstance(data, ImageFiles) and (data.flip or data.crop)
        ours = type(data) is ArrayData or isinstance(data, ImageFiles)
        self.certain = ours and not drawn  # and so cheaper

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, visit: tuple[int, int]) -> Any:
        index, epoch = visit
        if self.certain:
            return self.data[index]
        with seeded(seed_of(self.seed, index, epoch)):
            return self.data[index]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generator on the CPU, `random`'s and NumPy's begin with a seed in the block; after
    it they go on where they were."""
    numpy: Any = sys.modules.get("numpy")
    before = torch.get_rng_state(), random.getstate(), numpy and numpy.random.get_state()
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    if numpy:
        numpy.random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        if numpy:
            numpy.random.set_state(before[2])


def seed_of(*numbers: int) -> int:
    """A seed of 32 bits, all that torch's generator on the CPU and NumPy's heed.

    Hashed: of sums of the numbers neighbours would share their random numbers.
    """
    digest = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:4], "big")

"""The order of the data: endless batches that can be resumed at any step."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import count

import torch
from torch.utils.data import Sampler


class InfiniteBatches(Sampler[list[int]]):
    """Batches of `batch_size` indices into n data, without end: a DataLoader's batch_sampler.

    One fresh permutation of 0..n-1 after another makes an endless sequence, and it is cut into
    batches; a batch may reach into the next permutation, so all have the same size. Step k of
    rank r is batch k world + r: between them, the ranks see each index once in an epoch.

    Nothing is remembered: step k follows from the arguments alone, and `start=k` begins with
    what an undisturbed run would have seen at step k.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
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
        self.rank, self.world, self.start = rank, world, start

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order = -1, list[int]()
        for k in count(self.start):
            first = (k * self.world + self.rank) * self.batch_size
            batch = []
            for position in range(first, first + self.batch_size):
                if position // self.n != epoch:
                    epoch = position // self.n
                    order = self._permutation(epoch)
                batch.append(order[position % self.n])
            yield batch

    def _permutation(self, epoch: int) -> list[int]:
        # Hashed, because seed + epoch would make neighbouring seeds share their epochs, and
        # torch's generator on the CPU heeds the low 32 bits of its seed alone.
        digest = hashlib.sha256(f"{self.seed} {epoch}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))
        return torch.randperm(self.n, generator=generator).tolist()

"""The order of batches: one permutation after another, whoever asks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.utils.data import DataLoader

from sdegen.data import (
    ArrayData,
    InfiniteBatches,
    SeededItems,
)
from tests.cases import refused_with


def take(sampler: Any, steps: int) -> Any:
    return list(itertools.islice(sampler, steps))


sizes = st.integers(1, 12)
seeds = st.integers(-5, 2**40)


@settings(deadline=None, max_examples=100)
@given(n=sizes, batch=sizes, world=st.integers(1, 4), seed=seeds)
def test_the_ranks_together_see_one_permutation_after_another(
    n: int, batch: int, world: int, seed: int
) -> None:
    epochs = 3
    steps = -(-epochs * n // (batch * world))
    ranks = [take(InfiniteBatches(n, batch, seed, rank, world), steps) for rank in range(world)]
    assert all(len(b) == batch for rank in ranks for b in rank)
    stream = [i for step in zip(*ranks, strict=True) for b in step for i in b]
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


@settings(deadline=None, max_examples=50)
@given(batch=sizes, world=st.integers(1, 4), steps=st.integers(1, 4), seed=seeds)
def test_ranks_are_disjoint_within_an_epoch(batch: int, world: int, steps: int, seed: int) -> None:
    n = batch * world * steps
    seen = [
        {i for b in take(InfiniteBatches(n, batch, seed, rank, world), steps) for i in b}
        for rank in range(world)
    ]
    assert sum(len(s) for s in seen) == n == len(set().union(*seen))


@settings(deadline=None, max_examples=100)
@given(n=sizes, batch=sizes, rank=st.integers(0, 2), start=st.integers(0, 40), seed=seeds)
def test_a_restart_continues_as_if_undisturbed(
    n: int, batch: int, rank: int, start: int, seed: int
) -> None:
    undisturbed = take(InfiniteBatches(n, batch, seed, rank, 3), start + 5)
    assert take(InfiniteBatches(n, batch, seed, rank, 3, start), 5) == undisturbed[start:]


def test_a_sampler_remembers_nothing() -> None:
    sampler = InfiniteBatches(10, 4, seed=1)
    first, second = iter(sampler), iter(sampler)
    a = [next(first) for _ in range(6)]
    assert [next(second) for _ in range(6)] == a == take(sampler, 6)


def test_epochs_and_seeds_all_have_their_own_order() -> None:
    orders = {
        (seed, epoch): tuple(order)
        for seed in (-1, 0, 1, 2, 2**32, 2**32 + 1)
        for epoch, order in enumerate(take(InfiniteBatches(50, 50, seed), 4))
    }
    assert len(set(orders.values())) == len(orders) == 24


def test_every_order_is_equally_likely() -> None:
    orders = take(InfiniteBatches(4, 4), 24 * 100)
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3


def test_a_data_loader_resumes() -> None:
    data = ArrayData(torch.arange(7.0)[:, None])

    def loader(start: int) -> Any:
        return DataLoader(data, batch_sampler=InfiniteBatches(7, 3, start=start))

    all_steps = [x for x, _ in itertools.islice(loader(0), 8)]
    resumed = [x for x, _ in itertools.islice(loader(5), 3)]
    assert torch.equal(torch.stack(all_steps[5:]), torch.stack(resumed))
    assert torch.cat(all_steps).flatten()[:7].sort().values.tolist() == list(range(7))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n": 0}, "n = 0"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"rank": -1}, "rank = -1 of world = 2"),
        ({"rank": 2}, "rank = 2 of world = 2"),
        ({"world": 0}, "rank = 0 of world = 0"),
        ({"start": -1}, "start = -1"),
    ],
)
def test_samplers_refuse_bad_arguments(arguments: Any, message: str) -> None:
    with refused_with(message):
        InfiniteBatches(**{"n": 10, "batch_size": 2, "world": 2} | arguments)


def test_random_items_of_a_subclass_are_seeded() -> None:
    """The nearest way to augment: one's own __getitem__ over the data set that there is."""

    class Shaken(ArrayData):
        def __getitem__(self, i: int) -> Any:
            x, y = super().__getitem__(i)
            return x + torch.randn(()), y

    items = SeededItems(Shaken(torch.zeros(4, 2)), 0)
    assert torch.equal(items[1, 0][0], items[1, 0][0])
    assert not torch.equal(items[1, 0][0], items[1, 1][0])

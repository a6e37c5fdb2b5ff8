"""Several data sets as one: the shares are exact, and a share of none is the others."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

import sdegen as sg
from sdegen.data import ArrayData, Mixed, digits, hold_out
from sdegen.networks import MLP
from sdegen.training import Trainer, TrainSettings
from tests.cases import refused


def numbered(n: int, start: int, label: int) -> ArrayData:
    """Data that are numbers, all of one class."""
    x = torch.arange(start, start + n, dtype=torch.float32)[:, None].repeat(1, 2)
    return ArrayData(x, torch.full((n,), label))


@pytest.mark.parametrize("shares", [(1, 1), (1, 3), (2, 1), (0, 2), (1, 0)])
@pytest.mark.parametrize("sizes", [(5, 12), (12, 5), (1, 1)])
def test_shares_are_exact_and_all_is_shown(
    shares: tuple[int, int], sizes: tuple[int, int]
) -> None:
    sets = [numbered(n, 100 * k, k) for k, n in enumerate(sizes)]
    mixed = Mixed(sets, shares)
    items = [mixed[i] for i in range(len(mixed))]
    of = torch.tensor([int(y) for _, y in items])
    counts = [int((of == k).sum()) for k in (0, 1)]
    assert counts[0] * shares[1] == counts[1] * shares[0]
    for k, data in enumerate(sets):
        seen = {float(x[0]) for x, y in items if y == k}
        assert seen == ({float(x[0]) for x in data.x} if shares[k] else set())
    turns = [float(x[0]) for x, y in items if y == 0]
    if shares[0]:  # all of a set before one comes again
        assert turns[: sizes[0]] == [float(i) for i in range(sizes[0])]
    assert mixed.classes == 2 and mixed.shape == (2,)


def test_a_prior_of_no_weight_is_fine_tuning_to_the_bit(tmp_path: Path) -> None:
    few, prior = numbered(5, 0, 0), numbered(40, 100, 1)
    states = []
    for name, data in {
        "plain": few,
        "none": Mixed([few, prior], [1, 0]),
        "half": Mixed([few, prior], [1, 1]),
    }.items():
        torch.manual_seed(0)
        model = sg.ScoreModel(MLP(2, width=8, depth=1, classes=2), sg.VPSDE())
        settings = TrainSettings(steps=4, batch_size=4, warmup=0, device="cpu")
        (tmp_path / name).mkdir()
        adam = partial(torch.optim.AdamW, lr=1e-2)
        run = Trainer(model, data, sg.dsm_loss, adam, settings, tmp_path / name, conditional=True)
        list(run.steps())
        states.append(run.model.state_dict())
    plain, none, half = states
    assert all(torch.equal(plain[n], none[n]) for n in plain)
    assert any(not torch.equal(plain[n], half[n]) for n in plain)


def test_what_does_not_fit_is_refused() -> None:
    few = numbered(5, 0, 0)
    with refused(r"There are 1 data sets and shares = \[1, 1\]"):
        Mixed([few], [1, 1])
    with refused("give each set one, and one above 0"):
        Mixed([few, few], [0, 0])
    with refused("A share must be a whole number >= 0, but it is 0.5"):
        Mixed([few, few], [1, 0.5])  # type: ignore[list-item]
    with refused("cannot be mixed"):
        Mixed([few, digits()], [1, 1])
    x = torch.zeros(3, 2)
    with refused(r"Data sets of \[0, 17\] values cannot be mixed"):
        Mixed([ArrayData(x), ArrayData(x, levels=17)], [1, 1])
    y = torch.tensor([0, 1, 1])
    with refused("whose classes are .* cannot be mixed"):
        Mixed([ArrayData(x, y, names=["a", "b"]), ArrayData(x, y, names=["b", "a"])], [1, 1])
    empty = numbered(1, 0, 0)
    empty.x, empty.y = empty.x[:0], empty.y[:0]
    with refused("A data set without items has a share of 1"):
        Mixed([few, empty], [1, 1])


def test_it_ends() -> None:
    mixed = Mixed([numbered(2, 0, 0), numbered(3, 100, 1)], [1, 1])
    assert len(list(mixed)) == len(mixed) == 6
    for i in (-1, 6):
        with pytest.raises(IndexError, match=f"There is no item {i} of 6"):
            mixed[i]


def test_data_that_cannot_be_told_apart_are_refused() -> None:
    """Items without a class would be those of class 0."""
    x = torch.zeros(4, 2)
    with refused("with classes and without cannot be mixed"):
        Mixed([ArrayData(x), numbered(4, 0, 1)], [1, 1])
    assert len(Mixed([ArrayData(x), numbered(4, 0, 1)], [0, 1])) == 4
    with refused("says its shape, but TensorDataset does not"):
        Mixed([TensorDataset(x)], [1])


def test_held_out_parts_are_of_each_set() -> None:
    """What comes in several rounds is in one of the two alone; shares stay."""
    inner = Mixed([numbered(20, 0, 0), numbered(10, 100, 1)], [3, 1])
    one = numbered(1, 200, 2)
    rest, held = hold_out(Mixed([inner, one], [2, 1]), 0.2)
    a, b = ({float(x[0]) for x, _ in part} for part in (rest, held))
    assert not a & b and a | b == {*range(20), *range(100, 110), 200} and 200 in a
    assert len(b) == 4 + 2 and (rest.shares, held.shares) == ((2, 1), (2, 0))
    assert (held.classes, held.shape, held.names) == (rest.classes, rest.shape, rest.names)
    with refused("A single item cannot be trained on and held out"):
        hold_out(Mixed([one, inner], [1, 0]))
    told = numbered(4, 0, 0)
    told.y = told.y - 1  # in one that has another to stand in for it, too
    with refused("so its y are 4 whole numbers"):
        hold_out(Mixed([told, inner], [1, 1]))


def test_what_is_drawn_for_each_epoch_is_not_in_what_is_plain() -> None:
    class Flipped(ArrayData):
        plain = numbered(5, 0, 0)

    mixed = Mixed([Flipped(torch.ones(5, 2), torch.zeros(5).long()), numbered(2, 9, 0)], [1, 1])
    assert [float(x[0]) for x, _ in mixed.plain] == [0, 9, 1, 10, 2, 9, 3, 10, 4, 9]

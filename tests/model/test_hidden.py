"""Modules that a network does not use are not warned of, whatever they are called."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.model import network

SDE = sg.VPSDE()
net = nn.Linear(2, 2)  # a notebook's


def score(x: Tensor, t: Tensor) -> Tensor:
    return net(x)


def show() -> None:
    print(net)


def helper(x: Tensor) -> Tensor:
    if x.ndim > 2:
        show()
    return -x


class Exact:
    """Has an attribute that is called as the global is, and a method as the function is."""

    def __init__(self, scale: float, net: nn.Module | None = None) -> None:
        self.scale, self.net = scale, net

    def eps(self, x: Tensor, t: Tensor) -> Tensor:
        return x * self.scale if self.net is None else self.net(x)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        return -x


class Behind:
    """Asks an object that it holds."""

    def __init__(self) -> None:
        self.d = Exact(1.0)

    def ask(self, x: Tensor, t: Tensor) -> Tensor:
        return self.d.score(x, t)


def printing(x: Tensor, t: Tensor) -> Tensor:
    return helper(x)


def silent(function: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sg.ScoreModel(function, SDE)


@pytest.mark.parametrize(
    "function",
    [Exact(1.0).eps, Behind().ask, printing, lambda x, t: helper(x)],
    ids=["an attribute's name", "a method's name", "printed by a helper", "by a lambda's"],
)
def test_a_module_of_the_file_that_is_not_used_is_not_warned_of(
    function: Callable[..., Tensor],
) -> None:
    silent(function)


@pytest.mark.parametrize(
    "function",
    [score, torch.no_grad()(score), functools.partial(score), Exact(1.0, net).eps],
    ids=["plain", "decorated", "partial", "method"],
)
def test_a_module_of_the_file_that_is_used_is(function: Callable[..., Tensor]) -> None:
    with pytest.warns(UserWarning, match=r"holds a module.*module=net"):
        sg.ScoreModel(function, SDE)


class Part(nn.Module):
    """A child that knows its parent, in a list, lest PyTorch run in circles."""

    def __init__(self, *parent: nn.Module) -> None:
        super().__init__()
        self.own, self.parent, self._blocks = nn.Linear(2, 2), list(parent), list[nn.Module]()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.own(x)


def test_a_back_reference_is_not_warned_of() -> None:
    parent = nn.Sequential(nn.Linear(2, 2))
    child = Part(parent)
    parent.append(nn.Sequential(child))
    silent(child)
    silent(nn.Sequential(child))
    silent(parent)


def test_a_module_in_a_private_list_is_warned_of() -> None:
    part = Part()
    silent(part)
    part._blocks = [nn.Linear(2, 2)]
    with pytest.warns(UserWarning, match="keeps a module in a list"):
        sg.ScoreModel(part, SDE)


class Counted(list[Any]):
    """Counts how many of its items were looked at."""

    steps = 0

    def __iter__(self) -> Iterator[Any]:
        for each in super().__iter__():
            self.steps += 1
            yield each


def test_of_long_lists_the_beginning_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Counted([None] * 10**6)
    silent(lambda x, t: x * len(data))
    part = Part()
    part.parent = data
    silent(part)
    assert 0 < data.steps <= 2 * (network.WIDE + 1)
    # Lists of lists neither: it is counted how many things are opened in all.
    opened, parts_of = list[Any](), network.parts_of

    def counted(held: Any) -> list[Any]:
        opened.append(held)
        return parts_of(held)

    monkeypatch.setattr(network, "parts_of", counted)
    nested: list[Any] = [[[[i, j, k] for k in range(99)] for j in range(99)] for i in range(9)]
    silent(lambda x, t: x * len(nested))
    assert 9 < len(opened) < 99

"""What a model prepares for a walk, or looks at once for all of it, stays right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from tests.cases import close, refused

# ------------------------------------------------------------------------- what is prepared


class Learned(torch.nn.Module):
    """A label with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))

    def forward(self, level: Any) -> Tensor:
        return self.k * level.t


def by_time(x: Tensor, t: Tensor) -> Tensor:
    return x * t.reshape(-1, *[1] * (x.ndim - 1))


def sampled(model: sg.ScoreModel) -> Tensor:
    return sg.sample(model, torch.ones(2, 2, dtype=torch.float64), solver=sg.DDIM(), steps=5)


def test_a_label_that_changes_is_asked_again() -> None:
    """The program of a walk, and its levels, are remembered: labels of one's own are not."""
    label = Learned()
    model = sg.ScoreModel(by_time, sg.VPSDE(), time=label)
    first = sampled(model)
    label.k.data.fill_(2.0)
    assert not torch.equal(sampled(model), first)
    assert torch.equal(sampled(model), sampled(sg.ScoreModel(by_time, sg.VPSDE(), time=label)))
    factor = [1.0]
    model = sg.ScoreModel(by_time, sg.VPSDE(), time=lambda level: factor[0] * level.t)
    first = sampled(model)
    factor[0] = 2.0
    assert not torch.equal(sampled(model), first)
    model = sg.ScoreModel(by_time, sg.VPSDE())
    first = sampled(model)
    model.label = lambda level: 2 * level.t
    assert not torch.equal(sampled(model), first)


@pytest.mark.parametrize("how", ["in place", "data", "numpy"])
def test_a_network_that_writes_into_its_label_spoils_nothing(how: str) -> None:
    def writes(x: Tensor, t: Tensor) -> Tensor:
        out = by_time(x, t)
        if how == "in place":
            t.mul_(3)
        elif how == "data":
            t.data.mul_(3)
        else:
            t.numpy()[:] = 7
        return out

    model, want = sg.ScoreModel(writes, sg.VPSDE()), sampled(sg.ScoreModel(by_time, sg.VPSDE()))
    for _ in range(3):
        assert torch.equal(sampled(model), want)


def test_a_network_changed_between_two_samples() -> None:
    """Another type, another net, weights made of others: looked up at every walk."""
    from torch.nn.utils.parametrizations import weight_norm

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Linear(2, 2)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.body(x)

    net, x = Net(), torch.ones(2, 2)
    model = sg.ScoreModel(net, sg.VPSDE())
    first = sg.sample(model, x, solver=sg.DDIM(), steps=4)
    weight_norm(net.body)
    close(sg.sample(model, x, solver=sg.DDIM(), steps=4), first, rtol=1e-5)
    model.net = Net().double()
    assert model.dtype == torch.float64
    sg.sample(model, x, solver=sg.DDIM(), steps=4)
    model.net.body = torch.nn.Linear(2, 2)
    sg.sample(model, x, solver=sg.DDIM(), steps=4)
    sg.encode(model, x, steps=4)


# ------------------------------------------------------- what is looked at once for all of a walk


class Told(torch.nn.Module):
    """A network that does at a call what it was told, and otherwise the same."""

    def __init__(self) -> None:
        super().__init__()
        self.does: dict[int, Any] = {}
        self.calls = 0

    def forward(self, x: Tensor, t: Tensor, **conditions: Any) -> Any:
        self.calls += 1
        out = by_time(x, t) + sum(conditions.values())
        return self.does.get(self.calls, lambda x, t, out: out)(x, t, out)


def test_a_walk_that_looked_once_is_the_walk_that_looks_at_every_call() -> None:
    """The second walk of a model asks the network alone: the same numbers and calls as the first,
    and as a wrapper, which is asked for output."""

    class Wrapped(sg.ScoreModel):
        def output(self, x: Tensor, level: Any) -> Tensor:
            return super().output(x, level)

    x = torch.ones(3, 2)
    for how in ({}, {"predicts": "edm"}, {"scale_input": True}, {"time": "1000t-1"}):
        for given in ({}, {"c": torch.arange(3.0)[:, None]}, {"w": 0.5}):
            net = Told()
            made = [kind(net, sg.VPSDE(), **how) for kind in (sg.ScoreModel, Wrapped)]  # type: ignore[arg-type]
            one, two = (model.given(**given) for model in made)
            assert one.along(one.sde(0.5), x) is None  # nobody has looked at the network yet
            want = sg.sample(two, x, solver=sg.UniPC(2), steps=6)
            for n in (1, 2, 3):
                net.calls = 0
                assert torch.equal(sg.sample(one, x, solver=sg.UniPC(2), steps=6), want)
                assert one.nfe == 6 * n == net.calls * n
            with torch.inference_mode():
                assert torch.equal(sg.sample(one, x, solver=sg.UniPC(2), steps=6), want)


@pytest.mark.parametrize("at", [1, 3, 5])
def test_what_a_network_does_in_the_midst_of_a_walk_is_seen(at: int) -> None:
    net, x = Told(), torch.ones(3, 2)
    model = sg.ScoreModel(net, sg.VPSDE())

    def walk(does: Any = None) -> Tensor:
        net.calls, net.does = 0, {} if does is None else {at: does}
        return sg.sample(model, x.clone(), solver=sg.DDIM(), steps=5)

    walk()
    want = walk()
    assert torch.equal(walk(lambda x, t, out: (out, None)), want)
    assert torch.equal(walk(lambda x, t, out: {"sample": out}), want)
    close(walk(lambda x, t, out: out.double()), want)
    close(walk(lambda x, t, out: (t.mul_(3), out)[1]), want)
    assert torch.equal(walk(), want)
    with refused("The network must return floating-point numbers, but it returned torch.int64"):
        walk(lambda x, t, out: out.long())
    with refused("shape"):
        walk(lambda x, t, out: out[:1])
    with refused("The network has written into the states that it was handed"):
        walk(lambda x, t, out: x.mul_(2))
    assert torch.equal(walk(lambda x, t, out: x.mul_(2) * 0 + out), want)  # it is handed copies

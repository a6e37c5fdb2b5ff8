"""What a model prepares for a walk, or looks at once for all of it, stays right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.programs import traced
from sdegen.walks import log_snr
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
            want = sg.sample(two, x, solver=sg.UniPC(2), steps=6)
            for n in (1, 2, 3):
                net.calls = 0
                assert torch.equal(sg.sample(one, x, solver=sg.UniPC(2), steps=6), want)
                assert one.nfe == 6 * n == net.calls * n
            clock = traced(sg.UniPC(2), one.sde, log_snr(one.sde, 6)).clock
            with torch.no_grad():
                assert one.asked_along(clock, x) is not None
                assert two.asked_along(clock, x) is None
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


def test_a_label_of_ones_own_and_conditions_are_looked_at_before_every_walk() -> None:
    label, x = Learned(), torch.ones(3, 2, dtype=torch.float64)
    model = sg.ScoreModel(Told(), sg.VPSDE(), time=label)
    ends = [sampled(model) for _ in range(2)]
    label.k.data.fill_(2.0)
    assert torch.equal(*ends) and not torch.equal(sampled(model), ends[0])
    model = sg.ScoreModel(Told(), sg.VPSDE())
    for _ in range(2):
        sg.sample(model.given(y=torch.ones(3, 1)), x, solver=sg.DDIM(), steps=3)
    with refused("The condition y has 2 values, but the batch has 3 samples"):
        sg.sample(model.given(y=torch.ones(2, 1)), x, solver=sg.DDIM(), steps=3)


class Half(sg.ScoreModel):
    """It overrides what ``output`` is made of."""

    def evaluate(self, x: Tensor, level: Any) -> Tensor:
        return super().evaluate(x, level) / 2


def test_who_overrides_evaluate_is_asked_at_every_walk() -> None:
    model, want = (
        Half(by_time, sg.VPSDE()),
        sg.ScoreModel(lambda x, t: by_time(x, t) / 2, sg.VPSDE()),
    )
    for _ in range(3):
        assert torch.equal(sampled(model), sampled(want))


def test_who_looks_on_may_change_the_model_on_the_way() -> None:
    """Another network, condition or label from the third step on, in every walk alike."""

    def net(x: Tensor, t: Tensor, c: float = 1.0) -> Tensor:
        return c * by_time(x, t)

    def changed(how: str, model: sg.ScoreModel) -> Any:
        def watch(step: int, of: int, x: Tensor) -> None:
            if step == 2 and how == "net":
                model.net = lambda x, t: 0 * x
            elif step == 2 and how == "condition":
                model.conditions["c"] = 0.0
            elif step == 2:
                model.label = lambda level: 2 * level.t

        return watch

    x = torch.ones(2, 2)
    for how in ("net", "condition", "label"):
        model, ends = sg.ScoreModel(net, sg.VPSDE()), []
        label = model.label
        for _ in range(3):
            model.net, model.label, model.conditions = net, label, {}
            watch = changed(how, model)
            ends.append(sg.sample(model, x, solver=sg.DDIM(), steps=5, watch=watch))
        assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])
        model.net, model.label, model.conditions = net, label, {}
        assert not torch.equal(sg.sample(model, x, solver=sg.DDIM(), steps=5), ends[0])


class Rude(torch.nn.Module):
    """It writes into its input unless it is trained."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out = by_time(x, t)
        if not self.training:
            x.mul_(2)
        return out


def test_walks_that_others_hold_look_at_every_call() -> None:
    """A mode that is switched on the way, a write that another walk has seen, inference mode."""
    x, net = torch.ones(2, 2), Rude()
    model = sg.ScoreModel(net, sg.VPSDE())
    program = traced(sg.UniPC(2), model.sde, log_snr(model.sde, 5))
    want = sg.sample(sg.ScoreModel(by_time, sg.VPSDE()), x, solver=sg.UniPC(2), steps=5)

    def switch(step: int, of: int, x: Tensor) -> None:
        model.train(step < 2)

    for _ in range(3):
        model.train()
        assert torch.equal(sg.sample(model, x, solver=sg.UniPC(2), steps=5, watch=switch), want)
    late = [False]

    def writes(x: Tensor, t: Tensor) -> Tensor:
        out = by_time(x, t)
        if late[0]:
            x.mul_(2)
        return out

    model = sg.ScoreModel(writes, sg.VPSDE())
    sg.sample(model, x, solver=sg.UniPC(2), steps=5)
    one, two = (program.steps(model, x.clone()) for _ in range(2))
    next(one), next(two)
    late[0] = True
    with refused("The network has written into the states"):
        list(one)
    *_, end = (y.clone() for y in two)
    assert torch.equal(end, want)
    model = sg.ScoreModel(by_time, sg.VPSDE())
    sg.sample(model, x, solver=sg.UniPC(2), steps=5)
    steps = program.steps(model, x)
    next(steps)
    with torch.inference_mode():
        *_, end = (y.clone() for y in steps)
    assert torch.equal(end, want)


def test_a_label_whose_shape_is_changed_in_place_has_its_own_again() -> None:
    shapes = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        shapes.append(tuple(t.shape))
        return x * t.unsqueeze_(1)

    model = sg.ScoreModel(net, sg.VPSDE())
    for _ in range(3):
        sampled(model)
    assert set(shapes) == {(2,)}

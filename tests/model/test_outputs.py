"""A network from anywhere: outputs of every kind, whole labels, hidden modules, second heads."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from tests.cases import TIGHT, close, normal, refused

SDE = sg.VPSDE()
x_T = normal(4, 2)


class Sampled:
    """What diffusers' models return."""

    def __init__(self, sample: Tensor) -> None:
        self.sample = sample


@pytest.mark.parametrize(
    "wrap",
    [
        lambda F: (F, None),
        lambda F: [F],
        lambda F: {"sample": F, "extra": F},
        lambda F: {"out": F, "loss": None},
        Sampled,
    ],
    ids=["tuple", "list", "sample", "one", "object"],
)
def test_outputs_of_every_kind(wrap: Any) -> None:
    plain = sg.ScoreModel(lambda x, t: torch.tanh(x), SDE)
    other = sg.ScoreModel(lambda x, t: wrap(torch.tanh(x)), SDE)
    a, b = (sg.sample(m, x_T, solver=sg.UniPC(2), steps=5) for m in (plain, other))
    assert torch.equal(a, b)


@pytest.mark.parametrize("out", [None, (), {"a": x_T, "b": x_T}, "x"])
def test_other_outputs_are_refused(out: Any) -> None:
    with refused(r"A network returns a tensor, a tuple.*module="):
        sg.ScoreModel(lambda x, t: out, SDE)(x_T, 0.5)


def test_whole_labels_stay_whole() -> None:
    """An embedding is looked up by int64, in the plain loop, in programs and in training."""

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(1000, 2)
            self.seen = set[torch.dtype]()

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            self.seen.add(t.dtype)
            return x + self.table(t)

    def step(level: Any) -> Tensor:
        return (999 * level.t).round().long()

    net = Lookup()
    model = sg.ScoreModel(net, SDE, time=step)
    x = x_T.float()
    program = sg.sample(model, x, solver=sg.DDIM(), steps=5)
    *_, state = sg.march(
        sg.DDIM(), sg.Reverse(model), x, sg.walks.levels(SDE, sg.walks.log_snr(SDE, 5))
    )
    close(program, state.x, rtol=1e-5, atol=1e-6)
    sg.dsm_loss(model, x).mean().backward()
    assert net.seen == {torch.int64}


def test_outputs_that_are_no_real_numbers_are_refused() -> None:
    for kind in (torch.complex64, torch.int64):
        model = sg.ScoreModel(lambda x, t, kind=kind: x.to(kind), SDE)
        with refused(f"floating-point numbers, but it returned {kind}"):
            sg.sample(model, x_T, solver=sg.DDIM(), steps=2)


HIDING: dict[str, Callable[[nn.Module], Any]] = {
    "an object's object": lambda net: Holder(Holder(net).ask).ask,
    "a decorated closure": lambda net: decorated(lambda x, t: net(x)),
    "a default": lambda net: lambda x, t, net=net: net(x),
    "a list of functions": lambda net: first_of([lambda x, t: net(x)]),
    "a partial of a closure": lambda net: functools.partial(lambda k, x, t: net(k * x), 1),
    "a namespace": lambda net: functools.partial(
        lambda held, x, t: held.net(x), SimpleNamespace(net=net)
    ),
}


def first_of(functions: list[Any]) -> Any:
    """A function that holds a list of them."""
    return lambda x, t: functions[0](x, t)


def decorated(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """What a decorator makes: a function that holds a function."""

    def inner(x: Tensor, t: Tensor) -> Tensor:
        return function(x, t)

    return inner


@pytest.mark.parametrize("name", HIDING)
def test_a_module_is_found_behind_what_holds_it(name: str) -> None:
    net = nn.Linear(2, 2).double()
    with pytest.warns(UserWarning, match=r"holds a module.*module=net"):
        sg.ScoreModel(HIDING[name](net), SDE)


def test_a_module_in_a_list_is_not_trained_and_said_so() -> None:
    class Listed(nn.Module):
        def __init__(self, group: Any) -> None:
            super().__init__()
            self.first, self.rest = nn.Linear(2, 2), group

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.first(x)

    for group in ([nn.Linear(2, 2)], {"a": nn.Linear(2, 2)}):
        with pytest.warns(UserWarning, match="keeps a module in a list.*torch.nn.ModuleList"):
            sg.ScoreModel(Listed(group), SDE)
    sg.ScoreModel(Listed(nn.ModuleList([nn.Linear(2, 2)])), SDE)
    sg.ScoreModel(Listed([nn.Linear(2, 2).requires_grad_(False)]), SDE)  # on purpose, as a teacher
    mine = Listed(None)
    mine.rest = [mine.first]  # known, and listed once more
    sg.ScoreModel(mine, SDE)


def test_what_is_no_network_no_module_no_label_and_no_prediction() -> None:
    net = nn.Linear(2, 2)
    wrong: dict[str, dict[str, Any]] = {
        r"did you mean Linear\(\)": {"net": nn.Linear},
        "torch.nn.Module, but it is 'net'.*ModuleList": {"module": "net"},
        r"real numbers, \(\) or \(b,\), but of .* it is 3": {"time": lambda level: 3},
        "real numbers": {"time": lambda level: level.t + 0j},
        r"\(a, b\) at a level.* gave 3": {"predicts": lambda level: 3},
    }
    for said, how in wrong.items():
        with refused(said):
            sg.ScoreModel(**{"net": net, "sde": SDE, **how})


def test_a_function_that_hides_a_module() -> None:
    net = nn.Linear(2, 2).double()
    hiding = (lambda x, t: net(x), Holder(net).ask)
    for function in hiding:
        with pytest.warns(UserWarning, match=r"holds a module, whose parameters.*module=net"):
            sg.ScoreModel(function, SDE)
        model = sg.ScoreModel(function, SDE, module=net)
        assert model.dtype == torch.float64 and len(list(model.parameters())) == 2
    assert torch.equal(model(x_T, 0.5).eps, net(x_T))


class Holder:
    """An object whose method calls a network."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def ask(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x)


def test_a_second_head() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.cat([torch.tanh(x), x + 1], 1)

    plain = sg.ScoreModel(lambda x, t: torch.tanh(x), SDE)
    model = sg.ScoreModel(Two(), SDE, heads=2)
    for shape in ((4, 2), (4, 2, 3, 3)):
        x = normal(*shape)
        seen = model(x, 0.5)
        assert torch.equal(seen.more, x + 1) and torch.equal(seen.eps, torch.tanh(x))
        assert plain(x, 0.5).more is None
        for solver in (sg.DDIM(), sg.Heun(), TIGHT[0]):
            how: dict[str, Any] = {} if solver.traits.adaptive else {"steps": 4}
            assert torch.equal(
                sg.sample(model, x, solver=solver, **how),
                sg.sample(plain, x, solver=solver, **how),
            )
    with refused(r"returned \(4, 4\). If the second half is a variance.*heads=2"):
        sg.ScoreModel(Two(), SDE)(x_T, 0.5)
    with refused("heads=2 the network must return twice the channels"):
        sg.ScoreModel(lambda x, t: x, SDE, heads=2)(x_T, 0.5)
    with refused("heads is 1, or 2"):
        sg.ScoreModel(Two(), SDE, heads=3)


def test_a_solver_that_reads_the_second_head_runs_in_the_plain_loop() -> None:
    @dataclass(frozen=True)
    class Reads(sg.Solver):
        traits = sg.Traits(order=1)

        def step(self, p: Any, x: Tensor, t: Any, s: Any, memory: Any = None) -> sg.Step:
            seen = p.model(x, t)
            return sg.Step(x + 0.1 * seen.more)

    model = sg.ScoreModel(lambda x, t: torch.cat([x, x], 1), SDE, heads=2)
    with pytest.raises(sg.programs.NotLinear, match="second output"):
        sg.programs.traced(Reads(), SDE, sg.walks.log_snr(SDE, 2))
    close(sg.sample(model, x_T, solver=Reads(), steps=2), x_T * 1.1**2)


def test_a_model_says_what_it_is() -> None:
    model = sg.ScoreModel(nn.Linear(2, 2), SDE, "v", time="lam")
    for part in ("Linear of 6 parameters", "VPSDE(", "predicts='v'", "time='lam'"):
        assert part in repr(model)
    assert "given y" in repr(model.given(y=1))


@pytest.mark.parametrize("predicts", ["eps", "x0", "score", "v", "velocity", "edm"])
def test_a_model_is_pickled_and_copied(predicts: str) -> None:
    from sdegen.networks import MLP

    model = sg.ScoreModel(MLP(dim=2), SDE, predicts)
    x = x_T.float()
    want = sg.sample(model, x, solver=sg.DDIM(), steps=3)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(sg.sample(other, x, solver=sg.DDIM(), steps=3), want)
        before = model.nfe
        other(x, 0.5)
        assert model.nfe == before, "a copy counts for itself"


def test_a_network_of_another_type_since_is_found() -> None:
    """Labels and scales are prepared once; the network's type is looked up each time."""
    from sdegen.networks import MLP

    net = MLP(dim=2)
    model = sg.ScoreModel(net, SDE, "edm")
    x = x_T.float()
    single = sg.sample(model, x, solver=sg.DDIM(), steps=3)
    net.double()
    double = sg.sample(model, x, solver=sg.DDIM(), steps=3)
    close(single, double, rtol=1e-4, atol=1e-5)
    net.load_state_dict({k: v.float() for k, v in net.state_dict().items()}, assign=True)
    assert model.dtype == torch.float32
    assert torch.equal(sg.sample(model, x, solver=sg.DDIM(), steps=3), single)


def test_a_function_may_name_its_own_model() -> None:
    """Which is not there yet when it is looked at for modules that it hides."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        a, _ = model.target(model.sde(t))
        return a * x

    model = sg.ScoreModel(net, sg.VPSDE(), predicts="x0")
    close(model(torch.ones(2, 1), 0.5).x0, torch.ones(2, 1))

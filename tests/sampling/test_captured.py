"""CUDA graphs, emulated: a captured walk is the walk."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import sdegen as sg
from tests.cases import EVERY, EVERY_SOLVER, FIXED, Smooth, normal, pointwise, refused
from tests.labelled import KINDS, WALK, labelled, states

LINEAR = {name: solver for name, solver in FIXED.items() if not solver.traits.why_not_linear}


class Replayed(TorchDispatchMode):
    """What a CUDA graph does, on the CPU: the kernels, on the same memory, without Python."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.kernels.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        for func, args, kwargs, out in self.kernels:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def graph(made: Replayed) -> Any:
        with made:
            yield

    class Stream:
        def wait_stream(self, other: Any) -> None:
            pass

    monkeypatch.setattr("sdegen.sampling.captured.check_device", lambda x: None)
    for name, value in {
        "Stream": Stream,
        "current_stream": Stream,
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": Replayed,
        "graph": graph,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("name", ["ddim", "dpmpp", "unipc", "heun", "sa", "ddpm", "sra1"])
def test_a_captured_walk_is_the_walk(name: str) -> None:
    """Replayed with other seeds and starts, and other weights: the same bits as ``sample``."""
    net, solver = Smooth(), EVERY_SOLVER[name]
    model = sg.ScoreModel(net, sg.VPSDE(), "edm")
    how: dict[str, Any] = {"solver": solver, "steps": 5}
    captured = sg.sampling.Captured(model, (3, 2), **how)
    for seed in (7, [1, 2, 3]):
        before = model.nfe
        got = captured(seed=seed)
        assert model.nfe - before == solver.calls(5)
        assert torch.equal(got, sg.sample(model, (3, 2), seed=seed, **how))
    x = normal(3, 2)
    assert torch.equal(captured(x, seed=4), sg.sample(model, x, seed=4, **how))
    with torch.no_grad():
        net.W.mul_(0.5)
    assert torch.equal(captured(seed=9), sg.sample(model, (3, 2), seed=9, **how))
    assert not torch.equal(captured(), captured())
    with refused(
        r"captured for states of shape \(3, 2\) and torch.float64, but these are \(4, 2\)"
    ):
        captured(normal(4, 2), seed=0)


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("name", ["ddim", "unipc", "heun", "ddpm"])
def test_a_captured_wrapper_is_the_wrapper(name: str) -> None:
    """A model made of a model keeps what it changes, and what it counts, in the graph."""

    class Doubled(sg.ScoreModel):
        def output(self, x: Tensor, level: Any) -> Tensor:
            one, two = super().output(torch.cat([x, 2 * x]), level).chunk(2)
            self.count(1)
            return 3 * one - 2 * two

    model, solver = Doubled(Smooth(), sg.VPSDE(), "edm"), EVERY_SOLVER[name]
    how: dict[str, Any] = {"solver": solver, "steps": 5}
    captured = sg.sampling.Captured(model, (3, 2), **how)
    before = model.nfe
    got = captured(seed=7)
    assert model.nfe - before == 2 * solver.calls(5)
    assert torch.equal(got, sg.sample(model, (3, 2), seed=7, **how))
    inner = sg.ScoreModel(model.net, model.sde, "edm")
    assert not torch.equal(got, sg.sample(inner, (3, 2), seed=7, **how))


@pytest.mark.usefixtures("graphs")
@pytest.mark.parametrize("kind", KINDS)
def test_a_captured_guided_model_and_other_conditions(kind: str) -> None:
    """Captured it is sampled as in the loop, under other labels too, which it keeps to itself."""
    shape = tuple(states(kind).shape)
    y, other = torch.tensor([0, 1, 2, 1]), torch.tensor([2, 2, 0, 1])
    model, how = (
        KINDS[kind](labelled(sg.VPSDE()).given(y=y)),
        {"solver": sg.UniPC(2), "walk": WALK},
    )
    captured = sg.sampling.Captured(model, shape, **how)  # type: ignore[arg-type]
    before = model.nfe, model.vjps
    got = captured(seed=7)
    spent = model.nfe - before[0], model.vjps - before[1]
    before = model.nfe, model.vjps
    assert torch.equal(got, sg.sample(model, shape, seed=7, **how))  # type: ignore[arg-type]
    assert spent == (model.nfe - before[0], model.vjps - before[1])
    again = captured(seed=7, given={"y": other})
    want = sg.sample(model.given(y=other), shape, seed=7, **how)
    assert torch.equal(again, want) and not torch.equal(again, got)
    assert torch.equal(captured(seed=8), sg.sample(model.given(y=other), shape, seed=8, **how))
    assert y.tolist() == [0, 1, 2, 1] and other.tolist() == [2, 2, 0, 1]
    with refused("captured for the conditions y, of the network alone: capture another one for z"):
        captured(seed=0, given={"z": other})
    with refused("captured for conditions .*: give others like them"):
        captured(seed=0, given={"y": other[:2]})
    assert torch.equal(captured(seed=7), again)


@pytest.mark.usefixtures("graphs")
def test_what_a_capture_cannot_be_told() -> None:
    def net(x: Tensor, t: Tensor, w: float) -> Tensor:
        return w * x

    model = sg.ScoreModel(net, sg.VPSDE(), "x0").given(w=2.0)
    captured = sg.sampling.Captured(model, (4, 2), solver=sg.DDIM(), steps=3)
    with refused("The graph knows w = 2.0 as it was captured, and takes tensors in the place"):
        captured(seed=0, given={"w": 5.0})


def test_a_capture_needs_a_device_and_a_program() -> None:
    model = sg.ScoreModel(pointwise, sg.VPSDE())
    with refused("captured on a CUDA device, but the states are on cpu"):
        sg.sampling.Captured(model, (2, 2), solver=sg.DDIM(), steps=3)
    with refused("PredictorCorrector has no table"):
        sg.sampling.Captured(model, (2, 2), solver="song_pc", steps=3)


def test_every_linear_sde_has_programs() -> None:
    """None is left out of the laws above."""
    assert len(EVERY) >= 8 and len(LINEAR) > 50

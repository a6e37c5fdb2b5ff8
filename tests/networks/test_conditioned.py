"""What networks are told: one call, one meaning and one refusal for all of them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdegen.networks import ADM, EDM2, MLP, DiT, Transformer, UNet
from sdegen.networks.attention import Context
from sdegen.networks.conditioned import Conditioned
from tests.cases import awake, close, normal, refused

TOLD: dict[str, Any] = {"classes": 2, "numbers": ["w"], "beside": 2}
WORDS: dict[str, Any] = {"token_width": 6, "words": 4}
NETS: dict[str, Callable[..., nn.Module]] = {
    "unet": lambda **more: UNet(1, width=8, heads=2, **more),
    "adm": lambda **more: ADM(1, 8, (1, 2), 1, [1], head_width=8, **more),
    "dit": lambda **more: DiT(1, 16, 1, 2, **more),
    "transformer": lambda **more: Transformer(1, 16, 1, 2, **more),
    "edm2": lambda **more: EDM2(1, 8, heads=2, **more),
}
nets = pytest.mark.parametrize("kind", NETS)
X, C, T = normal(3, 1, 4, 4), normal(3, 2, 4, 4, seed=1), torch.tensor([-1.0, 0.3, 1.2])


class Told(Conditioned):
    """One that keeps what comes in."""

    remedy = "another one"

    def __init__(self, **told: Any) -> None:
        super().__init__(1, 2, 2, 8, **{"token_width": 0, "words": 0, "length": 3, **told})

    def through(self, x: Tensor, e: Tensor, context: Context) -> Tensor:
        self.came = x, e, context
        return x[:, :1]


def test_the_state_comes_with_what_stands_beside_it_a_vector_and_a_context() -> None:
    net = Told(**TOLD, **WORDS).double()
    words = torch.tensor([[1, 4], [2, 0], [0, 0]])
    assert torch.equal(net(X, T, 1, C, words, w=0.5), X)
    x, e, context = net.came
    assert torch.equal(x, torch.cat([X, C], 1))
    assert torch.equal(e, net.conditioning(T, torch.tensor([1, 1, 1]), 3, {"w": 0.5}))
    assert context.tokens is not None and context.tokens.shape == (3, 3, 6)
    seen = torch.tensor([[True, True, False], [True, False, False], [False, False, True]])
    assert context.keep is not None and torch.equal(context.keep[:, 0, 0], seen)
    with refused("multiples of 2: cut or pad 5 to 4 or 6, or take another one"):
        net(normal(3, 1, 5, 4), T, c=C)


def test_networks_of_tokens_have_one_call() -> None:
    calls = {kind.forward for kind in (UNet, ADM, DiT, Transformer)}
    assert calls == {Conditioned.forward}
    takes = [*inspect.signature(Conditioned.forward).parameters][1:]
    assert takes == ["x", "t", "y", "c", "tokens", "mask", "edit", "numbers"]
    assert takes[:4] == [*inspect.signature(EDM2.forward).parameters][1:5]


@nets
def test_one_for_all_is_each_ones_and_what_is_not_given_is_none(kind: str) -> None:
    net = awake(NETS[kind](**TOLD))
    for one, each in (
        ({"y": 1}, {"y": torch.tensor([1, 1, 1])}),
        ({}, {"y": 2}),
        ({}, {"w": 0.0}),
        ({"w": 0.7}, {"w": torch.full((3,), 0.7)}),
        ({"w": torch.tensor(0.7)}, {"w": torch.full((3,), 0.7)}),
    ):
        assert torch.equal(net(X, T, c=C, **one), net(X, T, c=C, **each))
    for some in ({"y": 1}, {"w": 0.7}, {"c": C + 1}):
        assert not torch.allclose(net(X, T, **{"c": C, **some}), net(X, T, c=C))


@nets
def test_what_is_told_in_another_way_is_refused_in_a_sentence(kind: str) -> None:
    net, plain = NETS[kind](**TOLD).double(), NETS[kind]().double()
    for given, said in (
        ({"t": T[:2]}, r"t has shape \(2,\), expected \(3,\)"),
        ({"y": torch.tensor([0, 1])}, r"y is torch.int64 of shape \(2,\)"),
        ({"y": torch.tensor([0.0, 1, 1])}, "y is torch.float32"),
        ({"y": torch.tensor([0, 1, 3])}, r"y has labels outside 0 \.\. 2"),
        ({"y": 3}, r"y has labels outside 0 \.\. 2"),
        ({"y": True}, "y is True, expected a class label"),
        ({"w": torch.zeros(2)}, r"w has shape \(2,\), expected \(\) or \(3,\)"),
        ({"v": 1.0}, "was given v, but the numbers that it knows are w"),
        ({"c": C[:, :1]}, r"c has shape \(3, 1, 4, 4\), expected \(3, 2, 4, 4\)"),
        ({"c": None}, r"beside = 2: it is given c of shape \(3, 2, 4, 4\)"),
        ({"x": X[:, :0]}, r"x has shape \(3, 0, 4, 4\), expected \(B, 1, H, W\)"),
        ({"x": X[..., :3]}, "cut or pad 3 to 2 or 4, or take"),
        ({"x": X[..., :0]}, r"x has shape \(3, 1, 4, 0\)"),
    ):
        with refused(said):
            net(**{"x": X, "t": T, "c": C, **given})  # type: ignore[dict-item]
    for given, said in (
        ({"y": 0}, "no classes: build it with classes > 0"),
        ({"w": 0.0}, "the numbers that it knows are none"),
        ({"c": C}, "sees nothing beside x: build it with beside > 0"),
    ):
        with refused(said):
            plain(X, T, **given)


@nets
def test_files_of_finished_runs_have_the_names_that_they_had(kind: str) -> None:
    words = {} if kind == "edm2" else WORDS
    names = {*NETS[kind](**TOLD, **words).state_dict()}
    told = {"time.hidden.weight", "label.weight", "told.of_w.hidden.weight"}
    if kind == "edm2":
        told = {"waves.phases", "time.weight", "label.weight", "told.of_w.weight", "gains.of_w"}
    assert {f"conditioning.{name}" for name in told} < names
    assert {"tokens.none", "tokens.table.weight", "tokens.places"} < names or kind == "edm2"


def test_numbers_of_older_files_keep_their_fast_waves() -> None:
    """Files without frequencies are of the time's, and stay so when they are saved again; what is
    loaded without the number leaves its slow waves as they are."""
    torch.manual_seed(0)
    old, new, again, plain = (MLP(2, width=8, numbers=("w",)) for _ in range(4))
    for weight in old.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    name = "conditioning.told.of_w.frequencies"
    state = {k: v for k, v in old.state_dict().items() if k != name}
    time: Any = old.conditioning.time
    embedding: Any = old.conditioning.told["of_w"]
    slow, embedding.frequencies = embedding.frequencies, time.frequencies
    x, t, w = torch.randn(3, 2), torch.rand(3), torch.rand(3)
    expected = old(x, t, w=w)
    new.load_state_dict(state)
    again.load_state_dict(new.state_dict())
    for found in (new, again, deepcopy(new), again.double().float()):
        close(found(x, t, w=w), expected)
    again.load_state_dict({**state, name: slow})  # and a newer file has them slow again
    assert float((again(x, t, w=w) - expected).detach().abs().max()) > 1e-3
    plain.load_state_dict({k: v for k, v in state.items() if "of_w" not in k}, strict=False)
    turns: Any = plain.conditioning.told["of_w"].frequencies
    assert abs(float(turns.max()) - 2 * math.pi) < 1e-5
    assert torch.equal(turns, MLP(2, numbers=("w",)).conditioning.told["of_w"].frequencies)

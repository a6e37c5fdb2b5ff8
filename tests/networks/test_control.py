"""Controls: silent at first to the bit, learned from the second step on, added up, and refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.guidance import CFG
from sdegen.networks import ADM, EDM2, MLP, Controlled, DiT, Transformer, UNet, lora, together
from tests.cases import close, refused

NETS: dict[str, Callable[..., Any]] = {
    "unet": lambda **more: UNet(2, 8, heads=2, classes=3, **more),
    "adm": lambda **more: ADM(2, 8, (1, 2), 1, [1], head_width=8, classes=3, **more),
    "dit": lambda **more: DiT(2, 16, 3, 2, classes=3, **more),
    "transformer": lambda **more: Transformer(2, 16, 2, 2, classes=3, **more),
    "series": lambda **more: UNet(2, 8, heads=2, classes=3, dims=1, **more),
}
PARTS = {"unet": 3, "adm": 5, "dit": 2, "transformer": 1, "series": 3}


def shaken(module: torch.nn.Module, seed: int = 0) -> Any:
    """A module whose weights are all off zero."""
    draws = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=draws)
    return module


def base(kind: str, **more: Any) -> Any:
    torch.manual_seed(0)
    return shaken(NETS[kind](**more))


def inputs(kind: str, n: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, times, labels, and hints of one channel."""
    draws = torch.Generator().manual_seed(1)
    space = (8,) if kind == "series" else (8, 8)
    x, h = (torch.randn(n, c, *space, generator=draws) for c in (2, 1))
    return x, torch.rand(n, generator=draws), torch.arange(n) % 3, h


@pytest.mark.parametrize("kind", NETS)
def test_it_is_the_network_until_it_learns_and_without_a_hint_always(kind: str) -> None:
    x, t, y, h = inputs(kind)
    net = Controlled(base(kind))
    with torch.no_grad():
        # Locked too: torch takes other kernels for some weights that take gradients.
        plain = base(kind).requires_grad_(False)(x, t, y=y)
        for hint in (h, 1e3 * h, None):
            assert torch.equal(net(x, t, y=y, hint=hint), plain)
    before = {name: value.clone() for name, value in net.net.state_dict().items()}
    adam = torch.optim.Adam([w for w in net.parameters() if w.requires_grad], 1e-2)
    for step in range(3):
        adam.zero_grad()
        (net(x, t, y=y, hint=h) - x).square().mean().backward()
        moved = {n for n, w in net.controls.named_parameters() if w.grad.abs().max() > 0}  # type: ignore[union-attr]
        every = {n for n, _ in net.controls.named_parameters()}
        last = {n for n in every if n.startswith("hint.leave.")}
        assert last <= moved
        if step == 0:
            assert moved == last  # copy and hint are behind layers of zeros
        else:
            assert {n for n in every if ".copy." in n} <= moved
        adam.step()
    assert all(each.grad is None for each in net.net.parameters())
    assert all(torch.equal(v, before[n]) for n, v in net.net.state_dict().items())
    with torch.no_grad():
        told = net(x, t, y=y, hint=h)
        assert not torch.allclose(told, plain, atol=1e-4)
        assert not torch.allclose(net(x, t, y=y, hint=2 * h), told, atol=1e-4)
        for silent in ({}, {"hint": h, "strength": 0.0}, {"hint": h, "strength": torch.zeros(3)}):
            assert torch.equal(net(x, t, y=y, **silent), plain)


@pytest.mark.parametrize("kind", NETS)
def test_strengths_are_of_samples_and_of_parts(kind: str) -> None:
    x, t, y, h = inputs(kind)
    net = shaken(Controlled(base(kind)), 2).eval()
    n = PARTS[kind]
    with torch.no_grad():
        full, none = net(x, t, y=y, hint=h), net(x, t, y=y)
        each = net(x, t, y=y, hint=h, strength=torch.tensor([1.0, 0.0, 1.0]))
        close(each[[0, 2]], full[[0, 2]], atol=1e-5)
        close(each[1], none[1], atol=1e-5)
        close(net(x, t, y=y, hint=h, strength=torch.ones(1, n)), full, atol=1e-5)
        by_part = [net(x, t, y=y, hint=h, strength=torch.eye(n)[i : i + 1]) for i in range(n)]
        assert all(not torch.allclose(one, none, atol=1e-5) for one in by_part)
        half = net(x, t, y=y, hint=h, strength=0.5)
        close(net(x, t, y=y, hint=h, strength={"hint": torch.full((3, n), 0.5)}), half, atol=1e-5)
        with refused(rf"strength of hint is of shape \(7,\), expected \(\), \(3,\), \(1, {n}\)"):
            net(x, t, y=y, hint=h, strength=torch.ones(7))


def test_controls_that_were_trained_apart_are_added_up() -> None:
    """Over a network that is linear in what is added to it at its last part, the sum is that of
    both; of one alone it is that one."""
    x, t, y, h = inputs("dit")
    edges, shape = (
        shaken(Controlled(base("dit"), {name: 1}).controls, seed)
        for seed, name in ((3, "edges"), (4, "shape"))
    )
    one, two = Controlled(base("dit"), {}), Controlled(base("dit"), {})
    one.controls.update(edges)
    two.controls.update(shape)
    both = together(one, two).eval()
    with torch.no_grad():
        close(both(x, t, y=y, edges=h), one(x, t, y=y, edges=h), atol=0)
        close(both(x, t, y=y, shape=h), two(x, t, y=y, shape=h), atol=0)
        state, e, context = both.net.inputs(x, t, y)
        parts = [each(state, e, context, h) for each in (edges["edges"], shape["shape"])]
        sums = [a + 0.5 * b for a, b in zip(*parts, strict=True)]
        found = both(x, t, y=y, edges=h, shape=h, strength={"shape": 0.5})
        close(found, both.net.through(state, e, context, sums), atol=0)
    with refused("Two controls are called edges"):
        together(one, one)
    with refused("over the same network"):
        together(one, Controlled(shaken(base("dit"), 9), {"shape": 1}))


def test_a_hint_is_a_condition_as_others_are() -> None:
    """Of programs and guidance, cut with the batch, and beside a picture that is seen anyway."""
    x, _, y, h = inputs("unet")
    net = shaken(Controlled(base("unet")), 2)
    model = sg.ScoreModel(net, sg.VPSDE(), "edm").eval().double()
    x, h = x.double(), h.double()
    told = model.given(y=y, hint=h)
    made = sg.sample(told, (3, 2, 8, 8), solver=sg.DPMSolverPP(), steps=4, seed=[0, 1, 2])
    one = sg.sample(
        told.take(torch.tensor([2])), (1, 2, 8, 8), solver=sg.DPMSolverPP(), steps=4, seed=[2]
    )
    close(made[2:], one, rtol=1e-9)
    strong = CFG(told.given(strength=torch.ones(3)), 2.0, without={"strength": 0})
    level = sg.VPSDE()(0.4)
    plain = model.given(y=y).output(x, level)
    close(strong.output(x, level), 2 * told.output(x, level) - plain, atol=1e-9)
    beside = Controlled(base("unet", beside=1).double())
    assert beside(x, torch.rand(3).double(), y=y, c=h, hint=h).shape == x.shape


def test_the_locked_network_is_at_rest() -> None:
    net = Controlled(base("unet", dropout=0.5)).train()
    assert not net.net.training and net.controls.training
    x, t, y, _ = inputs("unet")
    assert torch.equal(net(x, t, y=y), net(x, t, y=y))


def test_what_does_not_fit_is_refused() -> None:
    x, t, y, h = inputs("unet")
    net = Controlled(base("unet"), {"edges": 1})
    for wrong in (h[:, :, :4], h[:2], torch.cat([h, h], 1)):
        with refused(r"edges is of shape .*, expected \(3, 1, 8, 8\): a picture for each sample"):
            net(x, t, y=y, edges=wrong)
    with refused("edges is 1, expected"):
        net(x, t, y=y, edges=1)
    with refused("The network was given hint"):
        net(x, t, y=y, hint=h)
    for other in (MLP(2, 8), EDM2(1, 8), torch.nn.Identity()):
        with refused("A control is of a UNet, ADM, DiT or Transformer"):
            Controlled(other)
    for name in ("y", "strength", "not a name", "jump"):
        with refused("A hint cannot be called"):
            Controlled(base("unet", numbers=["jump"]), {name: 1})
    for strength in ({"egdes": 0.0}, {"edges": 1.0, "hint": 1.0}):
        with refused("There is no control .* to have a strength: there are edges"):
            net(x, t, y=y, edges=h, strength=strength)
        with refused("There is no control"):  # without a hint too
            net(x, t, y=y, strength=strength)
    with refused("The strength of edges must be a number, but it is nan"):
        net(x, t, y=y, edges=h, strength={"edges": float("nan")})
    with refused("one network or more, but there is none"):
        together()
    with refused("The channels of a hint must be a whole number >= 1"):
        Controlled(base("unet"), 0)


@pytest.mark.parametrize("kind", ["unet", "adm", "dit", "transformer"])
def test_an_adapted_network_takes_a_control(kind: str) -> None:
    """Whatever its layers are called then: silent at first, and all of it learns but the base."""
    x, t, y, h = inputs(kind)
    plain = shaken(lora(base(kind), targets=ADAPTED[kind]), 2).requires_grad_(False)
    net = Controlled(copy.deepcopy(plain))
    assert torch.equal(net(x, t, y=y, hint=h), plain(x, t, y=y))
    adam = torch.optim.Adam([w for w in net.parameters() if w.requires_grad], 1e-2)
    for _ in range(2):
        adam.zero_grad()
        net(x, t, y=y, hint=h).square().mean().backward()
        adam.step()
    assert not torch.equal(net(x, t, y=y, hint=h), plain(x, t, y=y))
    now = net.net.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in plain.state_dict().items())


ADAPTED = {
    "unet": ["shrink.0", "conv1", "qkv"],
    "adm": ["enter", "conv2"],
    "dit": ["enter", "qkv"],
    "transformer": ["enter", "leave"],
}
"""Its first layer, and some of those of its blocks."""

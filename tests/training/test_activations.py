"""Activation checkpointing: less memory at its peak, all else the same to the last bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sdegen.bench.watch import Memory
from sdegen.networks import MLP, UNet
from sdegen.training.activations import blocks, checkpoint_blocks
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import normal, refused
from tests.trainers import trainer


class Layer(nn.Module):
    """A block of one's own: several layers, dropout, and a normalisation that counts."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(d, d), nn.BatchNorm1d(d), nn.Tanh(), nn.Dropout(0.3))

    def forward(self, x: Tensor, *, t: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.body(x) * t[:, None], t


class Own(nn.Module):
    """A network of one's own, whose blocks take names and return tuples."""

    def __init__(self, d: int = 2, depth: int = 12) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({str(i): Layer(d) for i in range(depth)})

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        for layer in self.layers.values():
            x, t = layer(x, t=t)
        return x


class Wrapped(nn.Module):
    """One in another, as a preconditioner would be."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.net(x, t)
        return out


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "mlp": (lambda: MLP(2, width=16, depth=8), (2,), 8 + 1),
    "unet": (lambda: UNet(1, width=8, heads=2, dropout=0.3), (1, 8, 8), 5 + 1),
    "own": (Own, (2,), 12),
    "wrapped": (lambda: Wrapped(Own()), (2,), 12),
}
"""A network, the shape of its states, and how many blocks it has, with its conditioning."""


def gradients(net: nn.Module, x: Tensor) -> list[Tensor]:
    """Output, gradients and buffers of one step, in this order."""
    torch.manual_seed(3)
    out = net(x, torch.linspace(0.1, 1, len(x)))
    out.square().mean().backward()
    return [
        out.detach(),
        *(p.grad for p in net.parameters() if p.grad is not None),
        *net.buffers(),
    ]


@pytest.mark.parametrize("case", CASES)
def test_outputs_gradients_and_buffers_are_the_same_to_the_last_bit(case: str) -> None:
    make, shape, count = CASES[case]
    torch.manual_seed(0)
    plain = make()
    for p in plain.parameters():
        p.data = p.data + 0.1 * torch.randn_like(p)  # some layers start at zero
    other = copy.deepcopy(plain)
    found = checkpoint_blocks(other)
    assert len(found) == count and checkpoint_blocks(other) == found
    x = normal(6, *shape, dtype=torch.float32)
    one, two = gradients(plain, x), gradients(other, x)
    assert len(one) == len(two) and any(bool((g != 0).any()) for g in one[1:])
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert plain.state_dict().keys() == other.state_dict().keys()
    again = copy.deepcopy(other)  # whose blocks are its own
    for p in again.parameters():
        p.data.zero_()
    assert torch.equal(gradients(other.eval(), x)[0], gradients(plain.eval(), x)[0])


def test_blocks_run_twice_and_no_more(tmp_path: Path) -> None:
    net, calls = MLP(2, width=16, depth=3), 0

    def count(*args: Any) -> None:
        nonlocal calls
        calls += 1

    checkpoint_blocks(net)
    checkpoint_blocks(net)
    net.blocks[0].enter.register_forward_hook(count)
    x, t = normal(4, 2, dtype=torch.float32), torch.ones(4)
    net(x, t).sum().backward()
    assert calls == 2
    with torch.no_grad():
        net(x, t)
    assert calls == 3


def peak(net: nn.Module, x: Tensor) -> int:
    """The most bytes that lived at once in a step, beside weights."""
    with Memory(*net.parameters(), x) as memory:
        net(x, torch.ones(len(x))).square().mean().backward()
    return memory.peak


def test_the_peak_falls_as_it_must() -> None:
    """Of L equal blocks that keep a activations each, L a are kept at the peak, or L + a."""
    b, d, depth = 2048, 16, 16
    x = normal(b, d, dtype=torch.float32)
    plain = MLP(d, width=d, depth=depth)
    kept = {}
    for name, net in (("plain", plain), ("checkpointed", copy.deepcopy(plain))):
        if name == "checkpointed":
            checkpoint_blocks(net)
        kept[name] = peak(net, x) / x.nbytes
    # A block keeps what norm, enter, scale, silu and leave have seen, at the least.
    assert kept["plain"] > 5 * depth
    assert kept["checkpointed"] < depth + 20
    assert kept["checkpointed"] < 0.4 * kept["plain"], kept
    print(kept)


def test_a_network_without_blocks_is_told_so() -> None:
    flat = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
    for net in (flat, Wrapped(flat), nn.Linear(2, 2), torch.sin):
        with refused("train.checkpointing: .* has no blocks"):
            checkpoint_blocks(net)
    assert blocks(Wrapped(nn.Sequential(Layer(2), Layer(2)))) != []


def test_a_run_is_the_same_with_and_without(tmp_path: Path) -> None:
    """And may change between two starts."""
    list(trainer(tmp_path / "plain").steps())
    list(trainer(tmp_path / "less", checkpointing=True, steps=7).steps())
    again = trainer(tmp_path / "less")
    list(again.steps())
    list(trainer(tmp_path / "all", checkpointing=True).steps())
    one, two, three = (load_file(tmp_path / n / CHECKPOINT) for n in ("plain", "less", "all"))
    assert one.keys() == two.keys() == three.keys()
    assert all(torch.equal(one[k], two[k]) and torch.equal(one[k], three[k]) for k in one)

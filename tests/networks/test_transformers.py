"""Transformers over patches: DiT and today's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdegen.networks import DiT, Transformer
from sdegen.networks.attention import NOTHING
from sdegen.networks.dit import Block
from sdegen.networks.patches import patchify, places, rotary, sincos, unpatchify
from sdegen.networks.transformer import BASE
from sdegen.networks.transformer import Block as Modern
from sdegen.training.activations import checkpoint_blocks
from tests.cases import awake, normal, refused

kinds = pytest.mark.parametrize("kind", [DiT, Transformer])


@pytest.mark.parametrize(
    ("shape", "patch"), [((2, 3, 12), 3), ((2, 3, 4, 6), 2), ((1, 1, 4, 8), 4), ((2, 2, 3, 5), 1)]
)
def test_patches_are_made_and_undone_to_the_bit(shape: tuple[int, ...], patch: int) -> None:
    x = normal(*shape)
    tokens, grid = patchify(x, patch), tuple(side // patch for side in shape[2:])
    assert tokens.shape == (shape[0], math.prod(grid), shape[1] * patch ** len(grid))
    assert torch.equal(unpatchify(tokens, patch, grid), x)
    corner = x[(slice(None), slice(None), *[slice(0, patch)] * len(grid))]
    assert torch.equal(tokens[:, 0], corner.flatten(1))
    # Tokens run along the last axis first.
    near_it = x[
        (slice(None), slice(None), *[slice(0, patch)] * (len(grid) - 1), slice(patch, 2 * patch))
    ]
    assert torch.equal(tokens[:, 1], near_it.flatten(1))


def test_a_convolution_of_patches_is_a_layer_of_tokens() -> None:
    x, conv = normal(2, 3, 8, 4), nn.Conv2d(3, 5, 2, stride=2).double()
    layer = nn.functional.linear(patchify(x, 2), conv.weight.flatten(1), conv.bias)
    torch.testing.assert_close(layer, conv(x).flatten(2).transpose(1, 2))


def test_positions_are_sines_of_the_grid_at_hand() -> None:
    like = torch.zeros((), dtype=torch.float64)
    table = sincos((3, 5), 8, like)
    small = table.unflatten(0, (3, 5))[:2, :4].flatten(0, 1)
    assert torch.equal(sincos((2, 4), 8, like), small)  # a place is the same on any grid
    row, column = 2, 3
    by_hand = [f(p * w) for p in (column, row) for f in (math.sin, math.cos) for w in (1, 0.01)]
    torch.testing.assert_close(table[row * 5 + column].tolist(), by_hand, rtol=0, atol=1e-6)
    gaps = torch.cdist(sincos((40,), 16, like), sincos((40,), 16, like)).fill_diagonal_(9)
    assert gaps.min() > 0.1  # no two places look alike


@kinds
def test_blocks_start_as_the_identity(kind: type) -> None:
    net = kind(1, 16, 2, 2, token_width=4).double()
    seen = list[tuple[Tensor, Tensor]]()
    for block in net.blocks:
        block.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    net(normal(2, 1, 4, 4), torch.rand(2), tokens=normal(2, 3, 4))
    assert len(seen) == 2 and all(torch.equal(before, after) for before, after in seen)


@kinds
def test_every_weight_learns_after_the_first_steps(kind: type) -> None:
    torch.manual_seed(0)
    net = kind(1, 16, 2, 2, classes=2, numbers=["jump"], token_width=4)
    optimiser, before = torch.optim.Adam(net.parameters(), 1e-2), dict[str, Tensor]()
    for step in range(4):
        if step == 3:
            before = {name: p.detach().clone() for name, p in net.named_parameters()}
        out = net(
            torch.randn(4, 1, 4, 4),
            torch.rand(4),
            torch.tensor([0, 1, 1, 0]),
            jump=0.5,
            tokens=torch.randn(4, 3, 4),
            mask=torch.tensor([[True] * 3] * 3 + [[False] * 3]),
        )
        optimiser.zero_grad()
        (out - 1).square().mean().backward()
        optimiser.step()
    still = [name for name, p in net.named_parameters() if torch.equal(p, before[name])]
    assert not still


def test_tokens_permuted_with_their_positions_permute_the_outputs() -> None:
    h, c, order = normal(2, 6, 16), normal(2, 16, seed=1), torch.tensor([3, 0, 5, 1, 4, 2])
    block = awake(Block(16, 2, 0))
    found = block(h, c, NOTHING, (6,))
    torch.testing.assert_close(block(h[:, order], c, NOTHING, (6,)), found[:, order])
    modern, told = awake(Modern(16, 2, 0)), normal(2, 96, seed=2)
    turn = rotary((2, 3), 8, BASE[2], h)
    found = modern(h, told, NOTHING, (2, 3), turn)
    moved = modern(h[:, order], told, NOTHING, (2, 3), turn[:, order])
    torch.testing.assert_close(moved, found[:, order])
    assert not torch.allclose(modern(h[:, order], told, NOTHING, (2, 3), turn), found[:, order])


def test_rotary_blocks_know_differences_of_places_alone() -> None:
    """Six tokens at places 0 .. 5, and the same at 4 .. 9."""
    net = awake(Transformer(1, 16, 2, 2, patch=1, dims=1))
    x, t = normal(1, 1, 6), torch.zeros(1)
    turn, shifted = (rotary((n,), 8, BASE[1], x)[:, n - 6 :] for n in (6, 10))
    assert places((10,), x)[4] == 4 and not torch.equal(turn, shifted)
    told = net.told(net.conditioning(t, None, 1))
    h = net.enter(patchify(x, 1))
    for block in net.blocks:
        one, two = (block(h, told, NOTHING, (6,), each) for each in (turn, shifted))
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6)
        h = one


@kinds
@pytest.mark.parametrize("dims", [1, 2])
def test_any_size_and_both_dimensions(kind: type, dims: int) -> None:
    net = awake(kind(2, 16, 2, 2, patch=2, dims=dims, classes=3, out=4, beside=1))
    for sides in ((2, 2), (6, 4)):
        x, c = normal(3, 2, *sides[:dims]), normal(3, 1, *sides[:dims], seed=1)
        out = net(x, torch.rand(3), torch.tensor([0, 1, 3]), c)
        assert out.shape == (3, 4, *sides[:dims])
        assert (net(x, torch.rand(3), c=c + 1) - out).abs().max() > 1e-3
    with refused(
        "2 multiples|with (L|H and W) multiples of 2: cut or pad 7 to 6 or 8, or take sm"
    ):
        net(normal(3, 2, *[7] * dims), torch.rand(3))
    with refused(rf"x has shape .* \(dims = {dims}\)"):
        net(normal(3, 2, *[4] * (dims + 1)), torch.rand(3))
    with refused("multiples of 2"):
        net(normal(3, 2, *[0] * dims), torch.rand(3))


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        (DiT, {"heads": 3}, "heads = 3 does not divide a level of 16 channels"),
        (DiT, {"width": 18, "heads": 2}, "width = 18, expected a multiple of 4"),
        (Transformer, {"width": 12, "heads": 2}, "heads = 6 numbers, expected a multiple of 4"),
        (Transformer, {"heads": 3}, "heads = 3 does not divide"),
        (DiT, {"patch": 0}, "patch must be a whole number >= 1"),
    ],
)
def test_wrong_architectures_are_refused(kind: type, wrong: dict[str, Any], said: str) -> None:
    with refused(said):
        kind(1, **{"width": 16, "depth": 1, "heads": 2, **wrong})


@kinds
def test_checkpointed_blocks_change_nothing(kind: type) -> None:
    net, x, t = awake(kind(1, 16, 3, 2, token_width=4)), normal(2, 1, 4, 4), torch.rand(2)
    tokens = normal(2, 3, 4).requires_grad_()

    def gradients() -> list[Tensor]:
        net.zero_grad()
        out = net(x, t, tokens=tokens, edit=lambda maps, place: maps * maps)
        weights = [*net.blocks.parameters(), net.leave.weight, tokens]
        return [out, *torch.autograd.grad(out.square().sum(), weights)]

    plain = gradients()
    assert {*net.blocks} <= {*checkpoint_blocks(net)}
    assert all(torch.equal(a, b) for a, b in zip(gradients(), plain, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, in its compiler
@kinds
def test_compiled_it_is_the_same(kind: type) -> None:
    net, x, t = awake(kind(1, 16, 2, 2)).float(), normal(2, 1, 4, 4).float(), torch.rand(2)
    torch.testing.assert_close(torch.compile(net)(x, t), net(x, t), rtol=0, atol=1e-5)


def test_dit_begins_as_published() -> None:
    """The weights that DiT begins with: Glorot's bound holds, and what ends a branch is zero."""
    net = DiT(3, 32, 2, 4, classes=2)
    block = net.blocks[0]
    bound = math.sqrt(6 / (32 + 128))
    assert block.enter.weight.abs().max() <= bound < 1.1 * block.enter.weight.abs().max()
    assert not block.enter.bias.any() and not block.modulation.weight.any()

"""ADM's U-Net: what resamples, what is skipped, what is put together."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sdegen.networks import ADM, FIRDown, FIRUp, Nearest, Pool, Rescaled
from sdegen.networks.unet import Residual
from sdegen.training.activations import checkpoint_blocks
from tests.cases import awake, normal, refused

SMALL: dict[str, Any] = {
    "width": 8,
    "mults": (1, 2),
    "blocks": 1,
    "attention": [1],
    "head_width": 8,
}


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_block_that_resamples_starts_as_its_resampling(dims: int) -> None:
    x, c = normal(2, 8, *[4] * dims), normal(2, 5)
    pooled = x
    for axis in range(2, 2 + dims):  # the mean of each pair along each axis
        pooled = pooled.unflatten(axis, (-1, 2)).mean(axis + 1)
    down = Residual(8, 8, 5, 0.0, dims, Pool()).double()
    torch.testing.assert_close(down(x, c), pooled)
    up = Residual(8, 8, 5, 0.0, dims, Nearest()).double()
    assert torch.equal(up(pooled, c)[(..., *[slice(0, None, 2)] * dims)], pooled)
    assert torch.equal(up(pooled, c)[(..., *[slice(1, None, 2)] * dims)], pooled)
    torch.testing.assert_close(down(up(x, c), c), x)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_filters_keep_constants_and_have_the_gain_of_their_taps(dims: int) -> None:
    constant = torch.full((1, 2, *[4] * dims), 0.7, dtype=torch.float64)
    for filtered in (FIRDown()(constant), FIRUp()(constant)):
        torch.testing.assert_close(filtered, torch.full_like(filtered, 0.7))
    # A lone 1 leaves its taps behind; their squares' sum is the variance of white noise after it.
    one = torch.zeros(1, 1, *[12] * dims, dtype=torch.float64)
    one[(0, 0, *[6] * dims)] = 1
    halved = torch.tensor([3, 1], dtype=torch.float64) / 8  # at places 3 and 2 of six
    doubled = torch.tensor([1, 3, 3, 1], dtype=torch.float64) / 4
    for found, taps in ((FIRDown()(one), halved), (FIRUp()(one), doubled)):
        gain = float(taps.square().sum()) ** dims
        assert math.isclose(float(found.square().sum()), gain)
    along = FIRUp()(one[(slice(None), slice(None), *[6] * (dims - 1))][:, :, :])
    torch.testing.assert_close(along[0, 0, 11:15], doubled)


def test_a_filter_shows_no_stripes_that_half_the_places_cannot() -> None:
    """The shortest wave is gone but for the edges, which pooling of a shifted grid would alias."""
    x = torch.cos(math.pi * torch.arange(16, dtype=torch.float64))[None, None]
    assert FIRDown()(x)[..., 1:-1].abs().max() < 1e-15
    slow = torch.cos(math.pi / 2 * torch.arange(16, dtype=torch.float64))[None, None]
    assert Pool()(slow).abs().max() > 1.9 * FIRDown()(slow)[..., 1:-1].abs().min()


def test_a_skip_and_a_change_of_unit_variance_keep_it() -> None:
    x, h = normal(20_000), normal(20_000, seed=1)
    assert abs(float(Rescaled()(x, h).var()) - 1) < 0.03
    block = Residual(8, 8, 5, 0.0, join=Rescaled()).double()
    state = normal(2, 8, 4, 4)
    torch.testing.assert_close(block(state, normal(2, 5)), state / math.sqrt(2))


@pytest.mark.parametrize(("mults", "blocks"), [((1,), 1), ((1, 2), 1), ((1, 2, 3), 2)])
def test_every_output_of_the_way_down_is_seen_once_on_the_way_up(
    mults: tuple[int, ...], blocks: int
) -> None:
    net = awake(ADM(1, 8, mults, blocks, attention=(), head_width=8))
    made, seen = [], list[Tensor]()
    for module in (net.enter, *net.down):
        module.register_forward_hook(lambda _, args, out: made.append(out))
    ways_up = [stage for level in net.up for stage in level]
    for stage in ways_up:
        stage.register_forward_hook(lambda _, args, out: seen.append(args[0]))
    net(normal(1, 1, 8, 8), torch.zeros(1))
    assert len(made) == len(seen) == len(mults) * (blocks + 1)
    for skip, whole in zip(reversed(made), seen, strict=True):
        assert torch.equal(whole[:, -skip.shape[1] :], skip)
    assert len(net.grow) == len(mults) - 1


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_any_parts_and_dimensions(dims: int) -> None:
    parts: dict[str, Any] = {"down": FIRDown(), "up": FIRUp(), "join": Rescaled()}
    net = awake(ADM(2, **SMALL, **parts, dims=dims, classes=2, out=4, beside=1, dropout=0.1))
    x, c = normal(3, 2, *[4] * dims), normal(3, 1, *[4] * dims, seed=1)
    out = net.eval()(x, torch.rand(3), torch.tensor([0, 1, 2]), c)
    assert out.shape == (3, 4, *[4] * dims)
    assert (
        net.state_dict().keys()
        == ADM(2, **SMALL, dims=dims, classes=2, out=4, beside=1).state_dict().keys()
    )
    with refused("multiples of 2: cut or pad 5 to 4 or 6, or take fewer mults"):
        net(normal(3, 2, *[5] * dims), torch.rand(3), c=c)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"head_width": 3}, "head_width = 3 does not divide a level of 16 channels"),
        ({"head_width": 0}, "head_width must be a whole number >= 1"),
        ({"down": "fir"}, "down is a module without parameters, .* but it is 'fir'"),
        ({"up": nn.ConvTranspose1d(1, 1, 2)}, "up is a module without parameters"),
    ],
)
def test_wrong_architectures_are_refused(wrong: dict[str, Any], said: str) -> None:
    with refused(said):
        ADM(1, **{**SMALL, **wrong})


def test_checkpointed_blocks_change_nothing() -> None:
    net, x, t = awake(ADM(1, **SMALL, dropout=0.5)).train(), normal(2, 1, 4, 4), torch.rand(2)

    def gradients() -> list[Tensor]:
        torch.manual_seed(0)
        out = net(x, t)
        return [out, *torch.autograd.grad(out.square().sum(), list(net.parameters()))]

    plain = gradients()
    assert {*net.down} <= {*checkpoint_blocks(net)}
    assert all(torch.equal(a, b) for a, b in zip(gradients(), plain, strict=True))

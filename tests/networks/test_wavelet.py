"""Haar's wavelets against their definition, and gates that are silent at first."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sdegen.networks import ADM, FIRDown
from sdegen.networks.resampling import Nearest, Pool
from sdegen.networks.unet import Residual
from sdegen.networks.wavelet import Gated, from_haar, haar
from sdegen.training.activations import checkpoint_blocks
from tests.cases import awake, close, normal, refused

SMALL: dict[str, Any] = {
    "width": 8,
    "mults": (1, 2, 2),
    "blocks": 1,
    "attention": [1],
    "head_width": 8,
}
SIDES = [4, 6, 2]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_wavelets_keep_the_energy_and_have_an_inverse(dims: int) -> None:
    x = normal(2, 3, *SIDES[:dims])
    bands = haar(x)
    assert bands.shape == (2, 3, 2**dims, *[side // 2 for side in SIDES[:dims]])
    close(bands.square().sum(), x.square().sum())
    close(from_haar(bands), x, atol=1e-14)
    close(haar(from_haar(bands)), bands, atol=1e-14)


def test_bands_are_sums_and_differences_of_pairs() -> None:
    x = torch.tensor([[[1.0, 3.0, 2.0, -2.0]]]).double()
    close(haar(x) * math.sqrt(2), [[[[4.0, 0.0], [-2.0, 4.0]]]])
    square = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])  # rows first, then columns
    assert haar(square).flatten().tolist() == pytest.approx([5.5, -2.5, -1.5, 0.5])


def test_odd_sides_are_refused() -> None:
    for shape in ((1, 1, 5), (1, 1, 4, 3), (1, 1, 0)):
        with refused("each must be even"):
            haar(torch.zeros(shape))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gates_begin_as_pooling_and_repeating(dims: int) -> None:
    x, c = normal(2, 4, *SIDES[:dims]), normal(2, 5)
    close(Gated(4, 5, dims, False).double()(x, c), Pool()(x), atol=1e-14)
    close(Gated(4, 5, dims, True).double()(x, c), Nearest()(x), atol=1e-14)


def test_gates_are_of_each_sample_and_what_it_is_told() -> None:
    """Two samples do not see each other; another c is another gate; the gates of high bands let
    details through, which pooling loses."""
    for up in (False, True):
        gated = Gated(3, 5, 2, up).double()
        for weight in gated.parameters():
            torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
        x, c = normal(2, 3, 4, 4), normal(2, 5, seed=1)
        close(gated(x, c)[:1], gated(x[:1], c[:1]))
        assert not torch.allclose(gated(x, c), gated(x, c + 1))
    checks = torch.tensor([1.0, -1.0]).double().expand(1, 3, 4, 2).reshape(1, 3, 4, 2)
    assert Pool()(checks).abs().max() == 0
    assert Gated(3, 5, 2, False).double()(checks, c[:1]).abs().max() == 0
    assert awake(Gated(3, 5, 2, False).double())(checks, c[:1]).abs().max() > 0


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_an_adm_with_wavelets_begins_as_the_one_without(dims: int) -> None:
    """Whatever its weights, which load into it."""
    plain = awake(ADM(2, dims=dims, **SMALL)).double()
    net = ADM(2, dims=dims, wavelets=True, **SMALL).double()
    missing, unexpected = net.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and missing and all("resample" in name for name in missing)
    x, t = normal(2, 2, *[4, 8, 4][:dims]), torch.rand(2).double()
    close(net(x, t), plain(x, t), rtol=1e-9, atol=1e-12)


def test_every_gate_learns() -> None:
    net = awake(ADM(2, wavelets=True, **SMALL))
    net(normal(2, 2, 8, 8), torch.rand(2).double()).square().sum().backward()
    gates = {name: w.grad for name, w in net.named_parameters() if "resample" in name}
    assert len(gates) == 4 * 4
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gates.values())


def test_a_block_with_gates_is_computed_once_more_for_its_gradient() -> None:
    net = awake(ADM(2, wavelets=True, **SMALL))
    x, t = normal(2, 2, 8, 8), torch.rand(2).double()
    net(x, t).square().sum().backward()
    before = [w.grad.clone() for w in net.parameters() if w.grad is not None]
    net.zero_grad()
    checkpoint_blocks(net)
    net(x, t).square().sum().backward()
    for a, w in zip(before, net.parameters(), strict=True):
        close(a, w.grad)


def test_what_makes_no_network_is_refused() -> None:
    with refused("leave out down and up"):
        ADM(1, wavelets=True, down=FIRDown(), **SMALL)
    with refused("wavelets must be true or false"):
        ADM(1, wavelets="haar", **SMALL)  # type: ignore[arg-type]
    block = Residual(8, 8, 5, 0.0, resample=Gated(8, 5, 2, False))
    with refused("each must be even"):
        block(torch.zeros(1, 8, 3, 4), torch.zeros(1, 5))

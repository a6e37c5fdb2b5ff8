"""Distances of spectra against Parseval, and against what they are for."""

from __future__ import annotations

import pytest
import torch

from sdegen.exact import power_law
from sdegen.losses import Spectral
from sdegen.losses.spectra import transformed
from tests.cases import close, normal, refused

SHAPES = [(2, 1, 7), (3, 2, 8, 6), (2, 1, 4, 4, 3)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_power_or_a_share_of_0_is_the_mean_square(shape: tuple[int, ...]) -> None:
    """Parseval's equation, for odd sides too; a share is that of two distances."""
    off, x0 = normal(*shape), normal(*shape, seed=1)
    plain = off.square().flatten(1).mean(1)
    close(Spectral(0.0)(off, x0), plain)
    close(Spectral(share=0.0)(off, x0), plain)
    close(Spectral(share=0.25)(off, x0), 0.75 * plain + 0.25 * Spectral(share=1.0)(off, x0))


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_have_a_mean_of_1_and_a_floor(shape: tuple[int, ...]) -> None:
    """They fall as what the data have of each, and are the same of the faintest half."""
    x0 = normal(*shape)
    w, size = Spectral(share=1.0).weights(x0).flatten(2), transformed(x0).abs().flatten(2)
    close(w.mean((1, 2)), torch.ones(len(x0)))
    for one, has in zip(w.flatten(0, 1), size.flatten(0, 1), strict=True):
        floor = has.median()
        close(one / one.max(), (floor / has).clamp(max=1))


def test_a_distance_is_a_square_and_of_each_sample_alone() -> None:
    off, x0 = normal(3, 2, 8, 8), normal(3, 2, 8, 8, seed=1)
    close(Spectral()(-3 * off, x0), 9 * Spectral()(off, x0))
    close(Spectral()(off, x0)[1:2], Spectral()(off[1:2], x0[1:2]))
    close(Spectral()(off, 5 * x0), Spectral()(off, x0))
    assert (Spectral()(0 * off, x0) == 0).all()


def test_data_without_detail_have_weights() -> None:
    """Flat ones have none of most frequencies: a thousandth is the floor; of nothing all are 1."""
    flat = torch.ones(1, 2, 4, 4).double()
    w = Spectral(share=1.0).weights(flat)
    wanted = torch.full((4, 4), 1000.0)
    wanted[0, 0] = 1
    close(w / w[0, 0, 0, 0], wanted.expand(w.shape), rtol=1e-6)
    close(Spectral(share=1.0).weights(0 * flat), flat)


def test_faint_detail_counts_for_more() -> None:
    """Of errors of one size a fine one, where data of a power law have little, is the larger."""
    law = power_law((8, 8), 2.0)
    x0 = law.sample(50, torch.Generator().manual_seed(0)).reshape(50, 1, 8, 8)
    i = torch.arange(8).double()
    fine, coarse = torch.cos(torch.pi * i), torch.cos(torch.pi * i / 4) * 2**0.5
    by = [Spectral(share=1.0)(w.expand(50, 1, 8, 8), x0).mean() for w in (fine, coarse)]
    assert by[0] > 2 * by[1]


def test_gradients_pass_the_weights_by() -> None:
    off, x0 = normal(1, 1, 4, 4).requires_grad_(), normal(1, 1, 4, 4, seed=1).requires_grad_()
    Spectral()(off, x0).sum().backward()
    assert off.grad is not None and x0.grad is None


def test_half_precision_is_transformed_in_float32() -> None:
    off, x0 = normal(2, 1, 8, 8).bfloat16(), normal(2, 1, 8, 8, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = Spectral()(off, x0)
    assert found.dtype == torch.float32
    close(found.double(), Spectral()(off.double(), x0.double()), rtol=1e-5)


def test_what_has_no_spectrum_is_refused() -> None:
    with refused("axes of space"):
        Spectral()(torch.zeros(2, 3), torch.zeros(2, 3))
    with refused("power must be a number >= 0"):
        Spectral(-1.0)
    with refused("share lies in"):
        Spectral(share=1.5)

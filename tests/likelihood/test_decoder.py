"""The likelihood of values, the last term of DDPM's bound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.likelihood import discrete_elbo
from sdegen.losses import hybrid_loss
from sdegen.solvers import Range, Residual, Square
from sdegen.solvers.variances import decoder
from tests.cases import close, refused

VP = sg.VPSDE()


def values(levels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return 2 * torch.arange(levels, dtype=dtype) / (levels - 1) - 1


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("mean", [-3.0, 0.3, 1.0])
@pytest.mark.parametrize("log_v", [-30.0, -6.0, 4.0])
def test_probabilities_sum_to_one(levels: int, mean: float, log_v: float) -> None:
    """Over all values, wherever the Gaussian lies and however wide it is."""
    x0 = values(levels)
    each = decoder(torch.full_like(x0, mean), torch.full_like(x0, log_v), x0, levels)
    close((-each).exp().sum(), torch.ones(()), rtol=1e-12)


def test_it_is_the_integral_over_a_bin() -> None:
    x0, mean, v = values(17)[9:10], 0.2, 0.05
    grid = torch.linspace(-1, 1, 20_001, dtype=torch.float64) / 16 + x0
    p = torch.trapezoid(torch.distributions.Normal(mean, v**0.5).log_prob(grid).exp(), grid)
    found = decoder(torch.tensor([mean]).double(), torch.tensor([v]).double().log(), x0, 17)
    close(found, -p.log().reshape(1), rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_its_gradient_lives_in_the_tails(dtype: torch.dtype) -> None:
    """Forty bins' worth of standard deviations away, at both ends and inside."""
    mean = torch.tensor([9.0, -9.0, 9.0, -9.0], dtype=dtype, requires_grad=True)
    log_v = torch.full((4,), -8.0, dtype=dtype, requires_grad=True)
    x0 = torch.tensor([-1.0, 1.0, 0.0, 0.0], dtype=dtype)
    loss = decoder(mean, log_v, x0, 17)
    of_mean, of_v = torch.autograd.grad(loss.sum(), [mean, log_v])
    assert bool(loss.isfinite().all()) and bool((loss > 1000).all())
    assert of_mean.sign().tolist() == [1, -1, 1, -1] and bool((of_v < -100).all())


def two_heads(says: float) -> sg.ScoreModel:
    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([0.3 * x, 0 * x + says], dim=1)

    return sg.ScoreModel(net, VP, "x0", heads=2)


@pytest.mark.parametrize(("more", "name"), [(-1.0, "small"), (1.0, "large")])
@pytest.mark.parametrize("steps", [1, 4])
def test_the_ends_of_the_range_are_small_and_large(more: float, name: Any, steps: int) -> None:
    """In the decoded term too; with one step there is no other."""
    k = torch.arange(17, dtype=torch.uint8).reshape(17, 1)
    how: dict[str, Any] = {"steps": steps, "levels": 17, "decoded": True, "seed": 0}
    model = two_heads(more)
    ours = discrete_elbo(model, k, variance=Range(), **how)
    theirs = discrete_elbo(model, k, variance=name, **how)
    close(ours.reconstruction, theirs.reconstruction, rtol=1e-9)
    close(ours.value, theirs.value, rtol=1e-9)
    assert ours.nfe == steps and (steps > 1 or not bool(ours.diffusion.any()))
    close(ours.bits(1), -ours.value / torch.tensor(2.0).double().log())  # nats to bits


@pytest.mark.parametrize("head", [Square(), Residual()], ids=str)
def test_a_variance_of_none_is_a_finite_loss(head: Any) -> None:
    """What is clamped at 0 has the least width that a bin allows."""
    k = torch.arange(17, dtype=torch.uint8).reshape(17, 1)
    found = discrete_elbo(
        two_heads(-1.0), k, steps=3, levels=17, decoded=True, variance=head, seed=0
    )
    assert not found.failed


def test_the_loss_has_the_decoder_at_its_last_step_alone() -> None:
    """Of a single step all samples have it, and the mean is a constant to it."""
    model, x0 = two_heads(0.3), values(17).reshape(17, 1)
    draws = [torch.Generator().manual_seed(0) for _ in range(3)]
    how: dict[str, Any] = {"head": Range(), "steps": 1}
    plain = hybrid_loss(model, x0, share=0.0, generator=draws[0], **how)
    whole = hybrid_loss(model, x0, share=1.0, levels=17, generator=draws[1], **how)
    z_of = draws[2]
    torch.rand(17, generator=z_of, dtype=torch.float64)
    z = torch.randn(x0.shape, generator=z_of, dtype=x0.dtype)
    t, s = VP(VP.T), VP(VP.t_min)
    said = model(VP.mix(x0, t, z), t)
    want = decoder(said.x0, Range().log_decoded(said, t, s), x0, 17)[:, 0]
    close(whole - plain, want, rtol=1e-6)


def test_it_is_of_values() -> None:
    with refused("decoded is of data that have levels"):
        discrete_elbo(two_heads(0.0), values(17).reshape(17, 1), steps=2, decoded=True)

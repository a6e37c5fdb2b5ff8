"""Likelihoods and encodings where levels differ between coordinates, on Gaussian data."""

from __future__ import annotations

import pytest
import torch

import sdegen as sg
from tests.cases import close, ends, normal, refused
from tests.coordinates import DIFFERENT, MEAN, STD, exact, flow


@pytest.mark.parametrize("on", DIFFERENT)
@pytest.mark.parametrize("scaled", [True, False])
def test_log_prob_is_the_flows_own(on: str, scaled: bool) -> None:
    """The prior's density where the exact flow ends, and the volume that it stretches."""
    sde, x = DIFFERENT[on], MEAN + STD * normal(4, 3)
    top, bottom = ends(sde)
    y = bottom.alpha * x if scaled else x
    z, gain = flow(y, bottom, top)
    change = gain * bottom.alpha if scaled else gain
    want = sde.prior.log_prob(z) + change.expand(4, 3).log().sum(1)
    found = sg.log_prob(exact(sde), x, scaled=scaled, solver=sg.AdaptiveRK(rtol=1e-7, atol=1e-8))
    close(found.value, want, atol=1e-4)
    close(found.z, z, rtol=1e-4, atol=1e-4)
    assert bool((found.error == 0).all())


def test_by_default_and_by_probes() -> None:
    sde, x = DIFFERENT["blurring"], MEAN + STD * normal(4, 3)
    exactly = sg.log_prob(exact(sde), x)
    assert not exactly.failed
    # The Jacobian is diagonal, of which random signs know the trace without an error.
    close(sg.log_prob(exact(sde), x, divergence="rademacher").value, exactly.value, atol=1e-3)


@pytest.mark.parametrize("on", DIFFERENT)
def test_encodings_are_the_exact_flows_and_lead_back(on: str) -> None:
    sde, x = DIFFERENT[on], MEAN + STD * normal(4, 3)
    model, (top, bottom) = exact(sde), ends(sde)
    z = sg.encode(model, x, steps=60)
    close(z, flow(bottom.alpha * x, bottom, top)[0], atol=2e-2, rtol=2e-2)
    close(sg.decode(model, z, steps=60), x, atol=5e-3)


def test_what_needs_one_lam_says_so() -> None:
    sde, x = DIFFERENT["anisotropic"], normal(2, 3)
    with refused("UniPC.* works with alpha and sigma, but a density where levels differ"):
        sg.log_prob(exact(sde), x, solver=sg.UniPC(), steps=5)
    with refused("A variational bound is an integral over one lam, but levels of Aniso"):
        sg.elbo(exact(sde), x)
    bytes_ = torch.randint(0, 256, (2, 3), dtype=torch.uint8)
    bits = sg.bits_per_dim(exact(sde), bytes_)
    assert bool(bits.value.isfinite().all())


def test_exact_distributions_of_one_level_say_so() -> None:
    sde = DIFFERENT["anisotropic"]
    problem = sg.exact.Gaussian([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    with refused("Exact distributions are known at levels that are the same for all"):
        sg.sample(sg.exact.exact_model(problem, sde), (2, 3), solver=sg.DDIM(), steps=2)

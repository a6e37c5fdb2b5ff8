"""The SDE and the solver are held to what they claim, on data whose score is exact."""

import pytest
import torch
from ownsde import Midpoint, PowerVE

import sdegen as sg
from sdegen.exact import Mixture, exact_model
from sdegen.exact.orders import flow_order


def test_the_sde_is_its_levels() -> None:
    """d sigma^2 / dt is the slope of sigma^2, and ``time`` inverts lambda."""
    sde, t = PowerVE(), torch.linspace(0.1, 1.0, 5, dtype=torch.float64)
    level, h = sde(t), 1e-6
    slope = (sde(t + h).sigma ** 2 - sde(t - h).sigma ** 2) / (2 * h)
    assert torch.allclose(level.d_var, slope, rtol=1e-6)
    assert torch.allclose(sde.time(level.lam), t)


def test_the_solver_has_its_order() -> None:
    assert flow_order(Midpoint(), PowerVE(), steps=(64, 128)) == pytest.approx(2, abs=0.2)


def test_samples_have_the_mean_of_the_data() -> None:
    mixture = Mixture([[1.0, 0.0], [-1.0, 0.5]], stds=[0.2, 0.3], weights=[0.5, 0.5])
    model = exact_model(mixture, PowerVE())
    x = sg.sample(model, (2000, 2), solver=Midpoint(), steps=20, walk="karras", seed=0)
    assert (x.mean(0) - torch.tensor([0.0, 0.25])).abs().max() < 0.1

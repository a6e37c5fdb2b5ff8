"""Analytic-DPM: the variance in closed form, and what it is good for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.exact.orders import ends
from sdegen.solvers.analytic import AnalyticDPM, analytic_dpm
from tests.cases import close, refused, sdes

DATA = Gaussian([0.3, -0.2, 0.1], [0.25, 0.04, 0.0])


def closed_form(sde: sg.LinearSDE, n: int) -> tuple[list[float], list[float]]:
    """lam, and Var[x0 | x_t] (1 + rho^-2) on average over the coordinates."""
    var = torch.tensor([0.25, 0.04, 0.0], dtype=torch.float64)
    levels = sde(sg.walks.log_snr(sde, n))
    a2, s2 = levels.alpha[:, None] ** 2, levels.sigma[:, None] ** 2
    V = (var * s2 / (a2 * var + s2)).mean(1)
    return levels.lam.tolist(), (V * (1 + levels.rho**-2)).tolist()


@sdes
def test_measured_variances_are_those_in_closed_form(sde: sg.LinearSDE) -> None:
    x0 = DATA.sample(20000, torch.Generator().manual_seed(0))
    found = analytic_dpm(exact_model(DATA, sde), x0, levels=9)
    lams, exact = closed_form(sde, 8)
    close(torch.tensor(found.lams), torch.tensor(lams), rtol=0, atol=1e-6)
    close(torch.tensor(found.values), torch.tensor(exact), rtol=0.03, atol=0)


@pytest.mark.parametrize("mean_eta", [1.0, 0.0])
def test_the_total_variance_is_right_where_ddpms_are_not(mean_eta: float) -> None:
    """In few steps on isotropic data, where the best Gaussian kernel is the true one."""
    data, sde = Gaussian([0.3, -0.2], [0.25, 0.25]), sg.VPSDE()
    model, top = exact_model(data, sde), ends(sde)[0]
    g = torch.Generator().manual_seed(1)
    x0 = data.sample(40000, g)
    start = top.alpha * x0 + top.sigma * torch.randn(x0.shape, generator=g, dtype=x0.dtype)
    solver = analytic_dpm(model, data.sample(40000, g), levels=200, mean_eta=mean_eta)
    errors = {}
    for name, each in {
        "analytic": solver,
        "small": sg.Ancestral("small"),
        "large": sg.Ancestral("large"),
    }.items():
        x = sg.sample(model, start, solver=each, steps=5, seed=0)
        errors[name] = float((x.var(0) / (0.25 * 0.999) - 1).abs().max())
    assert errors["analytic"] < 0.02 < 0.1 < min(errors["small"], errors["large"])


def test_of_a_point_it_is_ddpm_with_the_small_variance() -> None:
    data = Gaussian([0.3, -0.2], [0.0, 0.0])
    model = exact_model(data, sg.VPSDE())
    solver = AnalyticDPM((0.0,), (0.0,))
    start = torch.ones(3, 2, dtype=torch.float64)
    a, b = (
        sg.sample(model, start, solver=each, steps=4, seed=0)
        for each in (solver, sg.Ancestral("small"))
    )
    close(a, b)


def test_nonsense_is_refused() -> None:
    with refused("a value for each"):
        AnalyticDPM((0.0, 1.0), (0.5,))
    with refused("which rise"):
        AnalyticDPM((1.0, 0.0), (0.5, 0.5))
    with refused("are variances, but one is -1.5"):
        AnalyticDPM((0.0,), (-1.5,))
    with refused("mean_eta lies in"):
        replace(AnalyticDPM((0.0,), (0.5,)), mean_eta=2.0)

"""Noised and drawn again: the exact kernels of Gaussians, and what stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.exact.distributions import Gaussian, Mixture, exact_model
from sdegen.sampling import resample
from tests.cases import Plain, close, normal, refused

SDE = sg.VPSDE()
MEAN, VAR, N = 0.5, 0.3, 20_000


@pytest.mark.parametrize("rho", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_correlation_with_what_it_was(eta: float, rho: float) -> None:
    """k for eta = 1, sqrt(k) for eta = 0; mean and variance stay the data's."""
    problem = Gaussian([MEAN], [VAR])
    x = problem.sample(N, torch.Generator().manual_seed(0))
    how: dict[str, Any] = {"solver": sg.DPMSolverPP(2), "steps": 40, "eta": eta, "seed": 1}
    y = resample(exact_model(problem, SDE), x, rho=rho, denoise=True, **how)
    level = SDE(float(SDE.time(-torch.tensor(rho).double().log())))
    k = float(level.alpha**2 * VAR / (level.alpha**2 * VAR + level.sigma**2))
    want = k if eta else k**0.5
    found = float(torch.corrcoef(torch.cat([x, y], 1).T)[0, 1])
    assert abs(found - want) < 3.5 * (1 - want**2) / N**0.5 + 3e-3
    assert abs(float(y.mean()) - MEAN) < 4 * (VAR / N) ** 0.5
    assert abs(float(y.var()) - VAR) < 4 * VAR * (2 / N) ** 0.5 + 0.01 * VAR


def test_a_mixture_keeps_its_weights() -> None:
    problem = Mixture([[-1.0], [1.0]], [0.2, 0.2], [0.3, 0.7])
    x = problem.sample(4000, torch.Generator().manual_seed(0))
    model = exact_model(problem, SDE)
    for i in range(3):
        x = resample(model, x, rho=1.0, solver=sg.DPMSolverPP(2), steps=20, eta=1.0, seed=i)
    assert abs(float((x > 0).double().mean()) - 0.7) < 4 * (0.7 * 0.3 / 4000) ** 0.5


def test_a_sample_is_its_own_and_little_noise_changes_little() -> None:
    model = exact_model(Gaussian([MEAN, 0.0], [VAR, 1.0]), SDE)
    x, how = normal(3, 2), {"solver": sg.DDIM(), "steps": 5}
    whole = resample(model, x, t=0.4, seed=[1, 2, 3], **how)  # type: ignore[arg-type]
    alone = resample(model, x[1:2], t=0.4, seed=[2], **how)  # type: ignore[arg-type]
    close(alone, whole[1:2], rtol=1e-11, atol=1e-12)
    near = resample(model, x, rho=0.02, seed=0, **how)  # type: ignore[arg-type]
    assert float((near - x).abs().max()) < 0.1
    assert not torch.equal(resample(model, x, t=0.4, **how), whole)  # type: ignore[arg-type]


def test_a_path_is_the_same_each_time_and_no_source_is_refused() -> None:
    model, x, path = exact_model(Gaussian([MEAN], [VAR]), SDE), normal(3, 1), sg.Brownian(0, SDE.T)
    how: dict[str, Any] = {"t": 0.4, "solver": sg.EulerMaruyama(), "steps": 2}
    assert torch.equal(*(resample(model, x, noise=path, **how) for _ in range(2)))
    going_on = sg.Seeded(0)
    assert not torch.equal(*(resample(model, x, noise=going_on, **how) for _ in range(2)))
    with refused("noise is a source, such as Seeded"):
        resample(model, x, noise=torch.randn, **how)


def test_gradients_go_through() -> None:
    model = exact_model(Gaussian([MEAN, 0.0], [VAR, 1.0]), SDE)
    x = normal(2, 2).requires_grad_()
    how: dict[str, Any] = {"solver": sg.DDIM(), "steps": 4, "seed": 0}
    (slope,) = torch.autograd.grad(resample(model, x, t=0.3, graph=True, **how)[0, 0], x)
    e = torch.zeros(2, 2).double()
    e[0, 0] = 1e-5
    up, down = (resample(model, (x + k * e).detach(), t=0.3, **how)[0, 0] for k in (1, -1))
    close(slope[0, 0], (up - down) / 2e-5, rtol=1e-5)


def test_where_it_is_not_on_the_way() -> None:
    model, x = exact_model(Gaussian([MEAN], [VAR]), SDE), normal(2, 1)
    for how, says in (
        ({}, "Give one of t and rho, but t = None and rho = None"),
        ({"t": 0.3, "rho": 1.0}, "Give one of t and rho"),
        ({"t": 2.0}, r"t lies in \(0.001, 1\], but it is 2.0"),
        ({"t": 0.001}, "t lies in"),
        ({"rho": 1e6}, "rho lies in"),
        ({"rho": 0.0}, "rho"),
    ):
        with refused(says):
            resample(model, x, solver=sg.DDIM(), steps=3, **how)  # type: ignore[arg-type]
    with refused("resample needs"):
        resample(sg.ScoreModel(lambda x, t: x, Plain(), "score"), x, t=0.5, steps=3)

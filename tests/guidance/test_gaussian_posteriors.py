"""Samples of what is observed of Gaussians: their law, exactly, and nothing sampled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Gaussian, exact_model, posterior
from sdegen.guidance import Observed, jfps, mmps, pigdm, tmpd
from sdegen.guidance.inverse import PriorCovariance
from sdegen.noise.source import Noise
from tests.cases import SDES, close, ends, normal, refused

D, RANK, N, STEPS = 4, 2, 10_000, 60
MEAN = torch.tensor([0.5, -0.3, 0.2, 0.1]).double()
A = torch.tensor([[1.0, 0.5, 0.0, -0.3], [0.0, 1.0, 0.7, 0.2]]).double()
Y = torch.tensor([[0.4, -0.8]]).double()
ROOT = normal(D, D, seed=3)
FULL, UNIT = ROOT @ ROOT.T / 4 + 0.1 * torch.eye(D), torch.eye(D).double()


def measure(x: Tensor) -> Tensor:
    return x @ A.T


def identity(m: Any, y: Tensor, std: float) -> Observed:
    """DDNM+ by Bayes' rule."""
    return Observed(m, y, measure, std, out="identity", within="identity", iterations=RANK)


METHODS: dict[str, tuple[Any, Tensor]] = {
    "mmps": (lambda m, y, std: mmps(m, y, measure, std, iterations=RANK), FULL),
    "jfps": (lambda m, y, std: jfps(m, y, measure, std, FULL, iterations=RANK), FULL),
    "pigdm": (lambda m, y, std: pigdm(m, y, measure, std, iterations=RANK), UNIT),
    "ddnm": (identity, UNIT),
    "tmpd": (lambda m, y, std: tmpd(m, y, measure, std, iterations=RANK), FULL.diag().diag()),
}


class Units(Noise):
    """Draw k is one in coordinate i of row 1 + d + k d + i alone: what a sampler makes of it."""

    def __init__(self) -> None:
        self.k = 0

    def __call__(self, x: Tensor, t: Any, s: Any) -> Tensor:
        self.k += 1
        z, row = torch.zeros_like(x), 1 + self.k * x.shape[1]
        part = z[row : row + x.shape[1]]
        part[:] = torch.eye(x.shape[1]).to(x)[: len(part)]
        return z


def law(model: Any, solver: sg.Solver, eta: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a sampler that is affine in its start and its draws, of a start from
    the prior: row 0 starts at zero, the next d at a prior's standard deviation in each axis."""
    how: dict[str, Any] = {"solver": solver, "eta": eta, "walk": "log_snr"}
    count = Units()
    sg.solve(model, torch.zeros(1, D).double(), steps=2, noise=count, **how)
    x = torch.zeros(1 + D + D * count.k * STEPS // 2, D).double()
    x[1 : 1 + D] = model.sde.prior.std * torch.eye(D)
    y = sg.solve(model, x, steps=STEPS, noise=Units(), **how).x
    return y[0], (y[1:] - y[0]).T @ (y[1:] - y[0])


SOLVERS = {
    "unipc-0": (sg.UniPC(3), 0.0),
    "unipc-1": (sg.UniPC(3), 1.0),
    "dpmpp-0": (sg.DPMSolverPP(2), 0.0),
    "dpmpp-1": (sg.DPMSolverPP(2), 1.0),
    "heun-0": (sg.Heun(), 0.0),
}
CASES = [
    pytest.param(
        method,
        sde,
        solver,
        marks=()
        if sde == "vp" or (method == "mmps" and (sde != "marginal" or solver == "unipc-0"))
        else pytest.mark.slow,
    )
    for method in METHODS
    for sde in SDES
    for solver in SOLVERS
]


@pytest.mark.parametrize(("method", "sde", "solver"), CASES)
def test_a_sampler_of_a_gaussian_posterior(method: str, sde: str, solver: str) -> None:
    """What is exact has the posterior's mean within four standard errors of 10,000 samples, and
    its covariance within 3 %, at 60 steps.

    Nothing is drawn: what is left is the solver's error, and the mean of x_T, which starts leave
    out.
    """
    make, cov = METHODS[method]
    std = 0.3 if solver == "unipc-1" else 0.05
    prior, process = Gaussian(MEAN, cov), SDES[sde]
    want, (_, low) = posterior(prior, A, Y, std), ends(process)
    mean, spread = low.alpha * want.mean, low.alpha**2 * want.cov + low.sigma**2 * torch.eye(D)
    got_mean, got = law(make(exact_model(prior, process), Y, std), *SOLVERS[solver])
    assert bool(((got_mean - mean).abs() < 4 * (spread.diag() / N).sqrt()).all())
    assert float((got - spread).norm() / spread.norm()) < 0.03


def test_the_law_above_sees_a_method_that_is_not_exact() -> None:
    prior, process = Gaussian(MEAN, FULL), SDES["vp"]
    want = posterior(prior, A, Y, 0.3)
    for wrong in (identity, METHODS["pigdm"][0]):
        _, got = law(wrong(exact_model(prior, process), Y, 0.3), sg.UniPC(3), 0.0)
        assert float((got - want.cov).norm() / want.cov.norm()) > 0.03


@pytest.mark.parametrize("std", [0.3, 0.05])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_left_of_the_measurements_is_their_noise(method: str, std: float) -> None:
    """Of x0 from the prior and y = A x0 + std z, draws of x0 given y leave |y - A x0| = std."""
    make, cov = METHODS[method]
    prior, n = Gaussian(MEAN, cov), 300
    y = measure(prior.sample(n, torch.Generator().manual_seed(0))) + std * normal(n, RANK, seed=1)
    model = make(exact_model(prior, sg.VPSDE()), y, std)
    x = sg.sample(model, normal(n, D, seed=2), solver=sg.UniPC(3), steps=20, eta=1.0, seed=3)
    assert 0.8 < float((y - measure(x)).square().mean().sqrt()) / std < 1.2


@pytest.mark.parametrize("sde", ["vp", "edm", "flow", "ve"])
def test_jfps_of_a_covariance_is_the_posterior_mean(sde: str) -> None:
    """At every level, given whole or as variances, and of levels for each sample; P may be
    singular."""
    process, x = SDES[sde], normal(3, D)
    point = torch.tensor([0.7, 0.0, 0.3, 1.0]).double()
    for P in (FULL, point, torch.diag(point)):
        prior = Gaussian(MEAN, P)
        want = posterior(prior, A, Y, 0.2)
        model = jfps(exact_model(prior, process), Y, measure, 0.2, P, iterations=RANK)
        for t in (0.05, 0.3, torch.tensor([0.1, 0.4, 0.8]).double()):
            level = process(t * process.T)
            close(model(x, level).x0, want.denoise(x, level), rtol=1e-6, atol=1e-7)
    before = model.vjps
    with torch.no_grad():
        model.output(x, process(0.5))
    assert model.vjps == before


def test_a_covariance_of_images_is_flattened() -> None:
    """The same as variances of a state's shape, as a diagonal matrix, and pixel by pixel."""
    var, v = normal(1, 2, 3).square() + 0.1, normal(5, 1, 2, 3, seed=1)
    level = sg.VPSDE()(torch.linspace(0.1, 0.9, 5).double())
    want = 1 / (1 / var + (level.alpha / level.sigma).reshape(5, 1, 1, 1) ** 2) * v
    close(PriorCovariance(var).at(level, v)(v), want, rtol=1e-12)
    close(PriorCovariance(var.flatten().diag()).at(level, v)(v), want, rtol=1e-10)


def test_what_is_no_covariance_is_refused() -> None:
    model, x = exact_model(Gaussian(MEAN, FULL), sg.VPSDE()), normal(3, D)
    level = sg.VPSDE()(0.5)
    for P in (FULL.triu(), -torch.ones(D), torch.full((D,), torch.nan), torch.ones(D).int()):
        with refused("A prior's covariance is a symmetric matrix"):
            jfps(model, Y, measure, 0.1, P)
    before = model.nfe
    with refused(r"P is \(3, 3\), but a covariance of states \(3, 4\) is \(4, 4\), or variances"):
        jfps(model, Y, measure, 0.1, torch.eye(3).double()).output(x, level)
    assert model.nfe == before
    for P in (FULL.abs().triu(), FULL - 2 * torch.eye(D)):
        with refused("symmetric and has no negative variance along any axis, but P has one of"):
            jfps(model, Y, measure, 0.1, P).output(x, level)
    assert model.nfe == before
    with refused("S_out is 'moments', 'identity' or a PriorCovariance, but out = 'diagonal'"):
        Observed(model, Y, measure, 0.1, out="diagonal")
    for std in (0.0, -0.1):
        with refused("std is the noise's, > 0, but it is"):
            jfps(model, Y, measure, std, FULL)

"""Degenerate data: a point, no score, no signal."""

from __future__ import annotations

import math

import pytest
import torch

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from tests.cases import MIXTURE, Replay, close, ends, every_sde, normal, run

POINT = Gaussian([0.3, -0.7], [0.0, 0.0])


@every_sde
@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_point_mass_is_reached_in_one_step_of_any_size(sde: sg.LinearSDE, n: int) -> None:
    """x0 is constant, so an exponential integrator has nothing to approximate."""
    model, point = exact_model(POINT, sde), torch.tensor(POINT.mean, dtype=torch.float64)
    top, bottom = ends(sde)
    z = normal(4, 2)
    x = top.alpha * point + top.sigma * z
    for solver in (sg.DDIM(), sg.DPMSolverPP(1), sg.DPMSolverPP(2)):
        walk = sg.walks.log_snr(sde, n)
        close(run(solver, model, x, walk), bottom.alpha * point + bottom.sigma * z, 1e-8, 1e-9)
        end = sg.sample(model, x, solver=solver, walk=walk, denoise=True)
        close(end, point.expand(4, 2), 1e-12)


@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.EDMSDE()], ids=["vp", "edm"])
def test_noise_on_a_point_mass_has_exactly_the_forward_law(sde: sg.LinearSDE) -> None:
    """x_s = alpha_s p + sigma_s (keep z_t + sqrt(1 - keep^2) z), keep = e^{-eta^2 h} or DDIM's."""
    model, point = exact_model(POINT, sde), torch.tensor(POINT.mean, dtype=torch.float64)
    walk = sde.time(torch.tensor([-1.0, 0.7], dtype=torch.float64))
    t, s = sde(walk).unbind()
    z, w, h = normal(4, 2), normal(4, 2, seed=1), 1.7
    x = t.alpha * point + t.sigma * z
    for solver, eta, keep in (
        (sg.DPMSolverPP(2), 0.6, math.exp(-(0.6**2) * h)),
        (sg.Ancestral("small"), None, math.exp(-h)),
        (sg.DDIM(0.4), None, math.sqrt(1 - 0.4**2 * (1 - math.exp(-2 * h)))),
    ):
        want = s.alpha * point + s.sigma * (keep * z + math.sqrt(1 - keep**2) * w)
        close(run(solver, model, x, walk, eta=eta, noise=Replay([w])), want, 1e-9, 1e-10)


@every_sde
def test_without_a_score_only_the_signal_scales(sde: sg.LinearSDE) -> None:
    """score = 0: dx = f x dt, x_s = alpha_s / alpha_t x, at once for exponential integrators."""
    model = sg.ScoreModel(lambda x, t: torch.zeros_like(x), sde, "score")
    top, bottom = ends(sde)
    x = normal(4, 2)
    for solver in (sg.DDIM(), sg.DPMSolverPP(1), sg.DPMSolverPP(2)):
        close(run(solver, model, x, 4), bottom.alpha / top.alpha * x, 1e-9)
    p = sg.Reverse(model, 1.0, sg.Seeded(0))
    for norms in ("sample", "batch"):  # a ratio of norms there is not
        assert torch.equal(sg.Langevin(norms=norms).stay(p, x, bottom), x)  # type: ignore[arg-type]


@pytest.mark.parametrize("predicts", ["velocity", "v", "x0"])
@pytest.mark.parametrize(
    "solver",
    [sg.Euler(), sg.Heun(), sg.DDIM(), sg.DDIM(1.0), sg.DPMSolverPP(1), sg.DPMSolverPP(2)],
)
def test_a_flow_starts_from_pure_noise(solver: sg.Solver, predicts: str) -> None:
    """FlowSDE(T=1): lam is infinite at the start, and nothing that is not is computed from it."""
    sde = sg.FlowSDE(T=1.0, t_min=0.01)
    exact = exact_model(MIXTURE, sde)
    model = sg.ScoreModel(lambda x, t: getattr(exact(x, t), predicts), sde, predicts)
    x = normal(16, 2)
    short = sg.solve(model, x, solver=solver, steps=200, walk="uniform", seed=0)
    assert short.status.tolist() == [0] * 16
    if solver.eta == 0:
        limit = sg.sample(model, x, solver=sg.RK4(), steps=100, walk="uniform")
        assert float((short.x - limit).abs().max()) < 0.1

"""Solvers that are one, to rounding."""

from __future__ import annotations

import math

import pytest
import torch

import sdegen as sg
from sdegen.exact.distributions import exact_model
from tests.cases import MIXTURE, Smooth, close, every_sde, fixed_solvers, normal, run, sdes

NET = Smooth()


def same(
    sde: sg.LinearSDE, *cases: tuple[sg.Solver, float | None], n: int = 9, rtol: float = 1e-10
) -> None:
    """All of these solvers end at the same states with the same noise."""
    model = sg.ScoreModel(NET, sde, "v")
    x = float(sde.prior.std) * normal(5, 2)
    first, *others = (run(solver, model, x, n, eta=eta) for solver, eta in cases)
    for other in others:
        close(other, first, rtol, 1e-12)


@every_sde
def test_deterministic_first_order_is_one_method(sde: sg.LinearSDE) -> None:
    same(sde, (sg.DDIM(0.0), None), (sg.DPMSolverPP(1), None), (sg.DPMSolverPP(1), 0.0))


@every_sde
def test_ancestral_sampling_is_the_exponential_integrator_with_noise(sde: sg.LinearSDE) -> None:
    same(sde, (sg.DDIM(1.0), None), (sg.Ancestral("small"), None), (sg.DPMSolverPP(1), 1.0))
    same(sde, (sg.DDPM(), None), (sg.Ancestral("small"), 1.0))
    same(sde, (sg.DDPM("large"), None), (sg.Ancestral("large"), None))


@sdes
def test_euler_maruyama_without_noise_is_euler(sde: sg.LinearSDE) -> None:
    same(sde, (sg.EulerMaruyama(), 0.0), (sg.Euler(), None))


@every_sde
def test_an_eta_given_twice_is_an_eta_given_once(sde: sg.LinearSDE) -> None:
    same(sde, (sg.EulerMaruyama(), 1.0), (sg.EulerMaruyama(), None))
    same(sde, (sg.solvers.ReverseDiffusion(), 1.0), (sg.solvers.ReverseDiffusion(), None))


@pytest.mark.parametrize(
    "predictor",
    [sg.Euler(), sg.DPMSolverPP(2), sg.solvers.ReverseDiffusion(), sg.Ancestral(), sg.DDIM(0.3)],
)
def test_predictor_without_corrector_is_the_predictor(predictor: sg.Solver) -> None:
    pc = sg.PredictorCorrector(predictor, n=0)
    same(sg.VPSDE(), (pc, None), (predictor, None))
    assert pc.eta == (0.0 if pc.eta != predictor.eta else predictor.eta) == predictor.eta
    assert (
        pc.traits.calls == predictor.traits.calls and pc.traits.any_eta == predictor.traits.any_eta
    )


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 1.7])
def test_ddims_eta_and_ours_are_related_by_one_formula(eta: float) -> None:
    """e^{-2 eta^2 h} = 1 - eta_DDIM^2 (1 - e^{-2h}): one step, any h."""
    sde = sg.SubVPSDE()
    model, x = sg.ScoreModel(NET, sde), normal(4, 2)
    walk = torch.tensor([0.9, 0.6], dtype=torch.float64)
    t, s = sde(walk).unbind()
    h = float(s.lam - t.lam)
    ddim = math.sqrt(-math.expm1(-2 * eta**2 * h) / -math.expm1(-2 * h))
    if ddim <= 1:
        close(run(sg.DDIM(ddim), model, x, walk), run(sg.DPMSolverPP(1), model, x, walk, eta=eta))
    else:
        assert eta > 1


@fixed_solvers
def test_a_models_words_change_nothing(solver: sg.Solver) -> None:
    """One exact denoiser, told as x0, eps, score, v and velocity: one sample."""
    sde = sg.SubVPSDE()
    x, exact = normal(4, 2), exact_model(MIXTURE, sde)
    ends_ = []
    for predicts in ("x0", "eps", "score", "v", "velocity"):
        model = sg.ScoreModel(
            lambda x, t, view=predicts: getattr(exact(x, t), view), sde, predicts
        )
        ends_.append(run(solver, model, x, 6))
    for end in ends_[1:]:
        # Langevin steps are long here, and stretch a difference in the last bit.
        close(end, ends_[0], 1e-7, 1e-7)

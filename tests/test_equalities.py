"""Equalities, to rounding: published samplers in their own letters, and solvers that are one."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import (
    EVERY,
    MIXTURE,
    Replay,
    Smooth,
    close,
    ends,
    every_sde,
    fixed_solvers,
    normal,
    run,
    sdes,
)
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model

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


# -------------------------------------------------------------------------- solvers that are one


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
    assert pc.evals == predictor.evals and pc.any_eta == predictor.any_eta


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


@pytest.mark.parametrize("name", ["subvp", "ve", "cosine", "flow", "edm", "marginal", "discrete"])
def test_exponential_integrators_do_not_see_the_schedule(name: str) -> None:
    """On the same walk in rho, x / alpha is the same for every linear SDE."""
    vp, sde = sg.VPSDE(), EVERY[name]
    lam = torch.linspace(-3.0, 4.0, 8, dtype=torch.float64)
    x = normal(4, 2)
    for solver, eta in (
        (sg.DDIM(), None),
        (sg.DDIM(0.5), None),
        (sg.Ancestral(), None),
        (sg.DPMSolverPP(1), 0.7),
        (sg.DPMSolverPP(2), 0.0),
        (sg.DPMSolverPP(2), 1.0),
    ):
        ratios = []
        for each in (vp, sde):
            walk = each.time(lam)
            top, bottom = each(walk[[0, -1]]).unbind()
            end = run(solver, exact_model(MIXTURE, each), top.alpha * x, walk, eta=eta)
            ratios.append(end / bottom.alpha)
        close(ratios[1], ratios[0], 1e-9, 1e-11)


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


# ------------------------------------------------------------- DDPM and DDIM on their own betas


def ddpm(n: int = 1000) -> tuple[sg.DiscreteVPSDE, Tensor, Tensor]:
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)[:n]
    return sg.DiscreteVPSDE(betas.tolist()), betas, (1 - betas).cumprod(0)


def eps_net(x: Tensor, step: Tensor) -> Tensor:
    """A network that is told DDPM's step number."""
    return NET(x, step / 100)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_is_algorithm_2(variance: str) -> None:
    """Ho et al. (2020), alg. 2: x_{t-1} = (x_t - beta eps / sqrt(1 - bar)) / sqrt(a) + s z."""
    sde, beta, bar = ddpm(40)
    x, z = normal(4, 2), normal(39, 4, 2, seed=1)
    model = sg.ScoreModel(eps_net, sde, "eps", time=lambda level: 40 * level.t - 1)
    walk = torch.arange(40, 0, -1, dtype=torch.float64) / 40
    got = run(sg.DDPM(variance), model, x, walk, noise=Replay(list(z)))  # type: ignore[arg-type]
    for k, i in enumerate(range(39, 0, -1)):
        eps = eps_net(x, torch.full((4,), float(i), dtype=torch.float64))
        average = (x - beta[i] / (1 - bar[i]).sqrt() * eps) / (1 - beta[i]).sqrt()
        tilde = (1 - bar[i - 1]) / (1 - bar[i]) * beta[i]
        x = average + (tilde if variance == "small" else beta[i]).sqrt() * z[k]
    close(got, x, rtol=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tau", [range(0, 1000, 100), [3, 17, 200, 201, 640, 999]])
def test_ddim_is_eq_12_on_any_subsequence(eta: float, tau: list[int]) -> None:
    """Song, Meng & Ermon (2021), eqs. 12 and 16, with DDPM's label on DDPM's steps."""
    sde, _, bar = ddpm()
    down = list(reversed(tau))
    x, z = normal(4, 2), normal(len(down) - 1, 4, 2, seed=1)
    model = sg.ScoreModel(eps_net, sde, "eps", time="1000t-1")
    walk = (torch.tensor(down, dtype=torch.float64) + 1) / 1000
    got = run(sg.DDIM(eta), model, x, walk, noise=Replay(list(z)))
    for k, (i, j) in enumerate(pairwise(down)):
        eps = eps_net(x, torch.full((4,), float(i), dtype=torch.float64))
        a, b = bar[i], bar[j]
        sigma = eta * ((1 - b) / (1 - a)).sqrt() * (1 - a / b).sqrt()
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        x = b.sqrt() * x0 + (1 - b - sigma**2).sqrt() * eps + sigma * z[k]
    close(got, x, rtol=1e-9)


# --------------------------------------------------------------- Song et al.'s predictors by hand


def by_hand(
    sde: sg.LinearSDE,
    solver: sg.Solver,
    walk: Tensor,
    rule: Callable[[Tensor, Tensor, int, Tensor], Tensor],
) -> None:
    """The solver against  x <- rule(x, score, step, z)  along a walk."""
    model = sg.ScoreModel(NET, sde, "score")
    x, z = float(sde.prior.std) * normal(4, 2), normal(len(walk) - 1, 4, 2, seed=1)
    got = run(solver, model, x, walk, noise=Replay(list(z)))
    for k, t in enumerate(walk[:-1]):
        x = rule(x, NET(x, t.expand(4)), k, z[k])
    close(got, x, rtol=1e-9)


def test_predictors_for_vp() -> None:
    """Song et al. (2021), app. E, F: reverse diffusion, and ancestral with the large variance."""
    sde, betas, _ = ddpm(30)
    walk = torch.arange(30, 0, -1, dtype=torch.float64) / 30
    beta = betas.flip(0)

    def reverse_diffusion(x: Tensor, score: Tensor, k: int, z: Tensor) -> Tensor:
        b = beta[k]
        return (2 - (1 - b).sqrt()) * x + b * score + b.sqrt() * z

    def ancestral(x: Tensor, score: Tensor, k: int, z: Tensor) -> Tensor:
        b = beta[k]
        return (x + b * score) / (1 - b).sqrt() + b.sqrt() * z

    by_hand(sde, sg.solvers.ReverseDiffusion(), walk, reverse_diffusion)
    by_hand(sde, sg.Ancestral("large"), walk, ancestral)


def test_predictors_for_ve() -> None:
    """Song et al. (2021), eq. 47, and ancestral with the small variance."""
    sde = sg.VESDE()
    walk = sg.walks.uniform(sde, 12)
    var = sde(walk).sigma ** 2

    def reverse_diffusion(x: Tensor, score: Tensor, k: int, z: Tensor) -> Tensor:
        step = var[k] - var[k + 1]
        return x + step * score + step.sqrt() * z

    def ancestral(x: Tensor, score: Tensor, k: int, z: Tensor) -> Tensor:
        step = var[k] - var[k + 1]
        return x + step * score + (var[k + 1] * step / var[k]).sqrt() * z

    by_hand(sde, sg.solvers.ReverseDiffusion(), walk, reverse_diffusion)
    by_hand(sde, sg.Ancestral("small"), walk, ancestral)


def test_euler_maruyama_for_vp() -> None:
    """Song et al. (2021), eq. 6: [f x - g^2 score] dt + g dw, with the dt really taken."""
    walk = torch.tensor([1.0, 0.8, 0.75, 0.3, 0.01], dtype=torch.float64)

    def step(x: Tensor, score: Tensor, k: int, z: Tensor) -> Tensor:
        dt, beta = walk[k] - walk[k + 1], 0.1 + walk[k] * 19.9
        return x + (beta / 2 * x + beta * score) * dt + (beta * dt).sqrt() * z

    by_hand(sg.VPSDE(), sg.EulerMaruyama(), walk, step)


def test_langevin_is_its_formula() -> None:
    """Song et al. (2021), algs. 4 and 5, with each sample's own norms."""
    for sde, alpha in ((ddpm(30)[0], None), (sg.VESDE(), 1.0)):
        model = sg.ScoreModel(NET, sde, "score")
        x, z = normal(4, 2), normal(4, 2, seed=1)
        walk = torch.tensor([0.8, 0.7666666666666667], dtype=torch.float64)
        got = run(sg.Langevin(0.3), model, x, walk, noise=Replay([z]))
        score = NET(x, walk[1].expand(4))
        # 0.8 is step 24 of 30: its beta is the 24th, and Song's alpha_i = 1 - beta_i.
        a = alpha or float(1 - ddpm(30)[1][23])
        for i in range(4):
            e = 2 * a * (0.3 * z[i].norm() / score[i].norm()) ** 2
            close(got[i], x[i] + e * score[i] + (2 * e).sqrt() * z[i], rtol=1e-9)


def test_predictor_corrector_is_algorithm_1() -> None:
    """Predict to the new level, then correct there n times."""
    sde = sg.VESDE()
    model = sg.ScoreModel(NET, sde, "score")
    x, z = 50 * normal(4, 2), normal(9, 4, 2, seed=1)
    walk = sg.walks.uniform(sde, 3)
    pc = sg.PredictorCorrector(sg.solvers.ReverseDiffusion(), sg.Langevin(0.2), n=2)
    got = run(pc, model, x, walk, noise=Replay(list(z)))
    draws = iter(z)
    for t, s in pairwise(walk):
        pair = torch.stack([t, s])
        x = run(sg.solvers.ReverseDiffusion(), model, x, pair, noise=Replay([next(draws)]))
        for _ in range(2):
            x = run(sg.Langevin(0.2), model, x, pair, noise=Replay([next(draws)]))
    close(got, x)
    assert pc.evals == 3 and model.nfe == 18


# ------------------------------------------------------------------------ the fast ODE samplers


@every_sde
def test_dpm_solver_pp_2m_is_algorithm_2(sde: sg.LinearSDE) -> None:
    """Lu et al. (2022b), alg. 2, in its own letters."""
    model = sg.ScoreModel(NET, sde, "x0")
    x, t = float(sde.prior.std) * normal(4, 2), sg.walks.karras(sde, 7)
    got = run(sg.DPMSolverPP(2), model, x, t)
    lam, alpha, sigma = (getattr(sde(t), name) for name in ("lam", "alpha", "sigma"))
    h = lam.diff()
    buffer = [NET(x, t[0].expand(4))]
    x = sigma[1] / sigma[0] * x - alpha[1] * torch.expm1(-h[0]) * buffer[0]
    for i in range(2, 8):
        buffer.append(NET(x, t[i - 1].expand(4)))
        r = h[i - 2] / h[i - 1]
        D = (1 + 1 / (2 * r)) * buffer[-1] - 1 / (2 * r) * buffer[-2]
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * torch.expm1(-h[i - 1]) * D
    close(got, x, 1e-9, 1e-11)


def test_sde_dpm_solver_pp_2m_is_its_formula() -> None:
    """Lu et al. (2022b), eq. 18 (SDE-DPM-Solver++(2M)), in its own letters."""
    sde = sg.VPSDE()
    model = sg.ScoreModel(NET, sde, "x0")
    x, z, t = normal(4, 2), normal(7, 4, 2, seed=1), sg.walks.karras(sde, 7)
    got = run(sg.DPMSolverPP(2), model, x, t, eta=1.0, noise=Replay(list(z)))
    lam, alpha, sigma = (getattr(sde(t), name) for name in ("lam", "alpha", "sigma"))
    h, last = lam.diff(), None
    for i in range(1, 8):
        x0, k = NET(x, t[i - 1].expand(4)), h[i - 1]
        D1 = 0.0 if last is None else (x0 - last) / (h[i - 2] / k)
        grow = alpha[i] * (1 - (-2 * k).exp())
        noise = sigma[i] * (1 - (-2 * k).exp()).sqrt() * z[i - 1]
        x = sigma[i] / sigma[i - 1] * (-k).exp() * x + grow * x0 + grow / 2 * D1 + noise
        last = x0
    close(got, x, 1e-9, 1e-11)


def test_heun_on_edm_is_algorithm_1() -> None:
    """Karras et al. (2022), alg. 1 with S_churn = 0, in numpy: NFE = 2 N - 1."""
    N = 9
    sigma_data, weights = 0.5, NET.W.detach().numpy()

    def F(x: np.ndarray, c_noise: float) -> np.ndarray:
        return np.tanh(x @ weights + np.sin(c_noise)) + 0.1 * x

    def D(x: np.ndarray, s: float) -> np.ndarray:
        c_skip = sigma_data**2 / (s**2 + sigma_data**2)
        c_out = s * sigma_data / np.sqrt(s**2 + sigma_data**2)
        c_in = 1 / np.sqrt(s**2 + sigma_data**2)
        return c_skip * x + c_out * F(c_in * x, np.log(s) / 4)

    i = np.arange(N)
    t = (80 ** (1 / 7) + i / (N - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    t = np.append(t, 0.0)
    start = 80 * normal(4, 2)
    x = start.numpy()
    for i in range(N):
        d = (x - D(x, t[i])) / t[i]
        euler = x + (t[i + 1] - t[i]) * d
        if t[i + 1] != 0:
            d2 = (euler - D(euler, t[i + 1])) / t[i + 1]
            x = x + (t[i + 1] - t[i]) * (d / 2 + d2 / 2)
        else:
            x = euler
    model = sg.ScoreModel(NET, sg.EDMSDE(), "edm")
    out = sg.solve(model, start, solver=sg.Heun(), steps=N - 1, walk="karras", denoise=True)
    close(out.x, x, rtol=1e-10)
    assert out.nfe.tolist() == [2 * N - 1] * 4 == [model.nfe] * 4


def test_flow_matching_euler_is_its_usual_self() -> None:
    """x <- x + (s - t) v on the straight flow."""
    sde = sg.FlowSDE()
    x, walk = normal(4, 2), sg.walks.uniform(sg.FlowSDE(), 6)
    got = run(sg.Euler(), sg.ScoreModel(NET, sde, "velocity"), x, walk)
    for t, s in pairwise(walk):
        x = x + (s - t) * NET(x, t.expand(4))
    close(got, x)


@sdes
def test_runge_kutta_steps_are_their_tableaux(sde: sg.LinearSDE) -> None:
    model = sg.ScoreModel(NET, sde, "velocity")
    x, walk = normal(4, 2), torch.tensor([0.8, 0.5], dtype=torch.float64) * sde.T
    t, s = walk
    h, k1 = s - t, NET(x, t.expand(4))
    euler = x + h * k1
    close(run(sg.Euler(), model, x, walk), euler)
    close(run(sg.Heun(), model, x, walk), x + h / 2 * (k1 + NET(euler, s.expand(4))))
    half = ((t + s) / 2).expand(4)
    k2 = NET(x + h / 2 * k1, half)
    k3 = NET(x + h / 2 * k2, half)
    k4 = NET(x + h * k3, s.expand(4))
    close(run(sg.RK4(), model, x, walk), x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), 1e-11)


# ---------------------------------------------------------------------------------- torchdiffeq


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"])
def test_torchdiffeq_stays_inside_and_ends_at_the_end(method: str) -> None:
    seen: list[float] = []

    def label(level: sg.sde.Instant) -> Tensor:
        seen.append(float(level.t))
        return level.t

    sde = sg.VPSDE()
    exact = exact_model(MIXTURE, sde)
    model = sg.ScoreModel(lambda x, t: exact(x, t).eps, sde, time=label)
    seen.clear()
    walk = torch.tensor([1.0, 0.4, 1e-3], dtype=torch.float64)
    out = sg.solve(
        model, normal(4, 2), solver=sg.solvers.TorchDiffEq(method, 1e-4, 1e-4), walk=walk
    )
    assert len(seen) == model.nfe == int(out.nfe[0])
    # 0.4 is the end of one step and the start of the next, and belongs to both
    turn = seen.index(0.4)
    assert all(0.4 <= t <= 1.0 for t in seen[:turn])
    assert all(1e-3 <= t <= 1.0 for t in seen)
    assert out.status.tolist() == [0] * 4


def test_torchdiffeq_gives_no_sample_up_for_the_others() -> None:
    """The error norm is the worst sample's: ten thousand that rest do not loosen its tolerance."""
    model = sg.ScoreModel(lambda x, t: 5 * torch.sin(9 * t)[:, None] * x, sg.VPSDE(), "velocity")
    alone = normal(1, 2)
    crowd = torch.cat([alone, torch.zeros(10_000, 2, dtype=torch.float64)])
    for method in ("dopri5", "bosh3"):
        one, all_ = (
            sg.solve(model, x, solver=sg.solvers.TorchDiffEq(method)) for x in (alone, crowd)
        )
        assert one.nfe[0] == all_.nfe[0]
        close(all_.x[:1], one.x)


# ----------------------------------------------------------------------------------- degenerate


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
    assert torch.equal(run(sg.Langevin(), model, x, 3), x)


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
    short = sg.solve(model, x, solver=solver, steps=400, walk="uniform", seed=0)
    assert short.status.tolist() == [0] * 16
    if solver.eta == 0:
        limit = sg.sample(model, x, solver=sg.RK4(), steps=200, walk="uniform")
        assert float((short.x - limit).abs().max()) < 0.05


# -------------------------------------------------------------------------------- correctors


def langevin_by_hand(
    x: Tensor, model: sg.ScoreModel, at: sg.Level, a: float, z: Tensor, kind: str
) -> Tensor:
    """Song et al.'s corrector, as in algs. 4-5 and in their code: norms, or their means."""
    score = model(x, at).score
    noise, length = z.flatten(1).norm(dim=1), score.flatten(1).norm(dim=1)
    if kind == "batch":
        noise, length = noise.mean(), length.mean()
    e = torch.as_tensor(2 * a * (0.16 * noise / length) ** 2).reshape(-1, 1, 1)
    if kind == "annealed":
        e = 2 * a * (0.16 * at.sigma) ** 2
    return x + e * score + (2 * e) ** 0.5 * z


class Streams(sg.Noise):
    """Draws for the solver and, apart, for its corrector."""

    def __init__(self, mine: list[Tensor], other: list[Tensor]) -> None:
        self.mine, self.other = Replay(mine), Replay(other)

    def __call__(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
        return self.mine(x, t, s)

    def stream(self, name: str) -> sg.Noise:
        assert name == "corrector"
        return self.other


@pytest.mark.parametrize("when", ["after", "before"])
@pytest.mark.parametrize("kind", ["sample", "batch", "annealed"])
@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.VESDE()], ids=["vp", "ve"])
def test_predictor_and_corrector_by_hand(sde: sg.LinearSDE, kind: str, when: str) -> None:
    """Song et al. (2021), alg. 1; a = 1 - beta_i for VP, 1 for VE."""
    corrector = sg.solvers.AnnealedLangevin() if kind == "annealed" else sg.Langevin(norms=kind)  # type: ignore[arg-type]
    solver = sg.PredictorCorrector(sg.solvers.ReverseDiffusion(), corrector, n=2, when=when)  # type: ignore[arg-type]
    model, walk = sg.ScoreModel(NET, sde, "v"), sg.walks.log_snr(sde, 3)
    x = start = float(sde.prior.std) * normal(4, 2, 2)
    mine = [normal(4, 2, 2, seed=k) for k in range(3)]
    other = [normal(4, 2, 2, seed=10 + k) for k in range(6)]
    draws = iter(other)
    for (t, s), z in zip(pairwise(sde(walk).unbind()), mine, strict=True):
        a = float((t.alpha / s.alpha) ** 2)

        def correct(x: Tensor, at: sg.Level, a: float = a) -> Tensor:
            for _ in range(2):
                x = langevin_by_hand(x, model, at, a, next(draws), kind)
            return x

        x = correct(x, t) if when == "before" else x
        step = torch.stack([t.t, s.t])
        x = run(sg.solvers.ReverseDiffusion(), model, x, step, noise=Replay([z]))
        x = correct(x, s) if when == "after" else x
    close(run(solver, model, start, walk, noise=Streams(mine, other)), x, 1e-11)


def test_mean_norms_couple_samples_and_norms_of_samples_do_not() -> None:
    model, x = sg.ScoreModel(NET, sg.VPSDE()), normal(4, 2)
    other = torch.cat([x[:1], 5 * x[1:]])
    for norms, coupled in (("sample", False), ("batch", True)):
        solver = sg.PredictorCorrector(corrector=sg.Langevin(norms=norms))  # type: ignore[arg-type]
        a, b = (run(solver, model, start, 5)[0] for start in (x, other))
        assert torch.allclose(a, b, rtol=1e-12) != coupled

"""Published samplers in their own letters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdegen as sg
from tests.cases import Replay, Smooth, close, every_sde, normal, run, sdes

NET = Smooth()


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
    model = sg.ScoreModel(eps_net, sde, "eps", time=lambda level: 40 * level.t - 1, module=NET)
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
    model = sg.ScoreModel(eps_net, sde, "eps", time="1000t-1", module=NET)
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
    """Song et al. (2021), algs. 4 and 5, with each sample's own norms; r = sigma by the level."""
    for sde, alpha in ((ddpm(30)[0], None), (sg.VESDE(), 1.0)):
        model = sg.ScoreModel(NET, sde, "score")
        x, z = normal(4, 2), normal(4, 2, seed=1)
        walk = torch.tensor([0.8, 0.7666666666666667], dtype=torch.float64)
        score = NET(x, walk[1].expand(4))
        # 0.8 is step 24 of 30: its beta is the 24th, and Song's alpha_i = 1 - beta_i.
        a, t, s = alpha or float(1 - ddpm(30)[1][23]), *sde(walk).unbind()
        for norms in ("sample", "level"):
            p = sg.Reverse(model, 1.0, Replay([z]))
            got = sg.Langevin(0.3, norms).stay(p, x, s, (t.alpha / s.alpha) ** 2)  # type: ignore[arg-type]
            for i in range(4):
                r = z[i].norm() / score[i].norm() if norms == "sample" else s.sigma
                e = 2 * a * (0.3 * r) ** 2
                close(got[i], x[i] + e * score[i] + (2 * e).sqrt() * z[i], rtol=1e-9)


def test_predictor_corrector_is_algorithm_1() -> None:
    """Predict to the new level, then correct there n times."""
    sde = sg.VESDE()
    model = sg.ScoreModel(NET, sde, "score")
    x, z = 50 * normal(4, 2), normal(9, 4, 2, seed=1)
    walk = sg.walks.uniform(sde, 3)
    langevin = sg.Langevin(0.2, norms="sample")
    pc = sg.PredictorCorrector(sg.solvers.ReverseDiffusion(), langevin, n=2)
    got = run(pc, model, x, walk, noise=Replay(list(z)))
    draws = iter(z)
    for t, s in pairwise(walk):
        pair = torch.stack([t, s])
        x = run(sg.solvers.ReverseDiffusion(), model, x, pair, noise=Replay([next(draws)]))
        for _ in range(2):
            x = langevin.stay(sg.Reverse(model, 1.0, Replay([next(draws)])), x, sde(s))
    close(got, x)
    assert pc.traits.calls == 3 and model.nfe == 18


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


@pytest.mark.parametrize("skip", ["logSNR", "time_uniform", "time_quadratic"])
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("pp", [False, True], ids=["eps", "x0"])
def test_stages_divide_a_step_as_the_shipped_code_says(pp: bool, order: int, skip: Any) -> None:
    """dpm-solver's singlestep updates for any r_1 and r_2, which skip_type gives: i / order of the
    way in lam, t or sqrt t.  Lu et al. (2022a), algs. 1-2; Lu et al. (2022b), alg. 1."""
    sde = sg.VPSDE()
    model, x = sg.ScoreModel(NET, sde, "x0" if pp else "eps"), normal(4, 2)
    walk = torch.tensor([0.9, 0.4], dtype=torch.float64)
    cls = sg.solvers.DPMSolverPPSinglestep if pp else sg.DPMSolver
    got = run(cls(order, skip_type=skip), model, x, walk)
    parts = torch.arange(order + 1, dtype=torch.float64) / order
    if skip == "logSNR":
        lam = sde(walk).lam
        times = sde.time(torch.lerp(lam[0], lam[1], parts))
    elif skip == "time_uniform":
        times = 0.9 - 0.5 * parts
    else:
        times = (0.9**0.5 + (0.4**0.5 - 0.9**0.5) * parts) ** 2
    at = sde(times).unbind()
    s, e = at[0], at[-1]
    h = e.lam - s.lam
    r = [(level.lam - s.lam) / h for level in at]
    sign = -1 if pp else 1

    def carry(m: sg.Level) -> Tensor:
        return m.sigma / s.sigma if pp else m.alpha / s.alpha

    def scale(m: sg.Level) -> Tensor:
        return m.alpha if pp else m.sigma

    def out(y: Tensor, m: sg.Level) -> Tensor:
        return model(y, m).x0 if pp else model(y, m).eps

    def phi_1(c: Tensor | float) -> Tensor:
        return torch.expm1(sign * c * h)

    def phi_2(c: Tensor | float) -> Tensor:
        return phi_1(c) / (c * h) - sign

    first = out(x, s)
    x_1 = carry(at[1]) * x - scale(at[1]) * phi_1(r[1]) * first
    more = out(x_1, at[1]) - first
    if order == 2:
        want = carry(e) * x - scale(e) * phi_1(1.0) * first
        want = want - 0.5 / r[1] * scale(e) * phi_1(1.0) * more
    else:
        x_2 = carry(at[2]) * x - scale(at[2]) * phi_1(r[2]) * first
        x_2 = x_2 - sign * r[2] / r[1] * scale(at[2]) * phi_2(r[2]) * more
        last = out(x_2, at[2]) - first
        want = carry(e) * x - scale(e) * phi_1(1.0) * first
        want = want - sign * scale(e) * phi_2(1.0) / r[2] * last
    close(got, want, 1e-10)

"""Published exponential integrators in their own letters."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import exact_model
from tests.cases import MIXTURE, Replay, Smooth, close, normal, run

NET = Smooth()


def level(lam: float) -> sg.Level:
    """The level of EDM at a lam that is exact, where differences of lam are exact too."""
    at = sg.EDMSDE()(torch.tensor(math.exp(-lam), dtype=torch.float64))
    at.__dict__["lam"] = torch.tensor(lam, dtype=torch.float64)
    return at


WALK = sg.walks.log_snr(sg.VPSDE(), 7)
VP = sg.VPSDE()


def by_hand(step: Callable[..., Tensor], model: sg.ScoreModel) -> Tensor:
    """A march with a step of numpy's letters: step(i, x, levels, past) appends to past."""
    levels, x, past = VP(WALK).unbind(), normal(5, 2), []
    for i in range(len(WALK) - 1):
        x = step(i, x, levels, past, model)
    return x


def dpm_2(i: int, x: Tensor, at: Any, past: list[Any], model: sg.ScoreModel) -> Tensor:
    """Lu et al. (2022a), alg. 1."""
    t, s = at[i], at[i + 1]
    h = s.lam - t.lam
    m = VP(VP.time((t.lam + s.lam) / 2))
    u = m.alpha / t.alpha * x - m.sigma * torch.expm1(h / 2) * model(x, t).eps
    return s.alpha / t.alpha * x - s.sigma * torch.expm1(h) * model(u, m).eps


def dpm_3(i: int, x: Tensor, at: Any, past: list[Any], model: sg.ScoreModel) -> Tensor:
    """Lu et al. (2022a), alg. 2."""
    t, s, r1, r2 = at[i], at[i + 1], 1 / 3, 2 / 3
    h = s.lam - t.lam
    a, b = (VP(VP.time(t.lam + r * h)) for r in (r1, r2))
    eps = model(x, t).eps
    u = a.alpha / t.alpha * x - a.sigma * torch.expm1(r1 * h) * eps
    d1 = model(u, a).eps - eps
    e2 = torch.expm1(r2 * h)
    v = b.alpha / t.alpha * x - b.sigma * e2 * eps - b.sigma * r2 / r1 * (e2 / (r2 * h) - 1) * d1
    d2 = model(v, b).eps - eps
    e = torch.expm1(h)
    return s.alpha / t.alpha * x - s.sigma * e * eps - s.sigma / r2 * (e / h - 1) * d2


def dpmpp_2s(i: int, x: Tensor, at: Any, past: list[Any], model: sg.ScoreModel) -> Tensor:
    """Lu et al. (2022b), alg. 1 with r = 1/2."""
    t, s = at[i], at[i + 1]
    h = s.lam - t.lam
    m = VP(VP.time((t.lam + s.lam) / 2))
    x0 = model(x, t).x0
    u = m.sigma / t.sigma * x - m.alpha * torch.expm1(-h / 2) * x0
    return s.sigma / t.sigma * x - s.alpha * torch.expm1(-h) * model(u, m).x0


def dpmpp_3m(i: int, x: Tensor, at: Any, past: list[Any], model: sg.ScoreModel) -> Tensor:
    """dpm-solver's code: D2 is a divided difference, and meets phi_3 without its factor 2."""
    t, s = at[i], at[i + 1]
    h, m0 = s.lam - t.lam, model(x, t).x0
    past.insert(0, (t.lam, m0))
    first = s.sigma / t.sigma * x - s.alpha * torch.expm1(-h) * m0
    if len(past) == 1:
        return first
    r0 = (t.lam - past[1][0]) / h
    d0 = (m0 - past[1][1]) / r0
    if len(past) == 2:
        return first - s.alpha * torch.expm1(-h) * d0 / 2
    r1 = (past[1][0] - past[2][0]) / h
    d1 = (past[1][1] - past[2][1]) / r1
    D1, D2 = d0 + r0 / (r0 + r1) * (d0 - d1), (d0 - d1) / (r0 + r1)
    phi = torch.expm1(-h) / h + 1
    return first + s.alpha * phi * D1 - s.alpha * (phi / h - 0.5) * D2


def tab_deis(i: int, x: Tensor, at: Any, past: list[Any], model: sg.ScoreModel) -> Tensor:
    """Zhang & Chen (2023), eqs. 14-15, degree 2, their integral by SciPy."""
    t, s = at[i], at[i + 1]
    past.insert(0, (float(t.t), model(x, t).eps))
    del past[3:]

    def kernel(u: float) -> float:
        level = VP(u)
        return float(s.alpha / level.alpha * level.g2 / (2 * level.sigma))

    x = s.alpha / t.alpha * x
    for j, (tau, eps) in enumerate(past):
        others = [other for k, (other, _) in enumerate(past) if k != j]

        def basis(u: float, tau: float = tau, others: list[float] = others) -> float:
            return kernel(u) * math.prod((u - o) / (tau - o) for o in others)

        x = x + quad(basis, float(t.t), float(s.t), epsabs=1e-13, epsrel=1e-13)[0] * eps
    return x


@pytest.mark.parametrize(
    "solver, step",
    [
        (sg.DPMSolver(2), dpm_2),
        (sg.DPMSolver(3), dpm_3),
        (sg.solvers.DPMSolverPPSinglestep(2), dpmpp_2s),
        (sg.DPMSolverPP(3, published=True), dpmpp_3m),
        (sg.solvers.DEIS(3), tab_deis),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_published(solver: sg.Solver, step: Callable[..., Tensor]) -> None:
    model = sg.ScoreModel(NET, VP)
    close(run(solver, model, normal(5, 2), WALK), by_hand(step, model), 1e-10)


def test_er_sde_by_hand() -> None:
    """Cui et al. (2023), algs. 2, 4 and 5 phi(s) = s (exp(s^0.3) + 10), by SciPy."""
    sde = sg.EDMSDE()
    model, x = exact_model(MIXTURE, sde), 80.0 * normal(4, 2)
    walk, draws = sg.walks.karras(sde, 6, stop=0.1), [normal(4, 2, seed=k) for k in range(6)]
    sigma = walk.tolist()

    def phi(s: float) -> float:
        return s * (math.exp(s**0.3) + 10)

    def span(f: Callable[[float], float], a: float, b: float) -> float:
        return float(quad(f, a, b, epsabs=1e-14, epsrel=1e-13)[0])

    for order in (1, 2, 3):
        y, past = x, []
        for i, (a, b) in enumerate(pairwise(sigma)):
            past.insert(0, (a, model(y, a).x0))
            r = phi(b) / phi(a)
            noise = math.sqrt(b * b - (a * r) ** 2) * draws[i]
            nxt = r * y + (1 - r) * past[0][1]
            if order >= 2 and len(past) >= 2:
                d1 = (past[0][1] - past[1][1]) / (a - past[1][0])
                # x0 grows by d1 (s - a); its weight in x_b is phi(b) d(1 / phi).
                one = span(lambda s, b=b: phi(b) / phi(s), b, a)
                nxt = nxt + (b - a + one) * d1
            if order == 3 and len(past) >= 3:
                d1_r = (past[1][1] - past[2][1]) / (past[1][0] - past[2][0])
                d2 = (d1 - d1_r) / ((a - past[2][0]) / 2)
                two = span(lambda s, a=a, b=b: (s - a) * phi(b) / phi(s), b, a)
                nxt = nxt + ((b - a) ** 2 / 2 + two) * d2
            y = nxt + noise
        solver = sg.solvers.ERSDE(order, published=order == 3)
        close(run(solver, model, x, walk, noise=Replay(draws)), y, 1e-9)

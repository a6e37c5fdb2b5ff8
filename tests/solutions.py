"""Solutions that know nothing of the solvers: in closed form, by hand, or by SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.walks.grids import Grid
from tests.cases import MIXTURE, Smooth, ends, normal, run

NET = Smooth()


def mixture_x0(x: np.ndarray, alpha: float, sigma: float) -> np.ndarray:
    """E[x0 | x_t] of MIXTURE in numpy: posterior weights times posterior means."""
    means, stds, weights = (np.asarray(v) for v in (MIXTURE.means, MIXTURE.stds, MIXTURE.weights))
    var = alpha**2 * stds**2 + sigma**2
    off = x[:, None, :] - alpha * means
    log_p = np.log(weights) - (off**2).sum(-1) / (2 * var) - np.log(2 * np.pi * var)
    p = np.exp(log_p - log_p.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    each = (sigma**2 * means + alpha * stds[:, None] ** 2 * x[:, None, :]) / var[:, None]
    return (p[..., None] * each).sum(1)


def mixture_flow(x: Tensor, t: sg.Level, s: sg.Level) -> Tensor:
    """MIXTURE's probability flow from level t to level s, by SciPy at 1e-12.

    In y = x / alpha and u = log rho every linear SDE has the same flow, dy/du = y - x0(y, rho).
    """
    from scipy.integrate import solve_ivp

    def slope(u: float, y: np.ndarray) -> np.ndarray:
        y = y.reshape(-1, 2)
        return (y - mixture_x0(y, 1.0, math.exp(u))).ravel()

    span = -float(t.lam), -float(s.lam)
    y = (x / t.alpha).numpy().ravel()
    # The state starts at rho ~ 1,000 and ends near 1: its scale is carried by rtol alone.
    end = solve_ivp(slope, span, y, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    return s.alpha * torch.as_tensor(end).reshape(x.shape)


@cache
def exact_end(sde: sg.LinearSDE) -> tuple[Tensor, Tensor]:
    """16 states at T and where MIXTURE's probability flow takes them at t_min."""
    top, bottom = ends(sde)
    x = top.alpha * MIXTURE.sample(16, torch.Generator().manual_seed(1)) + top.sigma * normal(
        16, 2
    )
    return x, mixture_flow(x, top, bottom)


def flow_errors(
    solver: sg.Solver,
    sde: sg.LinearSDE,
    steps: Sequence[int],
    grid: Grid = sg.walks.log_snr,
    eta: float | None = None,
) -> list[float]:
    """Root-mean-square errors of a deterministic solver on MIXTURE's probability flow."""
    x, exact = exact_end(sde)
    model = exact_model(MIXTURE, sde)
    ends = [run(solver, model, x, n, grid=grid, eta=eta) for n in steps]
    return [float((end - exact).square().mean().sqrt()) for end in ends]


def gaussian(d: int) -> Gaussian:
    """Correlated, in d dimensions."""
    half = normal(d, d, seed=3) / d**0.5
    return Gaussian(normal(d, seed=4) / 2, half @ half.T + 0.1 * torch.eye(d, dtype=torch.float64))


def model_density(data: Gaussian, sde: sg.LinearSDE, x: Tensor) -> Tensor:
    """log p of the model with this exact score: the flow of a Gaussian is linear, its end known.

    The prior is not the data's own law at T, and this is the density that it leads to.
    """
    top, at = ends(sde)
    z = data.flow(at.alpha * x, at, top)
    d = x.shape[1]
    gain = data.log_prob(at.alpha * x, at) - data.log_prob(z, top)
    return sde.prior.log_prob(z) + gain + d * at.alpha.log()


def edm_x0(x: Tensor, sigma: Tensor, sigma_data: float = 0.5) -> Tensor:
    """EDM's denoiser of Smooth().  Karras et al. (2022), eq. 7 and table 1."""
    total = sigma**2 + sigma_data**2
    c_skip, c_out = sigma_data**2 / total, sigma * sigma_data / total**0.5
    F = NET(x / total**0.5, (sigma.log() / 4).expand(len(x)))
    return c_skip * x + c_out * F


def edm_heun(x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Karras et al. (2022), alg. 1, lines 4-8."""
    d = (x - edm_x0(x, t)) / t
    x_s = x + (s - t) * d
    return x_s if s == 0 else x + (s - t) * (d + (x_s - edm_x0(x_s, s)) / s) / 2

"""Forward processes: every curve against the papers' formulas, autograd and the SDE itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
import torch
from mpmath import mpf
from scipy import integrate, stats
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.sde.inverse import bisect
from sdegen.sde.process import Prior, linear
from tests.cases import (
    BY_CURVES,
    EVERY,
    MIXTURE,
    SDES,
    Plain,
    close,
    ends,
    every_sde,
    normal,
    refused,
    run,
    sdes,
    times,
)

SHAPES = [(3,), (3, 2), (3, 3, 8, 8), (3, 2, 3, 4, 5)]

# ------------------------------------------------ the papers' formulas, in fifty decimal digits

b0, b1 = mpf("0.1"), mpf(20)
s0 = mpf("0.008")


def vp(t: mpf) -> dict[str, mpf]:
    """Song et al. (2021), eqs. 11, 33: f = -beta/2, g = sqrt(beta)."""
    beta = b0 + t * (b1 - b0)
    alpha = mpmath.exp(-(t**2) * (b1 - b0) / 4 - t * b0 / 2)
    return {"alpha": alpha, "sigma": mpmath.sqrt(1 - alpha**2), "f": -beta / 2, "g2": beta}


def subvp(t: mpf) -> dict[str, mpf]:
    """Song et al. (2021), eqs. 28, 29, 33."""
    base, beta = vp(t), b0 + t * (b1 - b0)
    g2 = beta * (1 - mpmath.exp(-2 * b0 * t - (b1 - b0) * t**2))
    return {**base, "sigma": 1 - base["alpha"] ** 2, "g2": g2}


def ve(t: mpf) -> dict[str, mpf]:
    """Song et al. (2021), eq. 30: g = sigma_min (sigma_max / sigma_min)^t sqrt(2 log ratio)."""
    low, high = mpf("0.01"), mpf(50)
    sigma = low * (high / low) ** t
    g = sigma * mpmath.sqrt(2 * mpmath.log(high / low))
    return {"alpha": mpf(1), "sigma": sigma, "f": mpf(0), "g2": g**2}


def cosine(t: mpf) -> dict[str, mpf]:
    """Nichol & Dhariwal (2021), eq. 17: alpha-bar = F(t) / F(0); variance preserving."""

    def F(t: mpf) -> mpf:
        return mpmath.cos((t + s0) / (1 + s0) * mpmath.pi / 2) ** 2

    alpha = mpmath.sqrt(F(t) / F(mpf(0)))
    beta = -mpmath.diff(lambda u: mpmath.log(F(u)), t)
    return {"alpha": alpha, "sigma": mpmath.sqrt(1 - alpha**2), "f": -beta / 2, "g2": beta}


def edm(t: mpf) -> dict[str, mpf]:
    """Karras et al. (2022), eq. 5 with sigma(t) = t: dx = sqrt(2 t) dw."""
    return {"alpha": mpf(1), "sigma": t, "f": mpf(0), "g2": 2 * t}


def flow(t: mpf) -> dict[str, mpf]:
    """x_t = (1 - t) x0 + t eps: f = -1 / (1 - t), g^2 = 2 t / (1 - t)."""
    return {"alpha": 1 - t, "sigma": t, "f": -1 / (1 - t), "g2": 2 * t / (1 - t)}


PAPERS: dict[str, Callable[[mpf], dict[str, mpf]]] = {
    "vp": vp,
    "subvp": subvp,
    "ve": ve,
    "cosine": cosine,
    "edm": edm,
    "flow": flow,
}


@pytest.mark.parametrize("name", PAPERS)
def test_curves_are_the_papers_down_to_tiny_times(name: str) -> None:
    sde = SDES[name]
    with mpmath.workdps(50):
        for t in (1e-6, 1e-5, 1e-3, 0.1, 0.5, 0.9, sde.T):
            level, want = sde(torch.tensor(t, dtype=torch.float64)), PAPERS[name](mpf(t))
            want["lam"] = mpmath.log(want["alpha"] / want["sigma"])
            want["rho"] = want["sigma"] / want["alpha"]
            for quantity, value in want.items():
                got = float(getattr(level, quantity))
                assert abs(got - value) <= 2e-12 * max(abs(value), mpf(1e-300)), (quantity, t, got)


def test_discrete_alpha_is_ddpms_running_product() -> None:
    for betas in (np.linspace(1e-4, 2e-2, 1000), np.array([0.1, 0.2, 0.5, 0.3])):
        sde = sg.DiscreteVPSDE() if len(betas) == 1000 else sg.DiscreteVPSDE(betas.tolist())
        t = torch.arange(1, len(betas) + 1, dtype=torch.float64) / len(betas)
        bar = np.cumprod(1 - betas)
        close(sde(t).alpha ** 2, bar, rtol=1e-12)
        close(sde(t).sigma ** 2, 1 - bar, rtol=1e-11)
        close(sde.time(sde(t).lam), t, rtol=1e-12)
        assert (sde.t_min, sde.T) == (1 / len(betas), 1.0)


def test_discrete_log_alpha_is_linear_between_the_steps() -> None:
    sde = sg.DiscreteVPSDE([0.1, 0.2, 0.5, 0.3])
    part = torch.tensor([0.0, 0.25, 0.5, 0.9], dtype=torch.float64)
    left, right = torch.log(sde(0.25).alpha), torch.log(sde(0.5).alpha)
    close(torch.log(sde(0.25 + part / 4).alpha), torch.lerp(left, right, part))
    close(sde(0.25 + part[1:] / 4).f, ((right - left) * 4).expand(3))
    close(sde(0.25 + part[1:] / 4).g2, (-(right - left) * 8).expand(3))


def test_discrete_process_starts_at_the_data() -> None:
    """Before the first step log alpha is on the first step's line, down to t = 0."""
    level = sg.DiscreteVPSDE([0.1, 0.2, 0.5, 0.3])(torch.tensor([0.0, 0.125]).double())
    close(level.alpha, [1.0, 0.9**0.25])
    close(level.sigma, [0.0, math.sqrt(1 - 0.9**0.5)])
    close(level.g2, [-4 * math.log(0.9)] * 2)


# ------------------------------------------------------------------------------- consistency


@every_sde
def test_slopes_are_those_of_autograd(sde: sg.LinearSDE) -> None:
    t = times(sde, 300, middle=isinstance(sde, sg.DiscreteVPSDE)).requires_grad_()
    level = sde(t)

    def slope(curve: Tensor) -> Tensor:
        if not curve.requires_grad:
            return torch.zeros_like(t)
        return torch.autograd.grad(curve.sum(), t, retain_graph=True)[0]

    with torch.no_grad():
        f = (level.d_alpha / level.alpha).clone()
    close(level.d_alpha, slope(level.alpha), rtol=1e-11)
    close(level.d_sigma, slope(level.sigma), rtol=1e-10)
    close(level.d_var, slope(level.sigma**2), rtol=1e-10)
    close(level.f, slope(level.alpha.log()), rtol=1e-11)
    close(level.g2, slope(level.sigma**2) - 2 * f * level.sigma.detach() ** 2, rtol=1e-8)
    # and, in one line, everything at once: g^2 = -2 sigma^2 d lam / dt
    close(level.g2, -2 * level.sigma**2 * slope(level.lam), rtol=1e-8)


@every_sde
def test_time_is_the_inverse_of_lam(sde: sg.LinearSDE) -> None:
    t = times(sde, 900)
    close(sde.time(sde(t).lam), t, rtol=1e-9)
    assert bool((sde(t[:600]).lam.diff() < 0).all())


@sdes
def test_marginals_solve_the_moment_equations(sde: sg.LinearSDE) -> None:
    """dm/dt = f m and dv/dt = 2 f v + g^2, integrated by SciPy from t_min to T."""

    def moments(t: float, mv: np.ndarray) -> list[float]:
        level = sde(torch.tensor(t, dtype=torch.float64))
        f, g2 = float(level.f), float(level.g2)
        return [f * mv[0], 2 * f * mv[1] + g2]

    top, bottom = ends(sde)
    start = [float(bottom.alpha), float(bottom.sigma**2)]
    loose = isinstance(sde, sg.MarginalSDE)
    got = integrate.solve_ivp(
        moments, (sde.t_min, sde.T), start, rtol=1e-6 if loose else 1e-9, atol=1e-14
    ).y[:, -1]
    close(got, [float(top.alpha), float(top.sigma**2)], rtol=1e-4 if loose else 1e-6)


@every_sde
def test_a_python_float_is_the_time_that_it_is(sde: sg.LinearSDE) -> None:
    """0.999 in float32 is another time, at which a flow's alpha is 1.3e-5 off."""
    for t in (sde.T, sde.t_min, 0.3 * sde.T):
        exact = sde(torch.tensor(t, dtype=torch.float64))
        for quantity in ("t", "alpha", "sigma", "d_alpha", "d_var"):
            assert torch.equal(getattr(sde(t), quantity), getattr(exact, quantity)), quantity


@every_sde
def test_levels_are_float64_of_the_times_shape(sde: sg.LinearSDE) -> None:
    for t in (torch.tensor(0.5), torch.tensor([0.25, 0.5]), torch.tensor([0.5]).double(), 0.5):
        level, shape = sde(t), t.shape if isinstance(t, Tensor) else ()
        for quantity in ("t", "alpha", "sigma", "d_alpha", "d_var", "lam", "rho", "f", "g2"):
            value = getattr(level, quantity)
            assert value.dtype == torch.float64 and value.shape == shape, quantity


@every_sde
def test_one_time_expanded_over_a_batch(sde: sg.LinearSDE) -> None:
    t = torch.tensor(0.5 * sde.T, dtype=torch.float64)
    close(sde(t.expand(4)).alpha, sde(t).alpha.expand(4))
    close(sde(t.expand(4)).g2, sde(t).g2.expand(4))


@every_sde
def test_unbind_is_one_level_for_each_time(sde: sg.LinearSDE) -> None:
    t = times(sde, 30)
    for alone, at in zip(t, sde(t).unbind(), strict=True):
        for quantity in ("t", "alpha", "sigma", "d_alpha", "d_var", "lam", "f", "g2", "d_sigma"):
            close(getattr(at, quantity), getattr(sde(alone), quantity), rtol=1e-14)


# ---------------------------------------------------------------------------- acting on states


@every_sde
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_states_of_any_shape(sde: sg.LinearSDE, shape: tuple[int, ...]) -> None:
    x, z = normal(*shape), normal(*shape, seed=1)
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64) * sde.T
    noisy, score = sde.perturb(x, t, z)
    drift, g = sde.drift(x, t), sde.diffusion(x, t)
    for i in range(3):
        level = sde(t[i])
        close(noisy[i], level.alpha * x[i] + level.sigma * z[i])
        close(score[i], -(noisy[i] - level.alpha * x[i]) / level.sigma**2, 1e-9, 1e-12)
        close(drift[i], level.f * x[i])
        close((g * torch.ones_like(x))[i], level.g2.sqrt().expand(shape[1:]))
        one, _ = sde.perturb(x, t[i], z)
        close(one[i], noisy[i])
        close(sde.drift(x, t[i])[i], drift[i])
        close((sde.diffusion(x, t[i]) * torch.ones_like(x))[i], (g * torch.ones_like(x))[i])


@every_sde
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_coefficient_promotes_a_state(sde: sg.LinearSDE, dtype: torch.dtype) -> None:
    x = normal(3, 2, dtype=dtype)
    for t in (torch.tensor([0.2, 0.5, 0.8]) * sde.T, torch.tensor(0.5 * sde.T)):
        noisy, score = sde.perturb(x, t, x)
        assert noisy.dtype == score.dtype == dtype
        assert sde.drift(x, t).dtype == dtype
        assert (sde.diffusion(x, t) * x).dtype == dtype
        assert sde.prior.sample(x).dtype == dtype


def test_float32_times_cost_only_their_own_rounding() -> None:
    """The level is made in float64: at t = 1e-6 sigma is right to 1e-7, not 9 % off."""
    sde, t = sg.VPSDE(t_min=1e-6), torch.tensor([1e-6, 1e-5, 1e-3])
    x, z = torch.zeros(3, 1), torch.ones(3, 1)
    with mpmath.workdps(50):
        want = [float(vp(mpf(v))["sigma"]) for v in t.tolist()]
    close(sde.perturb(x, t, z)[0][:, 0], want, rtol=1e-7)


def test_vp_diffusion_at_time_zero_is_the_root_of_beta_min() -> None:
    sde = sg.VPSDE(t_min=0.0)
    close(sde.diffusion(torch.zeros(1, 1), torch.tensor(0.0)), math.sqrt(0.1))
    close(sg.SubVPSDE(t_min=0.0).diffusion(torch.zeros(1, 1), torch.tensor(0.0)), 0.0)


# ------------------------------------------------------------------------------------ priors


@every_sde
def test_prior_is_the_papers(sde: sg.LinearSDE) -> None:
    std = {"ve": 50.0, "edm": 80.0, "flow": 0.999, "marginal": math.sqrt(3) * 4}
    want = next((std[name] for name in std if SDES[name] is sde), 1.0)
    close(sde.prior.std, want)
    x = want * normal(5, 3, 2, 2)
    exact = torch.distributions.Normal(torch.zeros_like(x), want).log_prob(x).sum((1, 2, 3))
    close(sde.prior.log_prob(x), exact)
    close(sde.prior.log_prob(x), stats.norm(scale=want).logpdf(x.numpy()).sum((1, 2, 3)), 1e-10)
    close(sde.prior.sample(x), want * x)
    # the law that the prior stands for: x_T of data of unit scale
    level = ends(sde)[0]
    assert float(level.alpha / level.sigma) < 0.11 and abs(float(level.sigma) / want - 1) < 1e-3


def test_prior_std_may_differ_from_coordinate_to_coordinate() -> None:
    std = torch.tensor([1.0, 2.0, 0.5])
    x = normal(4, 3)
    exact = torch.distributions.MultivariateNormal(
        torch.zeros(3, dtype=torch.float64), torch.diag(std.double() ** 2)
    ).log_prob(x)
    close(Prior(std).log_prob(x), exact)
    assert Prior(std).log_prob(x.float()).dtype == torch.float32
    close(Prior(std).sample(x), std * x)


def test_a_prior_may_have_a_mean_of_each_sample() -> None:
    mean, std = normal(4, 3, seed=1), torch.tensor([1.0, 2.0, 0.5])
    x = normal(4, 3)
    law = torch.distributions.MultivariateNormal(mean, torch.diag(std.double() ** 2))
    close(Prior(std, mean).log_prob(x), law.log_prob(x))
    close(Prior(std=std, mean=mean).sample(x), mean + std * x)
    assert Prior(2.0, mean=1.0).sample(x.float()).dtype == torch.float32


# ------------------------------------------------------------------------- your own two curves

COPIES: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "vp": lambda t: vp_curves(t),
    "edm": lambda t: (torch.ones_like(t), t),
    "flow": lambda t: (1 - t, 1.0 * t),
    "ve": lambda t: (torch.ones_like(t), 0.01 * 5000**t),
}


def vp_curves(t: Tensor) -> tuple[Tensor, Tensor]:
    log_alpha = -0.25 * t**2 * 19.9 - 0.05 * t
    return torch.exp(log_alpha), torch.sqrt(-torch.expm1(2 * log_alpha))


@pytest.mark.parametrize("name", COPIES)
def test_two_curves_are_enough(name: str) -> None:
    sde = SDES[name]
    copy = sg.MarginalSDE(COPIES[name], T=sde.T, t_min=sde.t_min, prior_std=float(sde.prior.std))
    t = times(sde, 90)
    for quantity in ("alpha", "sigma", "d_alpha", "d_var", "lam", "f", "g2"):
        close(getattr(copy(t), quantity), getattr(sde(t), quantity), rtol=1e-9)
    close(copy.time(sde(t).lam), t, rtol=1e-9)
    close(copy.prior.std, sde.prior.std)
    x = float(sde.prior.std) * normal(4, 2)
    for solver in (sg.Heun(), sg.DPMSolverPP(2), sg.EulerMaruyama()):
        ours = run(solver, exact_model(MIXTURE, copy), x, 8)
        close(ours, run(solver, exact_model(MIXTURE, sde), x, 8), rtol=1e-8)


def test_prior_of_two_curves_is_their_last_sigma() -> None:
    close(BY_CURVES.prior.std, math.sqrt(3.0) * 4)


# ------------------------------------------------------------------------------ any SDE at all


def test_an_sde_without_a_kernel_says_what_to_define() -> None:
    assert torch.equal(Plain()(0.25).t, torch.tensor(0.25, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"define perturb\(x0, t, z\)"):
        Plain().perturb(torch.zeros(2, 1), torch.ones(2), torch.zeros(2, 1))


def test_sdes_are_values() -> None:
    assert sg.VPSDE() == sg.VPSDE(0.1, 20.0) != sg.VPSDE(beta_max=10.0)
    assert hash(sg.VESDE()) == hash(sg.VESDE())
    assert sg.DiscreteVPSDE([0.1, 0.2]) == sg.DiscreteVPSDE((0.1, 0.2))
    with pytest.raises(AttributeError):
        sg.VPSDE().T = 2.0  # type: ignore[misc]
    assert len({type(sde) for sde in EVERY.values()}) == len(EVERY)


def test_bisection_ends_where_the_condition_does() -> None:
    """To the last bit or two, at both ends of the interval too, each element by itself."""
    goal = torch.tensor([0.0, 1e-9, 1 / 3, 0.7, 1.0], dtype=torch.float64)
    found = bisect(lambda t: t**3 < goal, torch.zeros_like(goal), torch.ones_like(goal))
    close(found**3, goal, rtol=1e-14, atol=1e-50)


def test_a_linear_sde_is_itself_and_another_is_refused() -> None:
    sde = sg.VPSDE()
    assert linear(sde, "This", "do that") is sde
    with refused("^This needs alpha and sigma, but Plain gives only drift and diffusion: do that"):
        linear(Plain(), "This", "do that")

"""Orders: every solver converges to the exact law as fast as it says, on every SDE."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import (
    MIXTURE,
    SDES,
    Smooth,
    close,
    ends,
    exact_end,
    flow_errors,
    mixture_flow,
    mixture_x0,
    normal,
    run,
    sdes,
    slopes,
)
from torch import Tensor

import sdegen as sg
from sdegen.analytic import Gaussian, exact_model
from sdegen.noise import Noise

# ------------------------------------------------------------------------ the reference itself


@sdes
def test_exact_denoiser_is_the_posterior_mean_worked_out_in_numpy(sde: sg.LinearSDE) -> None:
    for level in ends(sde):
        x = level.alpha * normal(50, 2) + level.sigma * normal(50, 2, seed=1)
        want = mixture_x0(x.numpy(), float(level.alpha), float(level.sigma))
        close(MIXTURE.denoise(x, level), want, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("sde", [SDES[name] for name in SDES if name != "marginal"])
def test_three_references_agree(sde: sg.LinearSDE) -> None:
    """SciPy in rho, torchdiffeq in t and RK4 on many steps: three codes, one solution."""
    x, exact = exact_end(sde)
    model = exact_model(MIXTURE, sde)
    close(run(sg.TorchDiffEq(rtol=1e-10, atol=1e-10), model, x, 1), exact, 0, 1e-9)
    close(run(sg.RK4(), model, x, 768), exact, 0, 1e-9)


def test_gaussian_flow_in_closed_form_is_the_flow() -> None:
    gauss = Gaussian([0.3, -1.0], [[0.5, 0.2], [0.2, 0.3]])
    for sde in (sg.VPSDE(), sg.SubVPSDE(), sg.EDM()):
        top, bottom = ends(sde)
        x = top.sigma * normal(8, 2)
        there = run(sg.RK4(), exact_model(gauss, sde), x, 512)
        close(gauss.flow(x, top, bottom), there, 0, 1e-8)
        close(gauss.flow(gauss.flow(x, top, bottom), bottom, top), x)


# ------------------------------------------------------------------------- deterministic solvers

ODE: dict[str, tuple[sg.Solver, float | None]] = {
    "Euler": (sg.Euler(), None),
    "Heun": (sg.Heun(), None),
    "RK4": (sg.RK4(), None),
    "DDIM": (sg.DDIM(), None),
    "DPMSolverPP-1": (sg.DPMSolverPP(1), None),
    "DPMSolverPP-2": (sg.DPMSolverPP(2), None),
    "EulerMaruyama-0": (sg.EulerMaruyama(), 0.0),
    "ReverseDiffusion-0": (sg.ReverseDiffusion(), 0.0),
}


@sdes
@pytest.mark.parametrize("case", ODE.values(), ids=ODE)
def test_order_on_the_probability_flow(
    sde: sg.LinearSDE, case: tuple[sg.Solver, float | None]
) -> None:
    solver, eta = case
    (slope,) = slopes(flow_errors(solver, sde, (128, 256), eta=eta))
    assert abs(slope - solver.order) < 0.1, slope


@pytest.mark.parametrize("grid", [sg.uniform, sg.quadratic, sg.karras], ids=lambda g: g.__name__)
def test_order_does_not_depend_on_the_walk(grid: sg.grids.Grid) -> None:
    for solver in (sg.Euler(), sg.Heun(), sg.DPMSolverPP(2)):
        (slope,) = slopes(flow_errors(solver, sg.VPSDE(), (256, 512), grid=grid))
        assert abs(slope - solver.order) < 0.1, (solver, slope)


@pytest.mark.parametrize("solver", [sg.DDIM(), sg.DPMSolverPP(2)], ids=["DDIM", "DPMSolverPP-2"])
def test_order_on_ddpms_betas(solver: sg.Solver) -> None:
    """An exponential integrator sees only alpha and sigma: kinks in f and g cost it nothing."""
    (slope,) = slopes(flow_errors(solver, sg.DiscreteVPSDE(), (128, 256)))
    assert abs(slope - solver.order) < 0.1, slope


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"])
def test_adaptive_error_falls_with_the_tolerance(method: str) -> None:
    sde = sg.VPSDE()
    x, exact = exact_end(sde)
    model = exact_model(MIXTURE, sde)
    loose, tight = (
        rms(run(sg.TorchDiffEq(method, tolerance, tolerance), model, x, 1) - exact)
        for tolerance in (1e-3, 1e-6)
    )
    assert tight < 1e-3 and tight < loose / 50


def test_multistep_starts_at_order_one_and_forgets_at_the_end_of_a_march() -> None:
    model = sg.ScoreModel(Smooth(), sg.VPSDE())
    x, walk = normal(4, 2), sg.log_snr(sg.VPSDE(), 5)
    close(run(sg.DPMSolverPP(2), model, x, walk[:2]), run(sg.DPMSolverPP(1), model, x, walk[:2]))
    twice = run(sg.DPMSolverPP(2), model, run(sg.DPMSolverPP(2), model, x, walk[:3]), walk[2:])
    assert not torch.allclose(twice, run(sg.DPMSolverPP(2), model, x, walk), rtol=1e-3)


# ---------------------------------------------------------- weak order, exactly: affine samplers

MEAN, VAR = (0.3, -0.2), (0.25, 1e-4)
"""Wide and narrow: the narrow coordinate shows errors that are made at small sigma."""


class Probe(Noise):
    """One-hot noise: draw k moves only row k + 2 of the batch."""

    def __init__(self) -> None:
        self.k = 0

    def __call__(self, x: Tensor, t: sg.Instant, s: sg.Instant) -> Tensor:
        z = torch.zeros_like(x)
        self.k += 1
        z[self.k + 1] = 1
        return z


def law(solver: sg.Solver, sde: sg.LinearSDE, n: int, eta: float | None) -> tuple[Tensor, Tensor]:
    """Exact relative errors of the mean and the variance of a sampler on Gaussian data.

    The sampler is affine in x_T and in each of its n draws: row 0 starts at zero, row 1 at one,
    row k + 2 gets draw k alone, and the differences are its coefficients.
    """
    mean, var = (torch.tensor(v, dtype=torch.float64) for v in (MEAN, VAR))
    top, bottom = ends(sde)
    x = torch.zeros(n + 2, 2, dtype=torch.float64)
    x[1] = 1
    probe = Probe()
    y = run(solver, exact_model(Gaussian(MEAN, VAR), sde), x, n, eta=eta, noise=probe)
    assert probe.k == n
    unit = y[1:] - y[0]
    got_mean = y[0] + unit[0] * top.alpha * mean
    got_var = unit[0] ** 2 * (top.alpha**2 * var + top.sigma**2) + unit[1:].square().sum(0)
    exact_var = bottom.alpha**2 * var + bottom.sigma**2
    return got_mean - bottom.alpha * mean, got_var / exact_var - 1


KEEPS_THE_MEAN = (sg.DDIM, sg.DPMSolverPP, sg.Ancestral)

SDE_CASES: dict[str, tuple[sg.Solver, float | None]] = {
    "EulerMaruyama": (sg.EulerMaruyama(), None),
    "EulerMaruyama-0.5": (sg.EulerMaruyama(), 0.5),
    "ReverseDiffusion": (sg.ReverseDiffusion(), None),
    "ReverseDiffusion-0.8": (sg.ReverseDiffusion(), 0.8),
    "Ancestral-small": (sg.Ancestral("small"), None),
    "Ancestral-large": (sg.Ancestral("large"), None),
    "DDIM-0.5": (sg.DDIM(0.5), None),
    "DDIM-1": (sg.DDIM(1.0), None),
    "DPMSolverPP-1-1": (sg.DPMSolverPP(1), 1.0),
    "DPMSolverPP-2-1": (sg.DPMSolverPP(2), 1.0),
    "DPMSolverPP-2-0.5": (sg.DPMSolverPP(2), 0.5),
    "DPMSolverPP-2-1.5": (sg.DPMSolverPP(2), 1.5),
}


@sdes
@pytest.mark.parametrize("case", SDE_CASES.values(), ids=SDE_CASES)
def test_weak_order_on_gaussian_data(
    sde: sg.LinearSDE, case: tuple[sg.Solver, float | None]
) -> None:
    solver, eta = case
    laws = [law(solver, sde, n, eta) for n in (128, 256)]
    (slope,) = slopes([float(mean.abs().sum() + var.abs().sum()) for mean, var in laws])
    assert abs(slope - solver.order) < 0.15, slope
    assert float(laws[-1][1].abs().max()) < 0.2
    if isinstance(solver, KEEPS_THE_MEAN):
        close(laws[0][0], torch.zeros(2), 0, 1e-12)


# ------------------------------------- strong order: one path of noise seen at every step size


class Path(Noise):
    """Brownian increments on fine times, summed over the step and scaled to N(0, I).

    A method's own weighting of the noise inside a step differs from this one by a relative O(h),
    independent from step to step: that leaves strong order 1 as it is.
    """

    def __init__(self, fine: Tensor, draws: Tensor) -> None:
        self.fine, self.draws = fine, draws

    def __call__(self, x: Tensor, t: sg.Instant, s: sg.Instant) -> Tensor:
        i, j = (int((self.fine - at.t).abs().argmin()) for at in (t, s))
        dt = -self.fine.diff()[i:j, None, None]
        return (self.draws[i:j] * dt.sqrt()).sum(0) / dt.sum().sqrt()


STRONG: dict[str, tuple[sg.Solver, float | None]] = {
    name: SDE_CASES[name]
    for name in (
        "EulerMaruyama",
        "ReverseDiffusion",
        "Ancestral-small",
        "Ancestral-large",
        "DDIM-1",
        "DPMSolverPP-1-1",
        "DPMSolverPP-2-1",
    )
}


def test_strong_order_on_a_mixture_and_one_limit_for_all() -> None:
    """A Gaussian is a kind test: here the drift is not linear and the noise is real."""
    sde, finest = sg.VPSDE(t_min=0.05), 1024
    fine, x = sg.log_snr(sde, finest), normal(48, 2, seed=3)
    path, model = Path(fine, normal(finest, 48, 2, seed=4)), exact_model(MIXTURE, sde)

    def end(case: tuple[sg.Solver, float | None], n: int) -> Tensor:
        return run(case[0], model, x, fine[:: finest // n], eta=case[1], noise=path)

    limits = {name: end(case, finest) for name, case in STRONG.items()}
    for (a, x_a), (b, x_b) in itertools.combinations(limits.items(), 2):
        assert float((x_a - x_b).square().mean().sqrt()) < 0.01, (a, b)
    for name, case in STRONG.items():
        errors = [rms(end(case, n) - limits[name]) for n in (16, 32, 64, 128)]
        average = sum(slopes(errors)) / 3
        assert abs(average - 1) < 0.25, (name, errors)


def rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def test_stochastic_limit_is_not_the_deterministic_one() -> None:
    """The control of the test above: with eta = 0 the same start ends elsewhere."""
    sde = sg.VPSDE(t_min=0.05)
    x, model = normal(48, 2, seed=3), exact_model(MIXTURE, sde)
    flow = run(sg.DDIM(), model, x, 256)
    assert rms(flow - mixture_flow(x, *ends(sde))) < 0.02
    assert rms(flow - run(sg.DDIM(1.0), model, x, 256)) > 0.2


def test_one_step_by_hand() -> None:
    """On EDM and N(0, 1) the flow is dx/dt = x t / (1 + t^2)."""
    sde = sg.EDM()
    model = exact_model(Gaussian([0.0], [[1.0]]), sde)
    x, t, s = normal(5, 1), 2.0, 1.5
    k1 = x * t / (1 + t**2)
    k2 = (x + (s - t) * k1) * s / (1 + s**2)
    walk = torch.tensor([t, s], dtype=torch.float64)
    close(run(sg.Euler(), model, x, walk), x + (s - t) * k1)
    close(run(sg.Heun(), model, x, walk), x + (s - t) * (k1 + k2) / 2)

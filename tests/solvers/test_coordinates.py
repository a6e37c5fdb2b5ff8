"""Levels that differ between coordinates: d coordinates are d scalar SDEs, for every solver."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen import programs, sampling, solvers
from sdegen.sde import AnisotropicVPSDE, BlurringSDE
from sdegen.solvers.classical import RungeKutta
from sdegen.solvers.singlestep import ExponentialRK
from tests.cases import (
    EVERY_SOLVER,
    FIXED,
    TIGHT,
    Replay,
    close,
    ends,
    half_of_the_way,
    normal,
    refused,
    slopes,
)
from tests.coordinates import (
    DIFFERENT,
    MEAN,
    SCALES,
    STD,
    WEIGHTS,
    Columns,
    One,
    OwnScales,
    ScaledEDM,
    denoiser,
    exact,
    exact_one,
    flow,
)

different = pytest.mark.parametrize("sde", DIFFERENT.values(), ids=DIFFERENT)
KINDS = (
    *("unipc", "deis_tab2", "multistep_f_pc_4", "er_sde", "dpmpp_3s", "rk4_lam", "ddpm_large"),
    *("sra1", "predictor_corrector"),
)
"""One of each kind: those that do the same with a level need not be tried on every SDE."""


def asks_on_the_way(solver: sg.Solver) -> bool:
    """Whether it asks the network between two levels, where its clock lam says."""
    singlestep = isinstance(solver, ExponentialRK) and solver.traits.calls > 1
    return singlestep or (isinstance(solver, RungeKutta) and solver.clock != "t")


def one_by_one(
    sde: sg.LinearSDE, solver: sg.Solver, x: Tensor, walk: Tensor, **how: Any
) -> Tensor:
    """Each coordinate by its own scalar SDE, whose clock is its own, at the same times."""
    columns = []
    for i in range(3):
        one = One(sde, i, sde.reference if asks_on_the_way(solver) else None)
        own = slice(i, i + 1)
        how = {**how, "noise": Columns(own)}
        columns.append(sg.sample(exact_one(one), x[:, own], solver=solver, walk=walk, **how))
    return torch.cat(columns, 1)


def same_alone(sde: sg.LinearSDE, solver: sg.Solver, walk: Tensor, **how: Any) -> None:
    x = normal(3, 3) * sde.prior.std
    whole = sg.sample(exact(sde), x, solver=solver, walk=walk, noise=Columns(), **how)
    alone = one_by_one(sde, solver, x, walk, **how)
    assert bool(whole.isfinite().all())
    close(whole, alone, rtol=1e-10, atol=1e-10 * float(alone.abs().max()))


@pytest.mark.parametrize("name", FIXED)
def test_every_solver_does_with_each_coordinate_what_it_does_with_it_alone(name: str) -> None:
    sde = DIFFERENT["anisotropic"]
    same_alone(sde, FIXED[name], sg.walks.log_snr(sde, 6))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("on", ["blurring", "scaled"])
def test_so_does_each_kind_on_other_sdes(name: str, on: str) -> None:
    sde = DIFFERENT[on]
    same_alone(sde, FIXED[name], sg.walks.quadratic(sde, 6))


@pytest.mark.parametrize(
    "eta",
    [0.7, half_of_the_way, [0.0, 1.0, 0.5, 0.3, 0.0, 1.0]],
    ids=["number", "function", "list"],
)
@pytest.mark.parametrize("name", ["multistep_pc", "singlestep_eps", "multistep_straight"])
def test_an_eta_is_each_coordinates_own(name: str, eta: Any) -> None:
    """A function of lam of the lam that each coordinate has."""
    sde = DIFFERENT["anisotropic"]
    same_alone(sde, FIXED[name], sg.walks.log_snr(sde, 6), eta=eta)


def test_a_climb_is_each_coordinates_forward_step() -> None:
    sde = DIFFERENT["anisotropic"]
    walk = sg.walks.churn(sde, sg.walks.karras(sde, 8), S_churn=3.0)
    assert bool((walk.diff() > 0).any())
    same_alone(sde, sg.Heun(), walk)


@pytest.mark.parametrize(
    ("solver", "on"),
    [
        (sg.Heun("rho"), "blurring"),
        (sg.RK4("lam"), "anisotropic"),
        (solvers.Singlestep(2), "scaled"),
        (solvers.Singlestep(3, prediction="F"), "anisotropic"),
        (sg.DPMSolver(3), "blurring"),
        (solvers.DPMSolverPPSinglestep(2), "anisotropic"),
        (sg.UniPC(2), "blurring"),
        (solvers.DEIS(2), "anisotropic"),
    ],
    ids=str,
)
def test_orders_hold(solver: sg.Solver, on: str) -> None:
    """Against the exact flow, those with a clock between the levels too."""
    sde, errors = DIFFERENT[on], []
    x = normal(4, 3) * sde.prior.std
    for n in (32, 64):
        x0 = sg.sample(exact(sde), x, solver=solver, steps=n, eta=0.0)
        errors.append(float((x0 - flow(x, *ends(sde))[0]).abs().max()))
    assert slopes(errors)[0] > solver.traits.order - 0.4, errors


@pytest.mark.parametrize(
    ("solver", "on"),
    [
        (sg.AdaptiveRK(rtol=1e-6, atol=1e-8), "blurring"),
        (sg.AdaptiveRK("bosh3", "rho", rtol=1e-5, atol=1e-7), "scaled"),
        (sg.AdaptiveRK(clock="lam", rtol=1e-6, atol=1e-8, per_sample=False), "blurring"),
        (solvers.AdaptiveDPM(rtol=1e-4, atol=1e-6), "anisotropic"),
        (solvers.AdaptiveDPM(2, rtol=1e-3, atol=1e-5, per_sample=False), "scaled"),
        (solvers.AdaptiveMultistep(rtol=1e-6, atol=1e-8), "scaled"),
        (solvers.AdaptiveMultistep(rtol=1e-6, atol=1e-8, per_sample=False), "anisotropic"),
        (solvers.GottaGoFast(rtol=1e-3, atol=1e-4), "anisotropic"),
        (solvers.SciPy(rtol=1e-6, atol=1e-8), "blurring"),
    ],
    ids=str,
)
def test_adaptive_solvers_are_near_the_exact_flow(solver: sg.Solver, on: str) -> None:
    sde = DIFFERENT[on]
    x = normal(2, 3) * sde.prior.std
    end = sg.sample(exact(sde), x, solver=solver, eta=0.0, seed=0)
    close(end, flow(x, *ends(sde))[0], rtol=1e-2 * solver.rtol**0.25, atol=1e-4)


@pytest.mark.parametrize(
    "solver",
    [
        sg.AdaptiveRK(clock="lam", rtol=1e-4, atol=1e-4),
        solvers.AdaptiveDPM(),
        solvers.AdaptiveMultistep(rtol=1e-4, atol=1e-4),
        solvers.AdaptiveMultistep(rtol=1e-4, atol=1e-4, per_sample=False),
    ],
    ids=str,
)
def test_coordinates_that_are_alike_take_the_steps_of_one_level(solver: sg.Solver) -> None:
    x, same = normal(2, 3), AnisotropicVPSDE([1.0, 1.0, 1.0])
    each, plain = (sg.solve(exact(sde), x, solver=solver) for sde in (same, sg.VPSDE()))
    close(each.x, plain.x, rtol=1e-7)
    assert torch.equal(each.nfe, plain.nfe)


def test_gotta_go_fast_has_the_law() -> None:
    sde = DIFFERENT["anisotropic"]
    solver = solvers.GottaGoFast(rtol=0.1, atol=0.1, per_sample=False)
    x = sg.sample(exact(sde), (1000, 3), solver=solver, seed=0).double()
    level = sde(sde.t_min)
    std = ((level.alpha * STD) ** 2 + level.sigma**2).sqrt()
    assert bool(((x.mean(0) - MEAN).abs() < 0.12 * STD + 0.01).all())
    assert bool(((x.std(0) / std - 1).abs() < 0.1).all())


def test_each_sample_may_have_scales_of_its_own() -> None:
    """Given, cut with the batch by what cuts it, and the same as each sample alone."""
    scales = torch.tensor([[0.5, 1.0, 3.0], [2.0, 0.7, 1.0], [1.0, 1.0, 0.2]], dtype=torch.float64)
    x = normal(3, 3) * 20 * scales

    def net(x: Tensor, t: Tensor, scales: Tensor) -> Tensor:
        return denoiser(ScaledEDM(scales), MEAN, STD)(x, t)

    model = sg.ScoreModel(net, OwnScales(SCALES), "x0").given(scales=scales)
    for solver in (
        sg.UniPC(2),
        sg.Heun(),
        solvers.DEIS(3),
        sg.AdaptiveRK(rtol=1e-6),
        solvers.AdaptiveMultistep(),
        solvers.SciPy(),
    ):
        how: dict[str, Any] = {} if solver.traits.adaptive else {"steps": 10}
        whole = sg.sample(model, x, solver=solver, **how)
        for i in range(3):
            own = slice(i, i + 1)
            alone = sg.sample(exact(ScaledEDM(scales[own])), x[own], solver=solver, **how)
            close(whole[own], alone, rtol=1e-9)


@pytest.mark.parametrize("on", DIFFERENT)
@pytest.mark.parametrize(
    "name", ["unipc", "deis_tab2", "singlestep_f", "rk4_lam", "edm_heun", "er_sde", "ddpm"]
)
def test_samples_may_have_times_of_their_own_too(name: str, on: str) -> None:
    """Steps (b,) long, of coordinates that differ, three by three: as each sample alone."""
    sde, solver = DIFFERENT[on], FIXED[name]
    p = sg.Reverse(exact(sde), 0.0 if solver.traits.any_eta else solver.eta, Replay([]))
    part = torch.tensor([[0.9, 0.8, 0.7], [0.7, 0.7, 0.4], [0.5, 0.4, 0.3]], dtype=torch.float64)
    stops, x = part * sde.T, normal(3, 3) * sde.prior.std
    whole = two_steps(solver, p, sde, x, stops)
    for i in range(3):
        own = slice(i, i + 1)
        close(whole[own], two_steps(solver, p, sde, x[own], stops[:, i]), rtol=1e-11)


def two_steps(
    solver: sg.Solver, p: sg.Reverse, sde: sg.LinearSDE, x: Tensor, stops: Tensor
) -> Tensor:
    """States x (b, *) by way of three times, each () or (b,), with noise that is zero."""
    zeros = Replay([torch.zeros_like(x)] * 8)
    p, (a, b, c) = replace(p, noise=zeros), map(sde, stops)
    first = solver.step(p, x, a, b)
    return solver.step(p, first.x, b, c, first.memory).x


def test_a_corrector_by_norms_moves_a_sample_as_it_does_alone() -> None:
    sde, x = DIFFERENT["anisotropic"], normal(5, 3)
    solver = sg.PredictorCorrector(corrector=sg.Langevin(norms="sample"))
    whole = sg.sample(exact(sde), x, solver=solver, steps=6, seed=0)
    assert bool(whole.isfinite().all())
    for i in range(5):
        noise = sg.Seeded(0, first=i)
        close(
            whole[i : i + 1],
            sg.sample(exact(sde), x[i : i + 1], solver=solver, steps=6, noise=noise),
        )


def test_the_prior_is_each_coordinates_own() -> None:
    """At T, and as sigma is where a walk begins below it."""
    sde = DIFFERENT["scaled"]
    for t in (None, 15.0):
        path = sg.solve(exact(sde), (20_000, 3), steps=1, t=t, seed=0, path=True).path
        assert path is not None
        level = sde(sde.T if t is None else t)
        close(path.x[0].std(0), level.sigma[0], rtol=0.03)
    with refused("signal, which no prior draws"):
        sg.sample(exact(sde), (2, 3), steps=1, t=0.1)


@pytest.mark.parametrize("name", ["dpmpp", "unipc", "singlestep", "ddim_one", "euler", "sra1"])
def test_a_state_stays_float32(name: str) -> None:
    sde, x = DIFFERENT["anisotropic"], normal(4, 3, dtype=torch.float32)
    end = sg.sample(exact(sde), x, solver=FIXED[name], steps=20, seed=0)
    assert end.dtype == torch.float32
    close(end, sg.sample(exact(sde), x.double(), solver=FIXED[name], steps=20, seed=0), 1e-3, 1e-4)


@pytest.mark.parametrize("name", ["ddim", "unipc", "multistep_pc", "deis_tab2", "ddpm", "dpm_2"])
def test_the_end_without_noise_is_the_mean_of_the_data(name: str) -> None:
    sde = AnisotropicVPSDE(WEIGHTS, sg.VPSDE(t_min=0.0))
    walk = sg.walks.uniform(sde, 6)
    solver = FIXED[name]
    x = normal(3, 3)
    whole = sg.sample(exact(sde), x, solver=solver, walk=walk, noise=Columns())
    close(whole, one_by_one(sde, solver, x, walk), rtol=1e-9, atol=1e-9)


def test_ends_that_have_no_value_are_refused_and_others_are_not() -> None:
    sde = BlurringSDE((3,), blur=1.5, base=sg.FlowSDE(T=1.0, t_min=0.0))
    walk, x = sg.walks.uniform(sde, 10), normal(3, 3)
    with refused("DDIM works with alpha and sigma .* at t = 1 there is no signal in some"):
        sg.sample(exact(sde), x, solver=sg.DDIM(), walk=walk)
    with refused("Heun with a network that predicts eps has no value at t = 1"):
        sg.sample(sg.ScoreModel(lambda x, t: x, sde), x, solver=sg.Heun(), walk=walk)
    euler = sg.sample(exact(sde), x, solver=sg.Euler(), walk=walk)
    close(euler, one_by_one(sde, sg.Euler(), x, walk))
    noisy = AnisotropicVPSDE(WEIGHTS, sg.VPSDE(t_min=0.0))
    with refused("Heun with a network that predicts eps has no value at t = 0"):
        sg.sample(
            sg.ScoreModel(lambda x, t: x, noisy), x, solver=sg.Heun(), walk="uniform", steps=4
        )


def test_what_works_with_one_level_says_so() -> None:
    sde = DIFFERENT["anisotropic"]
    model, x = exact(sde), normal(2, 3)
    with pytest.raises(programs.NotLinear, match="DDIM has no table on AnisotropicVPSDE"):
        programs.tabulate(sg.DDIM(), steps=4, sde=sde)
    with pytest.raises(programs.NotLinear, match="DDIM has no table on AnisotropicVPSDE"):
        sampling.Captured(model, x, solver=sg.DDIM(), steps=4)
    analytic = solvers.AnalyticDPM((0.0,), (1.0,))
    with refused("AnalyticDPM knows one variance at one lam, but levels of AnisotropicVPSDE"):
        sg.sample(model, x, solver=analytic, steps=4)
    with refused("AnalyticDPM knows one variance"):
        solvers.analytic_dpm(model, x)
    tuned = solvers.Tuned((1.0, 1e-3), ((0.0, 1.0),), (1.0, 1.0), (1.0, 1.0))
    with refused("This solver was tuned on"):
        sg.sample(model, x, solver=tuned)


def test_the_catalogue_is_covered() -> None:
    """Every solver is compared above, with itself alone or with the exact flow, but for those
    that are another library's, and the one that couples a sample's coordinates by their norms."""
    adaptive = {type(solver) for solver in TIGHT} | {solvers.GottaGoFast}
    for name, solver in EVERY_SOLVER.items():
        theirs = "backends" in type(solver).__module__
        assert name in FIXED or type(solver) in adaptive or theirs or name == "song_pc", name

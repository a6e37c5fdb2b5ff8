"""Impossible combinations are refused before the network is called, with reason and remedy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from tests.cases import Pendulum, normal, refused


def never(x: Tensor, t: Tensor) -> Tensor:
    """A network that must not be called."""
    raise AssertionError("the network was called")


VP, WELL = sg.VPSDE(), Pendulum()
MODEL = sg.ScoreModel(never, VP)
GENERAL = sg.ScoreModel(never, WELL, "score")


def sampling(**how: Any) -> Callable[[], Tensor]:
    """A call of sample with something wrong in it."""
    model, start = how.pop("model", MODEL), how.pop("start", (2, 2))
    return lambda: sg.sample(model, start, **{"solver": sg.DDIM(), **how})


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "no steps": (sampling(), "exactly one of steps and nfe"),
    "steps and nfe": (sampling(steps=2, nfe=2), "exactly one of steps and nfe"),
    "zero steps": (sampling(steps=0), "steps must be a whole number >= 1, but it is 0"),
    "negative steps": (sampling(steps=-3), "steps must be a whole number >= 1, but it is -3"),
    "half a step": (sampling(steps=2.5), "steps must be a whole number >= 1, but it is 2.5"),
    "too small a budget": (sampling(solver=sg.Heun(), nfe=1), "at least 2 network calls"),
    "no budget left": (sampling(nfe=1, denoise=True), "at least 2 network calls"),
    "budget of an adaptive": (sampling(solver=sg.solvers.TorchDiffEq(), nfe=9), "takes no nfe"),
    "unknown walk": (sampling(steps=2, walk="cubic"), "ddim_quadratic, eased, focused, karras"),
    "walk and steps": (sampling(steps=2, walk=[1.0, 0.5]), "leave out steps"),
    "walk going up": (sampling(walk=[0.5, 1.0]), "ends below its start"),
    "walk standing still": (sampling(walk=[1.0, 0.5, 0.5, 0.1]), "0.5 is followed by 0.5"),
    "walk above T": (sampling(walk=[1.1, 0.5]), r"\[t_min, T\] = \[0.001, 1\]"),
    "walk below t_min": (sampling(walk=[1.0, 1e-4]), r"\[t_min, T\] = \[0.001, 1\]"),
    "walk to zero": (sampling(walk=[1.0, 0.0]), "stays within"),
    "walk of one time": (sampling(walk=[1.0]), "at least two times"),
    "walk of a matrix": (sampling(walk=torch.ones(2, 2)), "at least two times"),
    "walk with NaN": (sampling(walk=[1.0, math.nan]), "finite"),
    "infinite lambda": (
        sampling(model=sg.ScoreModel(never, sg.FlowSDE(T=1.0)), steps=3),
        "infinite at an end.*uniform",
    ),
    "noise in an ODE solver": (sampling(solver=sg.Heun(), steps=2, eta=1.0), "eta = 1"),
    "another eta for DDIM": (sampling(solver=sg.DDIM(0.5), steps=2, eta=1.0), r"DDIM\(eta="),
    "eta of DDPM": (sampling(solver=sg.DDPM(), steps=2, eta=0.0), "eta = 1, but eta = 0"),
    "negative eta": (sampling(solver=sg.DPMSolverPP(), steps=2, eta=-1.0), "eta must be"),
    "eta not a number": (sampling(solver=sg.DPMSolverPP(), steps=2, eta=math.nan), "eta must be"),
    "seeds for another batch": (sampling(steps=2, seed=[1, 2, 3]), "3 seeds .* 2 samples"),
    "seed and noise": (sampling(steps=2, seed=1, noise=sg.noise.Fresh()), "not both"),
    "empty batch": (sampling(start=(0, 2), steps=2), "positive whole numbers"),
    "empty shape": (sampling(start=(), steps=2), "positive whole numbers"),
    "empty x_T": (sampling(start=torch.zeros(0, 2), steps=2), "b >= 1"),
    "integer x_T": (sampling(start=torch.zeros(2, 2, dtype=torch.long), steps=2), "floating"),
    "marginals of none": (sampling(model=GENERAL, steps=2), "drift-based solver"),
    "lambda of none": (
        sampling(model=GENERAL, solver=sg.Heun(), steps=2, walk="log_snr"),
        "walk='uniform'",
    ),
    "rho of none": (
        sampling(model=GENERAL, solver=sg.Heun(), steps=2, walk="karras"),
        "walk='uniform'",
    ),
    "denoise without marginals": (
        sampling(model=GENERAL, solver=sg.Heun(), steps=2, denoise=True),
        "denoise needs alpha and sigma",
    ),
    "corrector without marginals": (
        sampling(
            model=GENERAL,
            solver=sg.PredictorCorrector(sg.EulerMaruyama()),
            steps=2,
        ),
        r'Pendulum gives only drift .*EulerMaruyama\(\), Langevin\(norms="batch"\)',
    ),
    "unknown prediction": (lambda: sg.ScoreModel(never, VP, "epsilon"), "edm, eps, score"),
    "unknown label": (lambda: sg.ScoreModel(never, VP, time="steps"), "1000t-1, 999t"),
    "no SDE": (lambda: sg.ScoreModel(never, "vp"), "is an SDE"),  # type: ignore[arg-type]
    "sigma_data": (lambda: sg.ScoreModel(never, VP, "edm", sigma_data=0.0), "must be positive"),
    "label without marginals": (lambda: sg.ScoreModel(never, WELL, "score", time="lam"), "lam"),
    "scaling without marginals": (
        lambda: sg.ScoreModel(never, WELL, "score", scale_input=True),
        "no marginals",
    ),
    "order": (lambda: sg.DPMSolverPP(4), "from 1 to 3, but it is 4"),
    "order of a half": (lambda: sg.Multistep(2.5), "whole number"),  # type: ignore[arg-type]
    "order of UniPC": (lambda: sg.UniPC(0), ">= 1, but it is 0"),
    "order of SA": (lambda: sg.solvers.SASolver(0), ">= 1, but it is 0"),
    "order of DEIS": (lambda: sg.solvers.DEIS(0), ">= 1, but it is 0"),
    "order of iPNDM": (lambda: sg.solvers.IPNDM(5), "from 1 to 4, but it is 5"),
    "order of ER-SDE": (lambda: sg.solvers.ERSDE(4), "from 1 to 3, but it is 4"),
    "order of one step": (lambda: sg.solvers.Singlestep(4), "from 2 to 3, but it is 4"),
    "order of DPM-Solver": (lambda: sg.DPMSolver(0), "from 1 to 3, but it is 0"),
    "order of a pair": (lambda: sg.solvers.AdaptiveDPM(1), "2 or 3, but order = 1"),
    "published what": (lambda: sg.DPMSolverPP(2, published=True), "order 3, but order = 2"),
    "published ER-SDE": (lambda: sg.solvers.ERSDE(2, published=True), "order 3, but order = 2"),
    "corrector of one value": (lambda: sg.Multistep(2, corrector=1), r"use 0 \(none\)"),
    "corrector of SA": (lambda: sg.solvers.SASolver(corrector=1), r"use 0 \(none\)"),
    "B": (lambda: sg.UniPC(B="bh3"), "'bh1' or 'bh2'"),  # type: ignore[arg-type]
    "form of UniPC": (lambda: sg.UniPC(prediction="F"), "'x0' or 'eps'"),  # type: ignore[arg-type]
    "form": (lambda: sg.Multistep(prediction="v"), "Unknown form 'v'"),  # type: ignore[arg-type]
    "data's std": (lambda: sg.Multistep(prediction="F", sigma_data=0.0), "must be positive"),
    "clock": (lambda: sg.Multistep(clock="sigma"), "'rho', 'tau', 'wide', but it is"),  # type: ignore[arg-type]
    "clock of DEIS": (lambda: sg.solvers.DEIS(clock="lam"), "'t' or 'rho'"),  # type: ignore[arg-type]
    "clock of RK": (lambda: sg.RK4("s"), "'t', 'lam' or 'rho'"),  # type: ignore[arg-type]
    "clock of a pair": (lambda: sg.AdaptiveRK(clock="s"), "'lam'"),  # type: ignore[arg-type]
    "pair": (lambda: sg.AdaptiveRK("rk45"), "bosh3, dopri5, heun_euler"),  # type: ignore[arg-type]
    "nodes that coincide": (lambda: sg.solvers.Singlestep(3, nodes=(0.5, 0.5)), "rise strictly"),
    "a node at the end": (lambda: sg.solvers.Singlestep(2, nodes=(1.0,)), "rise strictly"),
    "too many nodes": (lambda: sg.solvers.Singlestep(2, nodes=(0.3, 0.6)), "has 1 nodes"),
    "budget of none": (
        lambda: sg.AdaptiveRK(max_nfe=0),
        "max_nfe must be a whole number >= 1, but it is 0",
    ),
    "tolerance of none": (lambda: sg.solvers.GottaGoFast(atol=-1.0), "must be positive"),
    "NaN for a tolerance": (
        lambda: sg.solvers.AdaptiveDPM(rtol=math.nan),
        "rtol must be a number",
    ),
    "norms": (lambda: sg.Langevin(norms="all"), "'sample' or 'batch', but"),  # type: ignore[arg-type]
    "annealed snr": (lambda: sg.solvers.AnnealedLangevin(-1.0), "snr > 0"),
    "annealed steps": (lambda: sg.solvers.AnnealedLangevin(n=0), "n must be a whole number >= 1"),
    "noise that is a function": (
        sampling(solver=sg.DDIM(1.0), steps=2, noise=lambda x, t, s: torch.randn_like(x)),
        r"noise is a source, such as Seeded\(0\).*is a sg.Noise and draws when called",
    ),
    "corrector as a solver": (
        sampling(solver=sg.Langevin(), steps=3),
        r"PredictorCorrector\(corrector=Langevin\(\)\), or AnnealedLangevin\(\)",
    ),
    "corrector by its name": (
        sampling(solver="langevin", steps=3),
        r"PredictorCorrector\(corrector=Langevin\(\)\), or AnnealedLangevin\(\)",
    ),
    "table of a corrector": (
        lambda: sg.programs.tabulate(sg.Langevin(), 4),  # type: ignore[arg-type]
        "goes nowhere by itself",
    ),
    "corrector as a predictor": (
        lambda: sg.PredictorCorrector(sg.Langevin()),  # type: ignore[arg-type]
        "goes nowhere by itself",
    ),
    "sampler as a corrector": (
        lambda: sg.PredictorCorrector(corrector=sg.solvers.AnnealedLangevin()),  # type: ignore[arg-type]
        r"as Langevin\(\) does, but AnnealedLangevin",
    ),
    "when": (lambda: sg.PredictorCorrector(when="between"), "'after' or"),  # type: ignore[arg-type]
    "a corrector that steps": (
        lambda: sg.PredictorCorrector(corrector=sg.Heun()),  # type: ignore[arg-type]
        "stays at a level",
    ),
    "two correctors": (lambda: sg.PredictorCorrector(sg.UniPC()), "would undo a Langevin"),
    "etas for other steps": (
        sampling(solver=sg.DPMSolverPP(), steps=3, eta=[1.0, 0.5]),
        "2 values of eta were given for 3 steps",
    ),
    "an eta of a list": (sampling(solver=sg.DPMSolverPP(), steps=2, eta=[1.0, -1.0]), "eta must"),
    "an eta without lambda": (
        sampling(model=GENERAL, solver=sg.EulerMaruyama(), steps=2, eta=lambda lam: 0 * lam),
        "function of lam needs alpha",
    ),
    "an eta below zero": (
        sampling(solver=sg.Multistep(), steps=2, eta=lambda lam: lam),
        r"values from -5\.\d+ to",
    ),
    "an eta in words": (sampling(solver=sg.Multistep(), steps=2, eta="one"), "but it is 'one'"),
    "a function for Heun": (
        sampling(solver=sg.Heun(), steps=2, eta=lambda lam: lam * 0 + 1),
        "eta = 0",
    ),
    "a path for adaptive noise": (
        sampling(solver=sg.solvers.GottaGoFast(), noise=sg.Seeded(0)),
        "must be one path",
    ),
    "climbing without marginals": (
        sampling(model=GENERAL, solver=sg.Heun(), walk=[1.0, 0.5, 0.7, 0.1]),
        "climbs by the forward step of a LinearSDE",
    ),
    "a path walked twice": (
        sampling(solver=sg.EulerMaruyama(), walk=[1.0, 0.5, 0.7, 0.1], noise=sg.Brownian(0, 1.0)),
        "walks the same times twice",
    ),
    "no signal": (
        sampling(
            model=sg.ScoreModel(never, sg.FlowSDE(T=1.0)), solver=sg.UniPC(), walk=[1.0, 0.5]
        ),
        "no signal left",
    ),
    "infinite g": (
        sampling(
            model=sg.ScoreModel(never, sg.FlowSDE(T=1.0)),
            solver=sg.EulerMaruyama(),
            walk=[1.0, 0.5],
        ),
        "EulerMaruyama.*no signal left",
    ),
    "no signal in cosine": (
        sampling(
            model=sg.ScoreModel(never, sg.CosineSDE(T=1.0)), solver=sg.UniPC(), walk=[1.0, 0.5]
        ),
        "no signal left",
    ),
    "variance": (lambda: sg.Ancestral("middle"), "'small' or 'large'"),  # type: ignore[arg-type]
    "DDIM's eta": (lambda: sg.DDIM(1.5), r"\[0, 1\]"),
    "snr": (lambda: sg.Langevin(0.0), "snr > 0"),
    "corrections": (lambda: sg.PredictorCorrector(n=-1), "n >= 0"),
    "correcting an adaptive": (
        lambda: sg.PredictorCorrector(sg.solvers.TorchDiffEq()),
        "use a fixed-step predictor",
    ),
    "method": (lambda: sg.solvers.TorchDiffEq("euler2"), "dopri5, dopri8"),
    "tolerance": (lambda: sg.solvers.TorchDiffEq(rtol=0.0), "positive"),
    "betas upside down": (lambda: sg.VPSDE(20.0, 0.1), "0 < beta_min <= beta_max"),
    "beta of zero": (lambda: sg.SubVPSDE(0.0), "0 < beta_min"),
    "sigmas": (lambda: sg.VESDE(5.0, 1.0), "0 < sigma_min <= sigma_max"),
    "interval": (lambda: sg.VPSDE(t_min=2.0), "t_min < T"),
    "flow beyond one": (lambda: sg.FlowSDE(T=1.5), "T <= 1"),
    "offset": (lambda: sg.CosineSDE(s=-1.0), "s must be a number >= 0, but it is -1"),
    "a beta above one": (lambda: sg.DiscreteVPSDE([0.1, 1.2]), r"\(0, 1\)"),
    "no betas": (lambda: sg.DiscreteVPSDE([]), "at least one beta"),
    "curves that fall": (
        lambda: sg.MarginalSDE(lambda t: (1 + t, 1 + 0 * t)),
        "falls strictly with t",
    ),
    "karras power": (lambda: sg.walks.karras(VP, 3, power=0.0), "power > 0"),
    "empty data": (lambda: sg.dsm_loss(MODEL, torch.zeros(0, 2)), "b >= 1"),
    "integer images": (
        lambda: sg.dsm_loss(MODEL, torch.zeros(2, 1, 8, 8, dtype=torch.uint8)),
        "scale integer images",
    ),
    "NaN in data": (lambda: sg.dsm_loss(MODEL, torch.tensor([[0.0], [math.nan]])), "sample 1 "),
    "infinite data": (lambda: sg.dsm_loss(MODEL, torch.tensor([[math.inf]])), "sample 0 "),
    "unknown weighting": (
        lambda: sg.dsm_loss(MODEL, normal(2, 2), weighting="snr"),
        "edm, eps, likelihood, min_snr",
    ),
    "weighting of a general SDE": (
        lambda: sg.dsm_loss(GENERAL, normal(2, 2), weighting="eps"),
        "weighting='likelihood'",
    ),
    "kernel of a general SDE": (lambda: sg.dsm_loss(GENERAL, normal(2, 2)), "define perturb"),
    "times of a general SDE": (
        lambda: sg.dsm_loss(GENERAL, normal(2, 2), times=sg.losses.likelihood_time),
        "use uniform_time",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_refused(name: str) -> None:
    call, message = WRONG[name]
    with refused(message):
        call()


@pytest.mark.parametrize("t", [torch.ones(3), torch.ones(2, 2), torch.ones(1)], ids=str)
def test_times_of_another_shape(t: Tensor) -> None:
    with refused(r"Times are of shape \(\) or \(2,\)"):
        MODEL(normal(2, 2), t)


@pytest.mark.parametrize("wrong", [lambda x: x[:1], lambda x: x[..., None], lambda x: x.sum()])
def test_a_network_of_another_shape(wrong: Callable[[Tensor], Tensor]) -> None:
    model = sg.ScoreModel(lambda x, t: wrong(x), VP)
    with refused(r"its input's shape \(4, 3\)"):
        sg.sample(model, (4, 3), solver=sg.DDIM(), steps=2)
    with refused(r"its input's shape \(4, 3\)"):
        sg.dsm_loss(model, normal(4, 3))

"""diffusers' schedulers that remember nothing, or work in rho, end where we end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench.peers import Double, float64
from sdegen.exact.distributions import exact_model
from sdegen.sde.level import Level
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import DataForm, Form, NoiseForm, lagrange, middle
from sdegen.solvers.singlestep import ExponentialRK
from sdegen.solvers.traits import exponential
from sdegen.walks.grids import leading
from tests.cases import MIXTURE, Replay, Smooth, run
from tests.peers import (
    DRAWS,
    END,
    HEUN,
    START,
    Case,
    N,
    follow,
    one_path,
    same,
    scheduler,
    stack,
    walk_of,
)

VP, FLOW = sg.DiscreteVPSDE(), sg.FlowSDE()


# ------------------------------------------------------------------------ diffusers, singlestep


@dataclass(frozen=True)
class Inner(ExponentialRK):
    """diffusers' DPM-Solver-3: its middle stage is what its second-order step is.

    parabola: its "heun", which also takes all three values at the end; otherwise "midpoint".
    slip: the sign slip of the multistep scheduler again, now with the whole second derivative.
    """

    order: int = 3
    eps: bool = False
    parabola: bool = False
    slip: bool = False
    traits = exponential(order=3, calls=3)
    nodes = (1 / 3, 2 / 3)

    @property
    def form(self) -> Form:
        """Of x0 or eps."""
        return NoiseForm() if self.eps else DataForm()

    def tableau(self, p: Reverse, stops: Sequence[Level]) -> list[list[Tensor]]:
        """Three rows."""
        form, (t, a, b, s) = self.form, stops
        first = [form.total(p, t, a)]
        if not self.parabola:
            w_t, w_b = lagrange(p, form, [t, b], t, s)
            return [first, middle(p, form, a, t, b), [w_t, 0 * w_t, w_b]]
        last = lagrange(p, form, [t, a, b], t, s)
        if self.slip:
            i, j, k = t.lam, a.lam, b.lam
            gaps = (i - j) * (i - k), (j - i) * (j - k), (k - i) * (k - j)
            D2 = [2 * (s.lam - t.lam) ** 2 / gap for gap in gaps]
            last = [w - s.alpha * d for w, d in zip(last, D2, strict=True)]
        return [first, lagrange(p, form, [t, a], t, b), last]


def single(ours: sg.Solver, eta: float, kind: str = "dpmsolver++", **more: Any) -> Case:
    """A case of DPMSolverSinglestepScheduler."""
    config = {**END, "solver_order": ours.order, "algorithm_type": kind, **more}
    return Case(ours, eta, "DPMSolverSinglestep", config)


SDE_KIND = "sde-dpmsolver++"
SINGLESTEP = {
    "++2": single(sg.solvers.DPMSolverPPSinglestep(2), 0.0),
    "++2_heun": single(sg.solvers.Singlestep(2), 0.0, **HEUN),
    "++3": single(Inner(), 0.0),
    "++3_heun": single(Inner(parabola=True), 0.0, **HEUN),
    "dpm_2": single(sg.DPMSolver(2), 0.0, "dpmsolver"),
    "dpm_2_heun": single(sg.solvers.Singlestep(2, prediction="eps"), 0.0, "dpmsolver", **HEUN),
    "dpm_3": single(Inner(eps=True), 0.0, "dpmsolver"),
    "dpm_3_heun": single(Inner(eps=True, parabola=True), 0.0, "dpmsolver", **HEUN),
    "sde++2": single(sg.solvers.DPMSolverPPSinglestep(2), 1.0, SDE_KIND),
    "sde++2_heun": single(sg.solvers.Singlestep(2), 1.0, SDE_KIND, **HEUN),
    "sde++3": single(Inner(), 1.0, SDE_KIND),
    "sde++3_sign_slip": single(Inner(parabola=True, slip=True), 1.0, SDE_KIND, **HEUN),
}


def inside(levels: Sequence[Level], k: int) -> list[Level]:
    """Each step cut into k equal ones in lam."""
    fine: list[Level] = []
    for t, s in pairwise(levels):
        fine += [t, *(VP(VP.time(t.lam + (s.lam - t.lam) * j / k)) for j in range(1, k))]
    return [*fine, levels[-1]]


@pytest.mark.parametrize("case", SINGLESTEP.values(), ids=SINGLESTEP)
def test_singlestep_scheduler_of_diffusers(case: Case) -> None:
    k, model = case.ours.order, exact_model(MIXTURE, VP)
    levels = walk_of(VP)[::3]
    fine = inside(levels, k)
    theirs = scheduler(case.name, len(fine) - 1, **case.config)
    theirs.sigmas = stack(fine, "rho")
    draws = one_path(Reverse(model, case.eta), DataForm(), fine, k) if case.eta else []
    end = follow(theirs, lambda x, s: model(x, s).eps, START, fine[:-1], iter(draws))
    same(run(case.ours, model, START, stack(levels, "t"), eta=case.eta, noise=Replay(DRAWS)), end)


# ---------------------------------------------------------------- diffusers, alpha-bar and rho

DISCRETE = {
    "ddim": (sg.DDIM(), "DDIM", {}, {}),
    "ddim_half": (sg.DDIM(0.5), "DDIM", {}, {"eta": 0.5}),
    "ddim_one": (sg.DDIM(1.0), "DDIM", {}, {"eta": 1.0}),
    "ddpm_small": (sg.Ancestral("small"), "DDPM", {"variance_type": "fixed_small"}, {}),
    "ddpm_log": (sg.Ancestral("small"), "DDPM", {"variance_type": "fixed_small_log"}, {}),
    "ddpm_large": (sg.Ancestral("large"), "DDPM", {"variance_type": "fixed_large"}, {}),
}


@pytest.mark.parametrize("shipped", [False, True], ids=["float64", "shipped"])
@pytest.mark.parametrize(("ours", "name", "config", "how"), DISCRETE.values(), ids=DISCRETE)
def test_ddim_and_ddpm_of_diffusers(
    ours: sg.Solver, name: str, config: dict[str, Any], how: dict[str, Any], shipped: bool
) -> None:
    """To the end: their step from time step 0 to alpha = 1 is our ``denoise``."""
    model, times = exact_model(MIXTURE, VP), leading(VP, N - 1)
    stops = sg.walks.levels(VP, times)
    theirs = scheduler(name, N, clip_sample=False, **config)
    assert [(i + 1) / 1000 for i in theirs.timesteps.tolist()] == times.tolist()
    if not shipped:
        theirs.alphas_cumprod = VP(torch.arange(1, 1001, dtype=torch.float64) / 1000).alpha ** 2
    dtype = torch.float32 if shipped else torch.float64
    end = follow(
        theirs,
        lambda x, s: model(x.double(), s).eps.to(dtype),
        START.to(dtype),
        stops,  # type: ignore[arg-type]
        (z.to(dtype) for z in DRAWS),
        **how,
    )
    end_ours = sg.sample(model, START, solver=ours, walk=times, noise=Replay(DRAWS), denoise=True)
    same(end_ours, end, rtol=1e-5 if shipped else 1e-10)


def test_pndm_of_diffusers_is_plms() -> None:
    """Its first step asks twice at its end: once predicted, once averaged."""
    model = exact_model(MIXTURE, VP)
    theirs = scheduler("PNDM", 10, skip_prk_steps=True, steps_offset=1)
    theirs.alphas_cumprod = VP(torch.arange(1, 1001, dtype=torch.float64) / 1000).alpha ** 2
    theirs.final_alpha_cumprod = theirs.alphas_cumprod[0]
    asked = [VP((i + 1) / 1000) for i in theirs.timesteps.tolist()]
    end = follow(theirs, lambda x, s: model(x, s).eps, START, asked, iter([]))
    times = stack([asked[0], *asked[2:], VP(1e-3)], "t")
    assert len(times) == 11
    same(run(sg.solvers.PLMS(), model, START, times), end)


def test_ipndm_of_diffusers() -> None:
    """It takes eps from v."""
    levels, model = walk_of(VP), exact_model(MIXTURE, VP)
    theirs = scheduler("IPNDM", N)
    theirs.alphas, theirs.betas = stack(levels, "alpha"), stack(levels, "sigma")
    end = follow(theirs, lambda x, s: model(x, s).v, START, levels[:-1], iter([]))
    same(run(sg.solvers.IPNDM(), model, START, stack(levels, "t")), end)


def twice(v: Tensor) -> Tensor:
    """As schedulers of two calls a step keep their levels: v_0, v_1, v_1, v_2, v_2, ..."""
    return torch.cat([v[:1], v[1:].repeat_interleave(2)])


RHO = {
    "euler": (sg.Euler(clock="rho"), "EulerDiscrete"),
    "euler_is_ddim": (sg.DDIM(), "EulerDiscrete"),
    "euler_ancestral": (sg.Ancestral(), "EulerAncestralDiscrete"),
    "lms": (sg.solvers.DEIS(4, clock="rho"), "LMSDiscrete"),
    "heun": (sg.Heun(clock="rho"), "HeunDiscrete"),
    "kdpm2": (sg.DPMSolver(2), "KDPM2Discrete"),
}


@pytest.mark.parametrize(("ours", "name"), RHO.values(), ids=RHO)
def test_schedulers_of_diffusers_in_rho(ours: sg.Solver, name: str) -> None:
    """They move x / alpha along rho = sigma / alpha."""
    levels, model = walk_of(VP), exact_model(MIXTURE, VP)
    rho, halves = stack(levels, "rho"), inside(levels, 2)[1::2]
    theirs, stops = scheduler(name, N), list(levels[:-1])
    theirs.sigmas = rho
    if name == "HeunDiscrete":
        theirs.sigmas, stops = twice(rho), [level for pair in pairwise(levels) for level in pair]
    if name == "KDPM2Discrete":
        theirs.sigmas_interpol = twice(torch.cat([rho[:1], stack(halves, "rho")]))
        theirs.sigmas = twice(rho)
        stops = [level for pair in zip(levels, halves, strict=False) for level in pair]
    theirs.timesteps = torch.zeros(len(stops), dtype=torch.float64)
    y = follow(
        theirs,
        lambda y, s: model(s.alpha * y, s).eps,
        (START / levels[0].alpha).as_subclass(Double),
        stops,
        iter(DRAWS),
    )
    end = run(ours, model, START, stack(levels, "t"), noise=Replay(DRAWS))
    same(end, levels[-1].alpha * y)


EDM_CASES = {
    "euler": Case(sg.Euler(), 0.0, "EDMEuler", {}),
    **{
        f"++{k}": Case(
            sg.DPMSolverPP(k, published=k == 3),
            0.0,
            "EDMDPMSolverMultistep",
            {**END, "solver_order": k},
        )
        for k in (1, 2, 3)
    },
    "sde++2": Case(
        sg.DPMSolverPP(2),
        1.0,
        "EDMDPMSolverMultistep",
        {**END, "solver_order": 2, "algorithm_type": SDE_KIND},
    ),
}


@pytest.mark.parametrize("case", EDM_CASES.values(), ids=EDM_CASES)
def test_edm_schedulers_of_diffusers(case: Case) -> None:
    """Their preconditioning too: c_in, c_noise, c_skip and c_out are theirs."""
    sde, net = sg.EDMSDE(), Smooth()
    levels = sg.walks.levels(sde, sg.walks.karras(sde, N))
    model = sg.ScoreModel(net, sde, predicts="edm")
    theirs = scheduler(case.name, N, **case.config)
    theirs.sigmas = stack(levels, "rho")  # type: ignore[arg-type]
    theirs.timesteps = theirs.precondition_noise(theirs.sigmas[:-1])

    @torch.no_grad()
    def output(x: Tensor, level: Level) -> Tensor:
        label = theirs.precondition_noise(level.sigma).expand(len(x))
        F: Tensor = net(theirs.precondition_inputs(x, level.sigma), label)
        return F

    x = (80 * START).as_subclass(Double)
    end = follow(theirs, output, x, levels[:-1], iter(DRAWS))  # type: ignore[arg-type]
    times = stack(levels, "t")  # type: ignore[arg-type]
    same(run(case.ours, model, 80 * START, times, eta=case.eta, noise=Replay(DRAWS)), end)


def test_ve_predictor_and_corrector_of_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Song et al.'s code: correct, then predict; norms are the batch's."""
    import diffusers.schedulers.scheduling_sde_ve as theirs

    sde, draws = sg.VESDE(sigma_min=0.05, sigma_max=20.0), iter(DRAWS)
    model, times = exact_model(MIXTURE, sde), torch.linspace(1, 0, N, dtype=torch.float64)[:-1]
    stops = sg.walks.levels(sde, times)
    sampler = theirs.ScoreSdeVeScheduler(N, snr=0.16, sigma_min=0.05, sigma_max=20.0)
    sampler.discrete_sigmas = stack([*stops, sde(0.0)], "sigma").flip(0)  # type: ignore[list-item]
    monkeypatch.setattr(theirs, "randn_tensor", lambda *a, **k: next(draws))
    x = 20 * START
    with float64():  # its step sizes are torch.ones
        for level in stops[:-1]:
            x = sampler.step_correct(model(x, level).score, x).prev_sample
            at = (level.t + 0.1 / N).item()  # it rounds down to its index
            x = sampler.step_pred(model(x, level).score, at, x).prev_sample
    solver = sg.PredictorCorrector(
        sg.solvers.ReverseDiffusion(), sg.Langevin(0.16, norms="batch"), when="before"
    )
    same(run(solver, model, 20 * START, times, noise=Replay(DRAWS)), x)

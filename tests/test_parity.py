"""diffusers and k-diffusion end where we end: same model, levels, start and noise.

Their loops run in float64 on our levels, so that a difference is one of formulas, and 1e-10 is
far above rounding (the largest is 1e-12) and far below any slip. What they ship as float32, their
tables and time steps, is compared on its own, where the first level's 1 - alpha^2 = 1e-4 keeps
but three digits.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from conftest import MIXTURE, Replay, Smooth, close, normal, run
from peers import follow, scheduler
from torch import Tensor

import sdegen as sg
from sdegen.bench.peers import Double, float64, k_sampling
from sdegen.exact.distributions import exact_model
from sdegen.sde.level import Level
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import DataForm, Form, NoiseForm, lagrange, middle
from sdegen.solvers.singlestep import SingleDPM
from sdegen.walks.climbs import ancestral, churn
from sdegen.walks.grids import leading, linspace

VP, FLOW = sg.DiscreteVPSDE(), sg.FlowSDE()
N = 12
START = normal(6, 2, seed=3)
DRAWS = [normal(6, 2, seed=100 + i) for i in range(2 * N)]


def same(a: Tensor, b: Tensor, rtol: float = 1e-10) -> None:
    """Equal relative to the largest entry."""
    close(a, b, rtol=0, atol=rtol * float(b.abs().max()))


def stack(levels: Sequence[Level], name: str) -> Tensor:
    """One curve at all the levels."""
    return torch.stack([getattr(level, name) for level in levels])


@cache
def walk_of(sde: sg.LinearSDE) -> list[Level]:
    """Their time steps on VP, even ones elsewhere: uneven in lam, where the methods live."""
    grid = linspace if isinstance(sde, sg.DiscreteVPSDE) else sg.walks.uniform
    return sg.walks.levels(sde, grid(sde, N))  # type: ignore[return-value]


class Case(NamedTuple):
    """A solver of ours and the scheduler that it must agree with."""

    ours: sg.Solver
    eta: float
    name: str
    config: dict[str, Any]


# ------------------------------------------------------------------------- diffusers, multistep


class SignSlip(sg.DPMSolverPP):
    """diffusers' third-order SDE step: its phi_3 has - 1/2 for + 1/2, which takes alpha D2 away.

    D2 does not vanish beside the step, h^2 x0'' / 2: the order falls from 2 to 1.
    """

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """Ours less alpha h^2 times the divided difference."""
        published = super().weights(p, nodes, t, s)
        if len(nodes) < 3:
            return published
        a, b, c = (node.lam for node in nodes)
        gaps = (a - b) * (a - c), (b - a) * (b - c), (c - a) * (c - b)
        h2 = (s.lam - t.lam) ** 2
        return [w - s.alpha * h2 / gap for w, gap in zip(published, gaps, strict=True)]


KEEP = {"lower_order_final": False}
END = {**KEEP, "final_sigmas_type": "sigma_min"}


def dpm(ours: sg.Solver, eta: float, order: int, kind: str = "dpmsolver++", **more: Any) -> Case:
    """A case of DPMSolverMultistepScheduler."""
    config = {**END, "solver_order": order, "algorithm_type": kind, **more}
    return Case(ours, eta, "DPMSolverMultistep", config)


def unipc(order: int, B: Any, prediction: Any) -> Case:
    """A case of UniPCMultistepScheduler."""
    config = {"solver_order": order, "solver_type": B, "predict_x0": prediction == "x0"}
    return Case(sg.UniPC(order, B, prediction), 0.0, "UniPCMultistep", {**END, **config})


def sa(order: int, corrector: int, tau: float, ours: sg.Solver | None = None, **more: Any) -> Case:
    """A case of SASolverScheduler."""
    exact = torch.tensor(tau, dtype=torch.float64)
    config = {"predictor_order": order, "corrector_order": corrector, "tau_func": lambda t: exact}
    ours = ours or sg.solvers.SASolver(order, corrector)
    return Case(ours, tau, "SASolver", {**KEEP, **config, **more})


HEUN = {"solver_type": "heun"}
MULTISTEP = {
    "++1": dpm(sg.DPMSolverPP(1), 0.0, 1),
    "++2": dpm(sg.DPMSolverPP(2), 0.0, 2),
    "++2_heun": dpm(sg.Multistep(2), 0.0, 2, **HEUN),
    "++3": dpm(sg.DPMSolverPP(3, published=True), 0.0, 3),
    "dpm_2": dpm(sg.solvers.DPMSolverMultistep(2), 0.0, 2, "dpmsolver"),
    "dpm_2_heun": dpm(sg.Multistep(2, prediction="eps"), 0.0, 2, "dpmsolver", **HEUN),
    "dpm_3": dpm(sg.solvers.DPMSolverMultistep(3, published=True), 0.0, 3, "dpmsolver"),
    "sde++1": dpm(sg.DPMSolverPP(1), 1.0, 1, "sde-dpmsolver++"),
    "sde++2": dpm(sg.DPMSolverPP(2), 1.0, 2, "sde-dpmsolver++"),
    "sde++2_heun": dpm(sg.Multistep(2), 1.0, 2, "sde-dpmsolver++", **HEUN),
    "sde++3_sign_slip": dpm(SignSlip(3, published=True), 1.0, 3, "sde-dpmsolver++"),
    "sde_1": dpm(sg.solvers.DPMSolverMultistep(1), 1.0, 1, "sde-dpmsolver"),
    "sde_2": dpm(sg.solvers.DPMSolverMultistep(2), 1.0, 2, "sde-dpmsolver"),
    "sde_2_heun": dpm(sg.Multistep(2, prediction="eps"), 1.0, 2, "sde-dpmsolver", **HEUN),
    **{
        f"unipc_{order}_{B}_{prediction}": unipc(order, B, prediction)
        for order in (1, 2, 3, 4)
        for B in ("bh1", "bh2")
        for prediction in ("x0", "eps")
    },
    # Its polynomial is one in log rho, not in t or rho as the DEIS of the paper.
    **{
        f"deis_{k}": Case(
            sg.Multistep(k, prediction="eps"), 0.0, "DEISMultistep", {**KEEP, "solver_order": k}
        )
        for k in (1, 2, 3)
    },
    **{
        f"sa_{order}_{corrector}_{tau:g}": sa(order, corrector, tau)
        for order, corrector in ((1, 2), (2, 2), (2, 4), (3, 3), (3, 4), (4, 4))
        for tau in (0.0, 0.5, 1.0)
    },
    "sa_eps": sa(
        3,
        3,
        1.0,
        sg.Multistep(3, corrector=3, prediction="eps"),
        algorithm_type="noise_prediction",
    ),
}


@pytest.mark.parametrize("case", MULTISTEP.values(), ids=MULTISTEP)
def test_multistep_schedulers_of_diffusers(case: Case) -> None:
    levels, model = walk_of(VP), exact_model(MIXTURE, VP)
    theirs = scheduler(case.name, N, **case.config)
    theirs.sigmas = stack(levels, "rho")
    end = follow(
        theirs, lambda x, s: model(x, s).eps, START.as_subclass(Double), levels[:-1], iter(DRAWS)
    )
    same(run(case.ours, model, START, stack(levels, "t"), eta=case.eta, noise=Replay(DRAWS)), end)


SHIPPED = ("++2", "dpm_2", "sde++2", "unipc_2_bh2_x0", "deis_3", "sa_2_4_1")


@pytest.mark.parametrize("name", SHIPPED)
def test_multistep_schedulers_of_diffusers_as_shipped(name: str) -> None:
    """Their own tables, time steps and float32: (i + 1) / N is step i, and the table ours."""
    case, levels, model = MULTISTEP[name], walk_of(VP), exact_model(MIXTURE, VP)
    theirs = scheduler(case.name, N, **case.config)
    assert [(i + 1) / 1000 for i in theirs.timesteps.tolist()] == stack(levels[:-1], "t").tolist()
    end = follow(
        theirs,
        lambda x, s: model(x, s).eps,
        START.float(),
        levels[:-1],
        (z.float() for z in DRAWS),
    )
    ours = run(case.ours, model, START, stack(levels, "t"), eta=case.eta, noise=Replay(DRAWS))
    same(ours, end, rtol=1e-4)


FLOW_CASES = {
    "euler": Case(sg.Euler(), 0.0, "FlowMatchEulerDiscrete", {}),
    "++2": dpm(sg.DPMSolverPP(2), 0.0, 2, use_flow_sigmas=True, prediction_type="flow_prediction"),
    "unipc": Case(
        sg.UniPC(3),
        0.0,
        "UniPCMultistep",
        {**END, "solver_order": 3, "use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    ),
}


@pytest.mark.parametrize("case", FLOW_CASES.values(), ids=FLOW_CASES)
def test_flow_schedulers_of_diffusers(case: Case) -> None:
    levels, model = walk_of(FLOW), exact_model(MIXTURE, FLOW)
    theirs = scheduler(case.name, N, **case.config)
    theirs.sigmas = stack(levels, "sigma")
    end = follow(
        theirs, lambda x, s: model(x, s).velocity, START.as_subclass(Double), levels[:-1], iter([])
    )
    same(run(case.ours, model, START, stack(levels, "t")), end)


# ------------------------------------------------------------------------ diffusers, singlestep


@dataclass(frozen=True)
class Inner(SingleDPM):
    """diffusers' DPM-Solver-3: its middle stage is what its second-order step is.

    parabola: its "heun", which also takes all three values at the end; otherwise "midpoint".
    slip: the sign slip of the multistep scheduler again, now with the whole second derivative.
    """

    order: int = 3
    eps: bool = False
    parabola: bool = False
    slip: bool = False

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


def one_path(p: Reverse, form: Form, fine: Sequence[Level], k: int) -> list[Tensor]:
    """The noise of each move from a step's start to its stages and end, of the path that ours
    draws piece by piece. (Left to itself diffusers draws them apart from each other.)
    """
    moves, pieces = [], iter(DRAWS)
    for i in range(0, len(fine) - 1, k):
        noise = torch.zeros_like(START)
        for r, m in pairwise(fine[i : i + k + 1]):
            noise = form.carry(p, r, m) * noise + form.std(p, r, m) * next(pieces)
            moves.append(noise / form.std(p, fine[i], m))
    return moves


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


# ---------------------------------------------------------------------------------- k-diffusion

WIDE = sg.EDMSDE(T=200.0, t_min=1e-6)
SIGMAS = sg.walks.karras(WIDE, N, start=80.0, stop=0.002)
Sampler = Callable[..., Tensor]


class ThirdByHeun(sg.DPMSolverPP):
    """k-diffusion's second step of 3M takes the line through two values, not its middle."""

    def weights(self, p: Reverse, nodes: Sequence[Level], t: Level, s: Level) -> list[Tensor]:
        """Exact for two values."""
        if len(nodes) == 2:
            return lagrange(p, self.form, nodes, t, s)
        return super().weights(p, nodes, t, s)


HALF = math.sqrt(0.5)  # k-diffusion's eta is our eta^2
THREE = ThirdByHeun(3, published=True)
K: dict[str, tuple[str, dict[str, Any], sg.Solver, float]] = {
    "euler": ("euler", {}, sg.Euler(), 0.0),
    "euler_ancestral": ("euler_ancestral", {}, sg.Ancestral(), 1.0),
    "euler_ancestral_half": ("euler_ancestral", {"eta": 0.5}, sg.DDIM(0.5), 0.5),
    "heun": ("heun", {}, sg.Heun(clock="rho"), 0.0),
    "dpm_2": ("dpm_2", {}, sg.DPMSolver(2), 0.0),
    "lms": ("lms", {}, sg.solvers.DEIS(4, clock="rho"), 0.0),
    "dpmpp_2s": ("dpmpp_2s_ancestral", {"eta": 0.0}, sg.solvers.DPMSolverPPSinglestep(2), 0.0),
    "dpmpp_2m": ("dpmpp_2m", {}, sg.DPMSolverPP(2), 0.0),
    "dpmpp_2m_sde": ("dpmpp_2m_sde", {}, sg.DPMSolverPP(2), 1.0),
    "dpmpp_2m_sde_half": ("dpmpp_2m_sde", {"eta": 0.5}, sg.DPMSolverPP(2), HALF),
    "dpmpp_2m_sde_heun": ("dpmpp_2m_sde", HEUN, sg.Multistep(2), 1.0),
    "dpmpp_3m_sde": ("dpmpp_3m_sde", {}, THREE, 1.0),
    "dpmpp_3m_sde_half": ("dpmpp_3m_sde", {"eta": 0.5}, THREE, HALF),
    "dpmpp_3m": ("dpmpp_3m_sde", {"eta": 0.0}, THREE, 0.0),
}


def denoiser(model: sg.ScoreModel) -> Callable[[Tensor, Tensor], Tensor]:
    """The model as k-diffusion calls one: x (b, *) and sigma (b,) to x0."""
    return lambda x, sigma: model(x, sigma).x0


def k_run(name: str, x: Tensor, draws: Sequence[Tensor], **how: Any) -> Tensor:
    """k-diffusion's sample_<name> over SIGMAS."""
    k: ModuleType = k_sampling()
    sampler: Sampler = getattr(k, f"sample_{name}")
    source = iter(draws)
    if "noise_sampler" in inspect.signature(sampler).parameters:
        how["noise_sampler"] = lambda sigma, sigma_next: next(source)
    return sampler(denoiser(exact_model(MIXTURE, WIDE)), x, SIGMAS, disable=True, **how)


@pytest.mark.parametrize(("name", "how", "ours", "eta"), K.values(), ids=K)
def test_samplers_of_k_diffusion(
    name: str, how: dict[str, Any], ours: sg.Solver, eta: float
) -> None:
    model = exact_model(MIXTURE, WIDE)
    end = k_run(name, 80 * START, DRAWS, **how)
    same(run(ours, model, 80 * START, SIGMAS, eta=eta, noise=Replay(DRAWS)), end)


ZIGZAG = {
    "euler_ancestral": (sg.Euler(), 1.0),
    "dpm_2_ancestral": (sg.DPMSolver(2), 0.7),
    "dpmpp_2s_ancestral": (sg.solvers.DPMSolverPPSinglestep(2), 1.0),
}


@pytest.mark.parametrize(("name", "solver"), ZIGZAG.items(), ids=ZIGZAG)
def test_ancestral_samplers_of_k_diffusion_are_walks(
    name: str, solver: tuple[sg.Solver, float]
) -> None:
    """An ODE solver on a walk that steps too far down and climbs back."""
    ours, eta = solver
    walk = ancestral(WIDE, SIGMAS, eta=eta)
    end = run(ours, exact_model(MIXTURE, WIDE), 80 * START, walk, noise=Replay(DRAWS))
    same(end, k_run(name, 80 * START, DRAWS, eta=eta))


CHURNED = {"euler": sg.Euler(), "heun": sg.Heun(), "dpm_2": sg.DPMSolver(2)}


@pytest.mark.parametrize(("name", "ours"), CHURNED.items(), ids=CHURNED)
def test_churn_of_k_diffusion_is_a_walk(
    name: str, ours: sg.Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up, then down, inside an interval of levels."""
    drawn: list[Tensor] = []

    def randn_like(x: Tensor) -> Tensor:
        drawn.append(DRAWS[len(drawn)])
        return drawn[-1]

    monkeypatch.setattr(torch, "randn_like", randn_like)
    theirs = k_run(name, 80 * START, [], s_churn=3.0, s_tmin=0.05, s_tmax=50.0)
    monkeypatch.undo()
    walk = churn(WIDE, SIGMAS, S_churn=3.0, S_min=0.05, S_max=50.0)
    churned = [z for z, s in zip(drawn, SIGMAS, strict=False) if 0.05 <= s <= 50.0]
    assert 0 < len(churned) == len(walk) - len(SIGMAS) < N
    end = run(ours, exact_model(MIXTURE, WIDE), 80 * START, walk, noise=Replay(churned))
    same(end, theirs)


def test_dpmpp_sde_of_k_diffusion() -> None:
    """++(2S) at eta = 1 whose stage and end see one path."""
    model = exact_model(MIXTURE, WIDE)
    levels = sg.walks.levels(WIDE, SIGMAS)
    fine = sg.walks.levels(
        WIDE, torch.cat([WIDE.time(inner(levels)), SIGMAS]).sort().values.flip(0)
    )
    draws = one_path(Reverse(model, 1.0), DataForm(), fine, 2)  # type: ignore[arg-type]
    end = run(
        sg.solvers.DPMSolverPPSinglestep(2),
        model,
        80 * START,
        SIGMAS,
        eta=1.0,
        noise=Replay(DRAWS),
    )
    same(end, k_run("dpmpp_sde", 80 * START, draws))


def inner(levels: Sequence[Any]) -> Tensor:
    """lam halfway through each step."""
    lam = stack(levels, "lam")
    return (lam[1:] + lam[:-1]) / 2


@pytest.mark.parametrize("nfe", [10, 11])
def test_dpm_fast_of_k_diffusion(nfe: int) -> None:
    """DPM-Solver-3 to the last step, whose order is what the calls left over allow."""
    model, x = exact_model(MIXTURE, WIDE), 80 * START
    with float64():  # its grid is torch.linspace
        fast = k_sampling().sample_dpm_fast
        end = fast(denoiser(model), x, 0.002, 80.0, nfe, disable=True)
    times = sg.walks.log_snr(WIDE, nfe // 3 + 1, start=80.0, stop=0.002)
    x = run(sg.DPMSolver(3), model, x, times[:-1])
    same(run(sg.DPMSolver(nfe % 3), model, x, times[-2:]), end)

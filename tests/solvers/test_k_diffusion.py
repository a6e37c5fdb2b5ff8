"""k-diffusion's samplers end where we end."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench.peers import float64, k_sampling
from sdegen.exact.distributions import exact_model
from sdegen.sde.level import Level
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import DataForm, lagrange
from sdegen.walks.climbs import ancestral, churn
from tests.cases import MIXTURE, ROOT, Replay, run
from tests.peers import DRAWS, HEUN, START, N, one_path, same, stack

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


@pytest.mark.parametrize("nfe", [9, 10, 11])
def test_mixed_orders_as_the_page_has_them_are_dpm_fast(nfe: int) -> None:
    """docs/sampling.md, one solver after another: DPM-Solver-fast."""
    page = (ROOT / "docs" / "sampling.md").read_text()
    known: dict[str, Any] = {"sg": sg}
    exec(re.search(r"def fast.*?return x\n", page, re.S)[0], known)  # type: ignore[index]
    model = exact_model(MIXTURE, sg.EDMSDE())
    with float64():
        end = k_sampling().sample_dpm_fast(
            denoiser(model), 80 * START, 0.002, 80.0, nfe, disable=True
        )
    same(known["fast"](model, 80 * START, nfe), end)


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


def test_dpmpp_sde_of_k_diffusion_without_a_tree() -> None:
    """++(2S) at eta = 1 whose stage and end have draws of their own."""
    model = exact_model(MIXTURE, WIDE)
    ours = sg.solvers.DPMSolverPPSinglestep(2, stage_noise="independent")
    end = run(ours, model, 80 * START, SIGMAS, eta=1.0, noise=Replay(DRAWS))
    same(end, k_run("dpmpp_sde", 80 * START, DRAWS))
    with pytest.raises(ValueError, match="stage_noise"):
        sg.solvers.DPMSolverPPSinglestep(2, stage_noise="both")  # type: ignore[arg-type]


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

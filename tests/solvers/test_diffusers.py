"""diffusers' multistep and flow schedulers end where we end, on our levels and our noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench.peers import Double
from sdegen.exact.distributions import exact_model
from sdegen.sde.level import Level
from sdegen.solvers.equation import Reverse
from tests.cases import MIXTURE, Replay, run
from tests.peers import (
    DRAWS,
    END,
    HEUN,
    KEEP,
    START,
    Case,
    N,
    follow,
    same,
    scheduler,
    stack,
    walk_of,
)

LOWER = {"lower_order_final": True}
VP, FLOW = sg.DiscreteVPSDE(), sg.FlowSDE()


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
    # Orders that fall at the end: below 15 steps where lower_order_final is shipped.
    "++3_lower": dpm(sg.DPMSolverPP(3, published=True, lower_order_final=True), 0.0, 3, **LOWER),
    "++2_lower": dpm(sg.DPMSolverPP(2, lower_order_final=True), 0.0, 2, **LOWER),
    "dpm_3_lower": dpm(
        sg.solvers.DPMSolverMultistep(3, published=True, lower_order_final=True),
        0.0,
        3,
        "dpmsolver",
        **LOWER,
    ),
    **{
        f"deis_{k}_lower": Case(
            sg.Multistep(k, prediction="eps", lower_order_final=True),
            0.0,
            "DEISMultistep",
            {"solver_order": k},
        )
        for k in (2, 3)
    },
    **{
        f"unipc_{order}_{prediction}_lower": Case(
            sg.UniPC(order, prediction=prediction, lower_order_final=True),  # type: ignore[arg-type]
            0.0,
            "UniPCMultistep",
            {**END, **LOWER, "solver_order": order, "predict_x0": prediction == "x0"},
        )
        for order in (2, 3, 4)
        for prediction in ("x0", "eps")
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

"""Splitting of guided models: orders, the formulas written out, what is spent, what is refused."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.guidance import CFG, Guided, Thresholded
from sdegen.solvers import DDIM, IPNDM, DPMSolverPPSinglestep, Singlestep, Split
from tests.cases import close, normal, refused
from tests.labelled import KINDS, SDE, X, made

CLASS, ALL = Gaussian([0.4, -0.3], [0.3, 0.8]), Gaussian([0.0, 0.2], [1.0, 1.5])


def linear(scale: Any, n: int = 4, sde: sg.LinearSDE = SDE) -> CFG:
    """CFG of two Gaussians: base and kick are linear in x."""

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        level = sde(t)
        return torch.where(y[:, None] == 0, CLASS.denoise(x, level), ALL.denoise(x, level))

    model = sg.ScoreModel(net, sde, "x0").given(y=torch.zeros(n, dtype=torch.int64))
    return CFG(model, scale, {"y": 1})


def slope(solver: sg.Solver, model: Any, n: int = 20) -> float:
    """The order between n and 2 n steps."""
    x = normal(4, 2)
    exact = sg.sample(model, x, solver=sg.UniPC(3), steps=150)
    far = [
        float((sg.sample(model, x, solver=solver, steps=k) - exact).square().mean().sqrt())
        for k in (n, 2 * n)
    ]
    return math.log2(far[0] / far[1])


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        (Split(DDIM(), 1), 1),
        (Split(DPMSolverPPSinglestep(2), 1), 1),
        (Split(IPNDM(), 1), 1),
        (Split(IPNDM(), 2), 1),
        (Split(sg.DPMSolverPP(2), 2), 1),
        (Split(DPMSolverPPSinglestep(2), 2), 2),
        (Split(Singlestep(3), 2), 2),
    ],
    ids=str,
)
def test_orders_are_those_claimed(solver: Split, order: int) -> None:
    assert solver.traits.order == order
    assert abs(slope(solver, linear(3.0)) - order) < 0.25


def test_lie_and_strang_are_their_formulas() -> None:
    model, times = linear(3.0), sg.walks.log_snr(SDE, 6)
    levels = [SDE(t) for t in times]

    def eps(x: Tensor, level: sg.Level, which: Gaussian) -> Tensor:
        return (x - level.alpha * which.denoise(x, level)) / level.sigma

    def kick(x: Tensor, level: sg.Level) -> Tensor:
        return 2.0 * (eps(x, level, CLASS) - eps(x, level, ALL))

    lie = strang = start = normal(4, 2)
    known = kick(start, levels[0])
    for t, s in pairwise(levels):
        d = s.sigma / s.alpha - t.sigma / t.alpha
        y = lie / t.alpha + d * eps(lie, t, CLASS)
        lie = s.alpha * y + s.alpha * d * kick(s.alpha * y, s)
        half = strang / t.alpha + d / 2 * known
        y = half + d * eps(t.alpha * half, t, CLASS)
        known = kick(s.alpha * (y + d / 2 * known), s)
        strang = s.alpha * (y + d / 2 * known)
    for order, end in ((1, lie), (2, strang)):
        close(sg.sample(model, start, solver=Split(DDIM(), order), walk=times), end, rtol=1e-10)


@pytest.mark.parametrize(("order", "first"), [(1, 0), (2, 2)])
def test_what_is_spent_is_counted(order: int, first: int) -> None:
    model, solver = linear(3.0), Split(IPNDM(), order)
    assert sg.solve(model, normal(4, 2), solver=solver, steps=7).nfe.tolist() == [21 + first] * 4
    for nfe in (20, 41):
        found = sg.solve(model, normal(4, 2), solver=solver, nfe=nfe)
        assert 0 < int(found.nfe.max()) <= nfe
    plain = linear(1.0)  # whose kick is nothing
    assert sg.solve(plain, normal(4, 2), solver=solver, steps=7).nfe.tolist() == [7] * 4


def test_without_guidance_the_base_is_stepped() -> None:
    model, x = linear(1.0), normal(4, 2)
    for inner in (IPNDM(), Singlestep(3), sg.DPMSolverPP(2)):
        alone = sg.sample(model.model, x, solver=inner, steps=5)
        for order in (1, 2):
            close(sg.sample(model, x, solver=Split(inner, order), steps=5), alone, rtol=1e-12)


@pytest.mark.parametrize("kind", [k for k in KINDS if k.startswith(("cfg", "guided"))])
@pytest.mark.parametrize("order", [1, 2])
def test_every_kick_leads_where_the_guided_flow_does(kind: str, order: int) -> None:
    """Base and kick are the guided model in two parts, whatever it is made of."""
    model = made(kind)
    level = SDE(0.4)
    off = model(X, level).eps - model.base(X, level).eps
    close(model.kick(X, level), off, rtol=1e-8, atol=1e-10)
    found = sg.sample(model, X, solver=Split(DPMSolverPPSinglestep(2), order), steps=20)
    exact = sg.sample(model, X, solver=sg.DPMSolverPP(2), steps=60)
    assert float((found - exact).abs().max()) < 0.4


def test_a_classifiers_kick_is_no_evaluation_of_the_network() -> None:
    base = exact_model(ALL, SDE)

    def log_p(x: Tensor, level: sg.Level) -> Tensor:
        return CLASS.log_prob(x, level) - ALL.log_prob(x, level)

    found = sg.solve(Guided(base, log_p, 2.0), normal(3, 2), solver=Split(IPNDM()), steps=5)
    assert found.nfe.tolist() == [5] * 3


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("inner", [IPNDM(), DDIM(), DPMSolverPPSinglestep(2)], ids=str)
def test_where_there_is_no_signal_splitting_is_refused(order: int, inner: sg.Solver) -> None:
    """The integral of k over rho from infinity diverges, though a solver undivided can begin."""
    model, x = linear(4.0, sde=sg.FlowSDE(T=1.0)), normal(4, 2)
    with refused("infinite at t = 1, where FlowSDE has no signal left"):
        sg.sample(model, x, solver=Split(inner, order), steps=8, walk="uniform")
    assert model.nfe == 0
    assert sg.sample(model, x, solver=DDIM(), steps=8, walk="uniform").isfinite().all()
    early = linear(4.0, sde=sg.FlowSDE(T=0.99))
    assert sg.sample(early, x, solver=Split(inner, order), steps=8).isfinite().all()


def test_what_cannot_be_split_is_refused() -> None:
    model = linear(3.0)
    with refused("has no guidance of its own: give CFG"):
        sg.sample(model.model, (4, 2), solver=Split(), steps=3)
    with refused("Thresholded has no guidance of its own"):
        sg.sample(Thresholded(model, None, (-1, 1)), (4, 2), solver=Split(), steps=3)
    for inner in (sg.UniPC(3), sg.Heun(), DDIM(1.0), Split()):
        with refused("by a multistep method without a corrector"):
            Split(inner)
    with refused("order"):
        Split(IPNDM(), 3)
    assert model.nfe == 0

"""Exponential integrators: weights against mpmath, published formulas in their own letters."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.noise.source import Noise
from sdegen.solvers.equation import Eta
from sdegen.solvers.exponential import (
    DataForm,
    Form,
    NoiseForm,
    ScaledForm,
    StraightForm,
    lagrange,
)
from sdegen.solvers.quadrature import integrate, legendre
from tests.cases import FIXED, MIXTURE, Smooth, close, normal, run, sdes, slopes
from tests.solutions import exact_end, flow_errors

NET = Smooth()
FORMS: dict[str, Form] = {
    "x0": DataForm(),
    "eps": NoiseForm(),
    "F": ScaledForm(0.7),
    "straight": StraightForm(),
}
STEPS = (1e-12, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 4.0, 10.0)
mpmath.mp.dps = 40


def level(lam: float) -> sg.Level:
    """The level of EDM at a lam that is exact, where differences of lam are exact too."""
    at = sg.EDMSDE()(torch.tensor(math.exp(-lam), dtype=torch.float64))
    at.__dict__["lam"] = torch.tensor(lam, dtype=torch.float64)
    return at


def fading(lam: Any) -> Any:
    """An eta that is not a number, for torch."""
    return 0.3 + 0.5 * torch.exp(-(lam**2) / 8)


def fading_mp(lam: Any) -> Any:
    """The same for mpmath."""
    return mpmath.mpf(0.3) + mpmath.mpf(0.5) * mpmath.exp(-(lam**2) / 8)


ETAS: dict[str, tuple[Eta, Callable[[Any], Any]]] = {
    "0": (0.0, lambda u: mpmath.mpf(0)),
    "1": (1.0, lambda u: mpmath.mpf(1)),
    "0.3": (0.3, lambda u: mpmath.mpf(0.3)),
    "function": (fading, fading_mp),
}


def equation(eta: Eta) -> sg.Reverse:
    return sg.Reverse(sg.ScoreModel(NET, sg.EDMSDE()), eta)


smooth = partial(mpmath.quad, method="gauss-legendre")
"""For integrands without singularities it needs half of the points."""


def exact_density(name: str, eta: Callable[[Any], Any], u: Any, s: Any) -> Any:
    """The weight of Q at lam = u in x at lam = s on EDM, from the equations by hand."""
    sd = mpmath.mpf(0.7)

    def lost(f: Callable[[Any], Any]) -> Any:
        return smooth(f, [u, s]) if u != s else mpmath.mpf(0)

    if name == "x0":
        return (1 + eta(u) ** 2) * mpmath.exp(-(s - u) - lost(lambda v: eta(v) ** 2))
    if name == "eps":
        return -(1 + eta(u) ** 2) * mpmath.exp(-s) * mpmath.exp(s - u)

    def tau(v: Any) -> Any:
        return mpmath.exp(-v) / (1 + mpmath.exp(-v))

    if name == "straight":
        rate = (1 + eta(u) ** 2) * tau(u) * (1 - tau(u))
        return -(1 + mpmath.exp(-s)) * rate * mpmath.exp(-lost(lambda v: eta(v) ** 2 * tau(v)))

    def sin2(v: Any) -> Any:
        return mpmath.exp(-2 * v) / (sd**2 + mpmath.exp(-2 * v))

    n = mpmath.sqrt(sd**2 + mpmath.exp(-2 * s))
    cross = mpmath.sqrt(sin2(u) * (1 - sin2(u)))
    return n * (1 + eta(u) ** 2) * cross * mpmath.exp(-lost(lambda v: eta(v) ** 2 * sin2(v)))


@pytest.mark.parametrize("h", STEPS)
@pytest.mark.parametrize("eta", ["0", "1"])
@pytest.mark.parametrize("name", ["x0", "eps"])
def test_phi_functions_to_the_last_digits(name: str, eta: str, h: float) -> None:
    """INT density u^k du for k = 0 .. 3 is a phi function: relative 1e-12 at any h."""
    number, exact_eta = ETAS[eta]
    t, s = level(0.0), level(h)
    p, rate = equation(number), 1 + exact_eta(0) ** 2
    spread = [level(part * h) for part in (0.0, -1.0, -2.5, 0.5)]
    for k in range(4):
        nodes = spread[: k + 1] if k else spread[:1]
        weights = lagrange(p, FORMS[name], nodes, t, s)
        moment = sum(
            float(w) * (float(n.lam) / h) ** k for w, n in zip(weights, nodes, strict=True)
        )
        c = -rate if name == "x0" else mpmath.mpf(1)
        H = mpmath.mpf(h)
        phi = mpmath.quad(lambda v, k=k, c=c, H=H: mpmath.exp(c * H * (1 - v)) * v**k, [0, 1])
        outer = rate * H * phi
        exact = outer if name == "x0" else -outer * mpmath.exp(-H)
        close(moment, float(exact), 1e-12)


@pytest.mark.parametrize("h", [1e-3, 0.5, 3.0])
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("name", FORMS)
def test_polynomials_are_integrated_exactly(name: str, eta: str, h: float) -> None:
    """Degree k - 1 through k values, in every form and for every eta."""
    value, exact_eta = ETAS[eta]
    start = 0.25
    t, s, p = level(start), level(start + h), equation(value)
    nodes = [t, level(start - 0.75), level(start - 1.25)]
    for k in (1, 2, 3):
        weights = lagrange(p, FORMS[name], nodes[:k], t, s)
        got = sum(
            float(w) * (float(n.lam) - 2) ** (k - 1) for w, n in zip(weights, nodes, strict=False)
        )
        with mpmath.workdps(20):
            end = mpmath.mpf(start + h)
            exact = smooth(
                lambda u, k=k, end=end: (
                    exact_density(name, exact_eta, u, end) * (u - 2) ** (k - 1)
                ),
                [mpmath.mpf(start), end],
            )
        close(got, float(exact), 1e-12, 1e-15)


@pytest.mark.parametrize("h", [1e-9, 0.2, 3.0])
@pytest.mark.parametrize("eta", ["1", "0.3", "function"])
@pytest.mark.parametrize("name", FORMS)
def test_carry_and_noise_by_hand(name: str, eta: str, h: float) -> None:
    """x_s = n_s/n_t e^{-D} x + ..., var = 2 INT eta^2 sigma^2 (n_s/n e^{-D})^2: n is the scale."""
    number, exact_eta = ETAS[eta]
    t, s, p = level(0.0), level(h), equation(number)

    def scale2(u: Any) -> Any:
        sigma2 = mpmath.exp(-2 * u)
        scales = {"x0": sigma2, "eps": mpmath.mpf(1), "F": mpmath.mpf(0.7) ** 2 + sigma2}
        return {**scales, "straight": (1 + mpmath.exp(-u)) ** 2}[name]

    def rate(u: Any) -> Any:
        """Of decay: eta^2 where sigma alone is divided by, none where alpha is."""
        if name == "straight":
            return exact_eta(u) ** 2 * mpmath.exp(-u) / (1 + mpmath.exp(-u))
        return exact_eta(u) ** 2 * (0 if name == "eps" else mpmath.exp(-2 * u) / scale2(u))

    with mpmath.workdps(20):
        end = mpmath.mpf(h)

        def factor(u: Any) -> Any:
            lost = smooth(rate, [u, end]) if u != end else 0
            return mpmath.sqrt(scale2(end) / scale2(u)) * mpmath.exp(-lost)

        var = smooth(
            lambda u: 2 * exact_eta(u) ** 2 * mpmath.exp(-2 * u) * factor(u) ** 2, [0, end]
        )
        close(FORMS[name].carry(p, t, s), float(factor(mpmath.mpf(0))), 1e-12)
        close(FORMS[name].std(p, t, s), float(mpmath.sqrt(var)), 1e-12)


def test_quadrature() -> None:
    nodes, weights = legendre()
    x, w = np.polynomial.legendre.leggauss(32)
    close(nodes, (x + 1) / 2, 1e-14, 1e-16)
    close(weights, w / 2, 1e-12, 1e-15)
    a, b = torch.tensor([0.0, 1.0]).double(), torch.tensor([1.0, 4.0]).double()
    close(integrate(torch.exp, a, b), b.exp() - a.exp(), 1e-14)


# ------------------------------------------------------------------------------ exact solutions


@sdes
@pytest.mark.parametrize("steps", [1, 4])
def test_data_scaled_form_is_exact_for_data_of_its_scale(sde: sg.LinearSDE, steps: int) -> None:
    """N(0, sd^2): F is zero, and a step of any size ends at the exact flow."""
    gauss = Gaussian([0.0, 0.0], [0.49, 0.49])
    top, bottom = sde(torch.tensor([sde.T, sde.t_min]).double().clamp(sde.t_min, sde.T)).unbind()
    x = normal(5, 2)
    for solver in (
        sg.Multistep(3, prediction="F", sigma_data=0.7),
        sg.solvers.Singlestep(3, prediction="F", sigma_data=0.7),
    ):
        there = run(solver, exact_model(gauss, sde), x, steps)
        close(there, gauss.flow(x, top, bottom), 1e-10, 1e-12)
    other = run(sg.Multistep(3), exact_model(gauss, sde), x, steps)
    assert not torch.allclose(other, gauss.flow(x, top, bottom), rtol=1e-4)


@sdes
def test_the_straight_flow_is_adams_bashforths_on_it(sde: sg.LinearSDE) -> None:
    """Classical Adams-Bashforth in tau on y = x / (alpha + sigma), written out: two values."""
    walk, model = sg.walks.log_snr(sde, 9), exact_model(MIXTURE, sde)
    x = exact_end(sde)[0]
    solver = sg.Multistep(2, prediction="straight", clock="tau")
    stops = sde(walk)
    tau, scale = stops.sigma / (stops.alpha + stops.sigma), stops.alpha + stops.sigma
    y, before = x / scale[0], None
    for i in range(9):
        seen = model(scale[i] * y, walk[i])
        v = seen.eps - seen.x0
        h = tau[i + 1] - tau[i]
        bent = 0 if before is None else h / (2 * (tau[i] - tau[i - 1])) * (v - before)
        y, before = y + h * (v + bent), v
    close(sg.solve(model, x, solver=solver, walk=walk).x, scale[-1] * y, 1e-9, 1e-10)


@sdes
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_the_last_step_is_eulers(sde: sg.LinearSDE, eta: float) -> None:
    """Up to the last step nothing changes; that is of one value, DDIM's."""
    walk, model = sg.walks.log_snr(sde, 8), exact_model(MIXTURE, sde)
    x, noise = exact_end(sde)[0], sg.Brownian(3, sde.T)
    how: dict[str, Any] = {"walk": walk, "eta": eta, "noise": noise, "path": True}
    low, high = (
        sg.solve(model, x, solver=solver, **how).path
        for solver in (sg.Multistep(3, euler_at_final=True), sg.Multistep(3))
    )
    assert low is not None and high is not None
    close(low.x[:-1], high.x[:-1], 1e-12, 1e-12)
    stops, p = sde(walk).unbind(), sg.Reverse(model, eta, noise)
    close(low.x[8], sg.Multistep(1).step(p, low.x[7], stops[7], stops[8]).x, 1e-12, 1e-12)
    assert not torch.allclose(low.x[8], high.x[8], rtol=1e-6)


@pytest.mark.parametrize(("order", "corrector"), [(3, 2), (4, 2), (4, 3), (5, 2), (5, 4)])
def test_a_corrector_has_two_values_where_orders_fall(order: int, corrector: int) -> None:
    """Each step that is done again is Adams-Moulton's, through one value more than the predictor
    had, at least two: its coefficients are integrals of Lagrange's polynomials, by mpmath."""
    sde, n = sg.VPSDE(), 8
    model, stops = exact_model(MIXTURE, sde), sde(sg.walks.log_snr(sde, n)).unbind()
    solver = sg.Multistep(order, corrector=corrector, lower_order_final=1)
    x, memory = exact_end(sde)[0], None
    values, states = list[Tensor](), list[Tensor]()
    for i, (t, s) in enumerate(pairwise(stops)):
        p = replace(sg.Reverse(model), left=n - 1 - i)
        values.append(model(x, t).x0)
        x, memory, *_ = solver.step(p, x, t, s, memory)
        states.append(memory[1])  # at t, done again
        if i == 0:
            continue
        had = min(order, solver.lower_order_final + n - i)  # the predictor from stops[i - 1]
        c = min(corrector, had + 1) if had < order else corrector
        last, nodes = stops[i - 1], stops[max(0, i + 1 - c) : i + 1]
        y = float(t.sigma / last.sigma) * states[i - 1]
        for node, value in zip(nodes, values[-len(nodes) :], strict=True):
            y = y + adams(node, [each for each in nodes if each is not node], last, t) * value
        close(states[i], y, 1e-9, 1e-10)


def adams(node: sg.Level, others: list[sg.Level], t: sg.Level, s: sg.Level) -> float:
    """alpha_s INT exp(lam - lam_s) of a node's Lagrange polynomial in lam, from t to s."""
    end, here = float(s.lam), mpmath.mpf(float(node.lam))
    knots = [float(each.lam) for each in others]

    def integrand(lam: Any) -> Any:
        return mpmath.exp(lam - end) * mpmath.fprod((lam - k) / (here - k) for k in knots)

    return float(s.alpha) * float(mpmath.quad(integrand, [float(t.lam), end]))


def test_stepped_by_hand_no_step_is_the_last() -> None:
    """Who steps by hand says how many steps are left, or nothing is known of them."""
    sde = sg.VPSDE()
    p, stops = sg.Reverse(exact_model(MIXTURE, sde)), sde(sg.walks.log_snr(sde, 4)).unbind()
    ends = []
    for solver in (sg.Multistep(2, euler_at_final=True), sg.Multistep(2)):
        x, memory = exact_end(sde)[0], None
        for t, s in pairwise(stops):
            x, memory, _ = solver.step(p, x, t, s, memory)
        ends.append(x)
    assert torch.equal(*ends)
    assert [q.left for q in p.each(3)] == [2, 1, 0] and p.left is None


@pytest.mark.parametrize(
    "nodes",
    [
        (0.2, 0.9),
        *(pytest.param(n, marks=pytest.mark.slow) for n in ((0.4, 0.6), (0.1, 0.5), (0.5, 2 / 3))),
    ],
)
def test_any_nodes_give_order_three(nodes: tuple[float, float]) -> None:
    for prediction in ("x0", "eps", "F", "straight"):
        solver = sg.solvers.Singlestep(3, nodes, prediction)  # type: ignore[arg-type]
        (slope,) = slopes(flow_errors(solver, sg.VPSDE(), (64, 128)))
        assert abs(slope - 3) < 0.15, (prediction, slope)


@pytest.mark.parametrize("node", [0.1, 0.5, 0.8])
def test_any_node_gives_order_two(node: float) -> None:
    (slope,) = slopes(flow_errors(sg.solvers.Singlestep(2, (node,)), sg.EDMSDE(), (128, 256)))
    assert abs(slope - 2) < 0.1, slope


# --------------------------------------------------------------------------------------- eta


EXPONENTIAL = {
    name: solver
    for name, solver in FIXED.items()
    if solver.traits.any_eta and solver.traits.needs_marginals
}


def constant(lam: Tensor) -> Tensor:
    return torch.full_like(lam, 0.6)


@pytest.mark.parametrize("solver", EXPONENTIAL.values(), ids=EXPONENTIAL)
def test_an_eta_is_a_number_a_function_or_a_list(solver: sg.Solver) -> None:
    model, x = sg.ScoreModel(NET, sg.SubVPSDE(), "v"), normal(4, 2)
    ends = [run(solver, model, x, 6, eta=eta) for eta in (0.6, constant, [0.6] * 6)]
    close(ends[1], ends[0], 1e-10)
    close(ends[2], ends[0], 1e-12)
    mixed = run(solver, model, x, 6, eta=[0.6] * 3 + [0.0] * 3)
    assert not torch.allclose(mixed, ends[0], rtol=1e-3)


@pytest.mark.parametrize("solver", EXPONENTIAL.values(), ids=EXPONENTIAL)
def test_a_list_of_etas_is_a_function_that_jumps_at_the_steps(solver: sg.Solver) -> None:
    """A corrector, which does a step again, does it with that step's eta, in the program too.
    B_1 takes eta at a step's end."""
    model, x = sg.ScoreModel(NET, sg.SubVPSDE(), "v"), normal(4, 2)
    walk, etas = sg.walks.log_snr(model.sde, 6), [1.0, 0.0, 0.0, 0.8, 0.3, 0.0]
    starts = model.sde(walk).lam[1:-1].contiguous()
    right = solver not in (FIXED["sa"], FIXED["unipc_2_bh1"])

    def jumps(lam: Tensor) -> Tensor:
        return torch.tensor(etas)[torch.searchsorted(starts, lam.contiguous(), right=right)]

    listed = run(solver, model, x, walk, eta=etas)
    close(listed, run(solver, model, x, walk, eta=jumps), 1e-6, 1e-6)
    close(sg.sample(model, x, solver=solver, walk=walk, eta=etas, seed=0), listed, 1e-9, 1e-12)


def test_a_list_of_etas_is_one_eta_a_step() -> None:
    model, x = sg.ScoreModel(NET, sg.VPSDE()), normal(3, 2)
    walk, noise = sg.walks.log_snr(sg.VPSDE(), 3), [normal(3, 2, seed=k) for k in range(3)]

    class Fixed(Noise):
        def __call__(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
            return noise[int((walk - t.t).abs().argmin())]

    whole = run(sg.DPMSolverPP(1), model, x, walk, eta=[0.2, 0.0, 1.3], noise=Fixed())
    parts = x
    for (t, s), eta in zip(pairwise(walk.tolist()), (0.2, 0.0, 1.3), strict=True):
        step = torch.tensor([t, s], dtype=torch.float64)
        parts = run(sg.DPMSolverPP(1), model, parts, step, eta=eta, noise=Fixed())
    close(whole, parts)

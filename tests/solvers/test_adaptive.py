"""Adaptive solving: to the tolerance, on one path, a status for every sample and an end to all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.solvers.adaptive import Adaptive
from sdegen.solvers.pairs import PAIRS
from tests.cases import EVERY_SOLVER, MIXTURE, SDES, close, normal, pointwise, summed
from tests.solutions import exact_end

OWN = {name: solver for name, solver in EVERY_SOLVER.items() if isinstance(solver, Adaptive)}
FLOW = {name: solver for name, solver in OWN.items() if solver.eta == 0}
own = pytest.mark.parametrize("name", OWN)
flow = pytest.mark.parametrize("name", FLOW)
modes = pytest.mark.parametrize("per_sample", [False, True], ids=["shared", "own"])


def to(solver: sg.Solver, tolerance: float, **more: Any) -> sg.Solver:
    """The solver with another tolerance."""
    return replace(solver, rtol=tolerance, atol=tolerance, **more)  # type: ignore[type-var]


def rough(name: str) -> float:
    """A tolerance to look at the loop with: noise takes many steps."""
    return 1e-3 if OWN[name].eta == 0 else 0.1


@pytest.mark.parametrize(
    ("name", "on", "per_sample"),
    [
        *((name, "vp", per_sample) for name in FLOW for per_sample in (False, True)),
        *((name, on, False) for name in ("adaptive_dopri5", "adaptive_multistep") for on in SDES),
    ],
)
def test_error_follows_the_tolerance(name: str, on: str, per_sample: bool) -> None:
    x, exact = (y[:6] for y in exact_end(SDES[on]))
    model = exact_model(MIXTURE, SDES[on])
    low = FLOW[name].traits.order <= 2
    errors, calls = [], []
    for tolerance in (1e-2, 1e-3) if low else (1e-3, 1e-5):
        out = sg.solve(model, x, solver=to(FLOW[name], tolerance, per_sample=per_sample))
        assert out.status.tolist() == [0] * 6
        errors.append(float((out.x - exact).square().mean().sqrt()))
        calls.append(int(out.nfe.max()))
    assert errors[1] < errors[0] / 3 and errors[1] < (1e-2 if low else 1e-3)
    assert calls[0] < calls[1] < 2000


@flow
def test_nfe_is_what_the_network_saw(name: str) -> None:
    seen: list[int] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(len(x))
        return pointwise(x, t)

    model = sg.ScoreModel(net, sg.VPSDE(), "x0")
    for per_sample in (False, True):
        seen.clear()
        out = sg.solve(model, normal(5, 3), solver=to(FLOW[name], 1e-3, per_sample=per_sample))
        assert int(out.nfe.sum()) == sum(seen)
        assert (len(set(seen)) > 1) == (per_sample and len(set(out.nfe.tolist())) > 1)


@summed(OWN, SDES, ("adaptive_dopri5", "adaptive_multistep"))
def test_times_stay_inside_and_the_end_is_hit(solver: sg.Solver, sde: sg.LinearSDE) -> None:
    seen: list[Tensor] = []
    loose = 1e-2 if solver.eta == 0 else 0.2

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return pointwise(x, 0 * t)

    for per_sample in (False, True):
        seen.clear()
        how: Any = {"solver": to(solver, loose, per_sample=per_sample), "seed": 0, "path": True}
        x = sde.prior.sample(normal(3, 2))
        out = sg.solve(sg.ScoreModel(net, sde, "x0"), x, **how)
        times = torch.cat(seen)
        assert float(times.min()) >= sde.t_min and float(times.max()) <= sde.T
        assert out.path is not None and float(out.path.t[-1]) == sde.t_min
        assert out.status.tolist() == [0, 0, 0]


@own
def test_own_steps_make_a_sample_its_own(name: str) -> None:
    """Alone, in a batch, in another order: the same bits, if no step is shared."""
    model = sg.ScoreModel(pointwise, sg.VPSDE(), "x0")
    x, seeds = normal(4, 3) * torch.tensor([[1.0], [3.0], [10.0], [30.0]]), [5, 3, 11, 7]
    solver = to(OWN[name], rough(name), per_sample=True)
    batch = sg.solve(model, x, solver=solver, seed=seeds)
    order = [2, 0, 3, 1]
    again = sg.solve(model, x[order], solver=solver, seed=[seeds[i] for i in order])
    assert torch.equal(again.x, batch.x[order]) and torch.equal(again.nfe, batch.nfe[order])
    for i in range(4):
        alone = sg.solve(model, x[i : i + 1], solver=solver, seed=[seeds[i]])
        assert torch.equal(alone.x[0], batch.x[i]) and alone.nfe[0] == batch.nfe[i]
    assert len(set(batch.nfe.tolist())) > 1


@own
def test_own_steps_go_on_over_a_longer_walk(name: str) -> None:
    """From each level with the sample's own length, also beside a sample that is lost."""
    model = sg.ScoreModel(pointwise, sg.VPSDE(), "x0")
    x, seeds = normal(4, 3) * torch.tensor([[1.0], [3.0], [10.0], [30.0]]), [5, 3, 11, 7]
    x[3] = torch.nan
    solver = to(OWN[name], rough(name), per_sample=True)
    walk = [1.0, 0.7, 0.4, 0.1, 1e-3]
    batch = sg.solve(model, x, solver=solver, walk=walk, seed=seeds)
    assert bool(batch.x[:3].isfinite().all()) and bool(batch.x[3].isnan().all())
    for i in range(3):
        alone = sg.solve(model, x[i : i + 1], solver=solver, walk=walk, seed=[seeds[i]])
        assert torch.equal(alone.x[0], batch.x[i]) and alone.nfe[0] == batch.nfe[i]


@own
@modes
def test_a_sick_sample_leaves_and_touches_no_other(name: str, per_sample: bool) -> None:
    """NaN from the start, and NaN halfway: a status, an end, and the others as they were."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        sick = (x[:, :1] > 8) & (t[:, None] < 0.5)
        return torch.where(sick, torch.nan, pointwise(x, t))

    model = sg.ScoreModel(net, sg.VPSDE(), "x0")
    solver = to(OWN[name], rough(name), per_sample=per_sample)
    x = normal(5, 2)
    x[1], x[3, 0] = torch.nan, 1e3
    out = sg.solve(model, x, solver=solver, seed=[0, 1, 2, 3, 4])
    assert out.status.tolist() == [0, 1, 0, 1, 0]
    assert bool(out.x[[1, 3]].isnan().all()) and int(out.nfe[1]) <= 7
    healthy = sg.solve(model, x[[0, 2, 4]], solver=solver, seed=[0, 2, 4])
    tolerance = 1e-12 if per_sample else 0.05
    close(out.x[[0, 2, 4]], healthy.x, tolerance, tolerance)


@own
@modes
def test_a_spent_budget_is_a_status(name: str, per_sample: bool) -> None:
    model = sg.ScoreModel(pointwise, sg.VPSDE(), "x0")
    solver = to(OWN[name], 1e-6, max_nfe=20, per_sample=per_sample)
    out = sg.solve(model, normal(3, 2), solver=solver, seed=0)
    assert out.status.tolist() == [sg.Status.BUDGET] * 3
    assert bool((out.nfe <= 20).all() and (out.nfe > 12).all() and out.x.isnan().all())


def test_a_step_is_kept_where_its_error_is_within_the_tolerance() -> None:
    """At most 1, beside it: of every attempt's error and whether it was accepted."""
    seen: list[tuple[float, bool]] = []

    class Watched(sg.AdaptiveRK):
        def factor(self, error: Tensor, before: Tensor, accepted: Tensor, order: Any) -> Tensor:
            seen.extend(zip(error.tolist(), accepted.tolist(), strict=True))
            return super().factor(error, before, accepted, order)

    model = exact_model(MIXTURE, SDES["vp"])
    sg.sample(model, normal(40, 2), solver=Watched("heun_euler", rtol=1e-2, atol=1e-3))
    assert all(accepted == (error <= 1) for error, accepted in seen)
    assert any(1 < error < 1.9 for error, _ in seen) and any(0.5 < error <= 1 for error, _ in seen)


def test_a_budget_may_be_spent_to_the_last_call() -> None:
    model = exact_model(MIXTURE, SDES["vp"])
    solver = sg.AdaptiveRK(rtol=1e-3, atol=1e-3)
    free = sg.solve(model, normal(1, 2), solver=solver)
    n = int(free.nfe)
    just = sg.solve(model, normal(1, 2), solver=replace(solver, max_nfe=n))
    assert torch.equal(just.x, free.x) and int(just.status) == sg.Status.OK
    less = sg.solve(model, normal(1, 2), solver=replace(solver, max_nfe=n - 1))
    assert int(less.status) == sg.Status.BUDGET


@pytest.mark.parametrize("order", [2, 3])
def test_an_attempt_of_dpm_solver_is_the_better_one_s_step(order: int) -> None:
    """Of DPM-Solver-12 the step of -2, of -23 that of -3, both with their published nodes."""
    sde = SDES["vp"]
    p = sg.Reverse(exact_model(MIXTURE, sde), 0.0)
    t, s = sde(0.8), sde(0.5)
    got = sg.solvers.AdaptiveDPM(order).attempt(p, normal(3, 2), t, s, None).x
    close(got, sg.DPMSolver(order).step(p, normal(3, 2), t, s).x, rtol=1e-10, atol=1e-10)


@own
def test_what_cannot_be_met_stalls(name: str) -> None:
    """A field without rhyme or reason: no step is short enough, and the solve ends anyhow."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(1e12 * t)[:, None].expand_as(x)

    model = sg.ScoreModel(net, sg.VPSDE(), "x0")
    solver = to(OWN[name], 1e-13, max_nfe=400)
    out = sg.solve(model, normal(2, 2), solver=solver, seed=0)
    assert set(out.status.tolist()) <= {sg.Status.BUDGET, sg.Status.STALLED}
    assert bool(out.x.isnan().all()) and int(out.nfe.max()) <= 400


def test_conditions_follow_their_samples() -> None:
    """A batch that shrinks takes each sample's condition along."""
    y = torch.tensor([0.0, 5.0, -3.0, 0.1], dtype=torch.float64)

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        assert len(y) == len(x)
        return y[:, None] * torch.tanh(x)

    model = sg.ScoreModel(net, sg.VPSDE(), "x0")
    solver = sg.AdaptiveRK(per_sample=True)
    out = sg.solve(model.given(y=y), 5 * normal(4, 2), solver=solver)
    assert len(set(out.nfe.tolist())) > 1
    for i in range(4):
        alone = sg.solve(model.given(y=y[i : i + 1]), 5 * normal(4, 2)[i : i + 1], solver=solver)
        close(out.x[i], alone.x[0])


@pytest.mark.parametrize("method", PAIRS)
def test_pairs_are_those_of_their_papers(method: str) -> None:
    """Order conditions of both members: sum b c^k = 1 / (k + 1) and sum b a c = 1 / 6."""
    pair = PAIRS[method]
    c, a, b = pair.method.c, pair.method.a, pair.method.b
    if len(pair.low) > len(b):
        c, a, b = (*c, 1.0), (*a, b), (*b, 0.0)
    for row, node in zip(a, c, strict=True):
        assert abs(sum(row) - node) < 1e-14
    low = {"heun_euler": 1, "bosh3": 2, "dopri5": 4}[method]
    for weights, order in ((b, pair.method.order), (pair.low, low)):
        for k in range(order):
            assert (
                abs(sum(w * n**k for w, n in zip(weights, c, strict=True)) - 1 / (k + 1)) < 1e-14
            )
        inner = [sum(q * n for q, n in zip(row, c, strict=False)) for row in a]
        if order >= 3:
            assert abs(sum(w * q for w, q in zip(weights, inner, strict=True)) - 1 / 6) < 1e-14
    k = low
    assert abs(sum(w * n**k for w, n in zip(pair.low, c, strict=True)) - 1 / (k + 1)) > 1e-4


# ------------------------------------------------------------- noise that may be rejected


@modes
def test_rejected_steps_keep_their_path(per_sample: bool) -> None:
    """As the tolerance falls, the samples tend to those of fine fixed steps on that path."""
    sde = sg.VPSDE(t_min=0.2)
    model, x = exact_model(MIXTURE, sde), normal(8, 2)
    fine = sg.sample(
        model, x, solver=sg.solvers.StochasticHeun(), steps=128, noise=sg.Brownian(7, sde.T)
    )
    errors = []
    for tolerance in (2e-1, 2e-2):
        solver = sg.solvers.GottaGoFast(tolerance, tolerance, per_sample=per_sample)
        out = sg.solve(model, x, solver=solver, seed=7)
        assert out.status.tolist() == [0] * 8
        errors.append(float((out.x - fine).square().mean().sqrt()))
    assert errors[0] > 2 * errors[1] and errors[1] < 0.03, errors
    other = sg.sample(model, x, solver=solver, seed=8)  # on another path they end elsewhere
    assert float((other - fine).square().mean().sqrt()) > 0.1


def test_a_path_is_made_of_a_seed_or_asked_for() -> None:
    model, x = sg.ScoreModel(pointwise, sg.VPSDE(), "x0"), normal(3, 2)
    a = sg.sample(model, x, solver=sg.solvers.GottaGoFast(), seed=4)
    b = sg.sample(model, x, solver=sg.solvers.GottaGoFast(), noise=sg.Brownian(4, 1.0))
    assert torch.equal(a, b)
    torch.manual_seed(0)
    c = sg.sample(model, x, solver=sg.solvers.GottaGoFast())
    torch.manual_seed(0)
    assert torch.equal(
        c, sg.sample(model, x, solver=sg.solvers.GottaGoFast())
    ) and not torch.equal(a, c)
    # Without noise no path is needed: the flow.
    flow = sg.sample(
        model, x, solver=sg.solvers.GottaGoFast(1e-4, 1e-4), eta=0.0, noise=sg.Seeded(0)
    )
    close(flow, sg.sample(model, x, solver=sg.RK4(), steps=100), 1e-3, 1e-3)


def test_dpm_solver_adaptive_by_hand() -> None:
    """Lu et al. (2022a), app. C, order 2: one attempt's two members and its measure of error."""
    sde = sg.VPSDE()
    model, x = exact_model(MIXTURE, sde), normal(4, 2)
    t, s = sde(torch.tensor([0.9, 0.7], dtype=torch.float64)).unbind()
    h = s.lam - t.lam
    m = sde(sde.time(t.lam + h / 2))
    eps = model(x, t).eps
    u = m.alpha / t.alpha * x - m.sigma * torch.expm1(h / 2) * eps
    low = s.alpha / t.alpha * x - s.sigma * torch.expm1(h) * eps
    high = s.alpha / t.alpha * x - s.sigma * torch.expm1(h) * model(u, m).eps
    solver = sg.solvers.AdaptiveDPM(2)
    trial = solver.attempt(sg.Reverse(model), x, t, s, None)
    close(trial.x, high, 1e-11)
    close(trial.error, high - low, 1e-9)
    scale = torch.maximum(torch.tensor(0.0078), 0.05 * torch.maximum(x.abs(), high.abs()))
    close(solver.errors(x, trial), ((high - low) / scale).square().mean(1).sqrt(), 1e-9)


def test_steps_are_fewer_where_nothing_happens() -> None:
    """PI control: a linear field to a loose tolerance takes few steps, a stiff one more."""
    calm = sg.ScoreModel(lambda x, t: 0 * x, SDES["edm"], "eps")
    out = sg.solve(calm, normal(2, 2), solver=sg.AdaptiveRK("bosh3", clock="rho"))
    assert int(out.nfe.max()) < 20


@pytest.mark.parametrize("clock", ["t", "lam", "rho"])
@pytest.mark.parametrize("method", ["heun_euler", "bosh3", "dopri5"])
def test_every_clock_comes_to_the_same_end(clock: Any, method: Any) -> None:
    for sde in (sg.VPSDE(), sg.EDMSDE(), sg.FlowSDE()):
        x, exact = exact_end(sde)
        tol = {"heun_euler": 1e-4, "bosh3": 1e-5, "dopri5": 1e-6}[method]
        solver = sg.AdaptiveRK(method, clock=clock, rtol=tol, atol=tol, max_nfe=100_000)
        end = sg.solve(exact_model(MIXTURE, sde), x, solver=solver).x
        assert (end - exact).abs().max() < 1e-2

"""Other libraries' integrators: inside the step, to its end, and each sample on its own."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.solvers.backends import SCIPY, TORCHDIFFEQ, TORCHSDE
from tests.cases import MIXTURE, Ornstein, Smooth, close, normal, pointwise, refused, run, slopes
from tests.solutions import exact_end, flow_errors

VP = sg.VPSDE()
FIXED = [name for name, method in TORCHDIFFEQ.items() if method.calls]
INNER = {name: 100 if "adams" in name else 1 for name in TORCHDIFFEQ}


def test_the_tables_are_whole() -> None:
    """Every method of the library's own table, but aliases and the adjoint's."""
    from torchdiffeq._impl.odeint import SOLVERS
    from torchsde.settings import METHODS

    assert set(TORCHDIFFEQ) == set(SOLVERS) - {"fixed_adams"}
    methods = [value for name, value in vars(METHODS).items() if not name.startswith("_")]
    assert set(TORCHSDE) == {name for name in methods if "adjoint" not in name}


@pytest.mark.parametrize("method", TORCHDIFFEQ)
@pytest.mark.parametrize(
    "sde",
    [pytest.param(VP, id="vp"), pytest.param(sg.EDMSDE(), id="edm", marks=pytest.mark.slow)],
)
def test_every_torchdiffeq_method(method: str, sde: sg.LinearSDE) -> None:
    """To the flow's end, asked inside [t_min, T] alone, its calls counted where they are made."""
    if "adams" in method and isinstance(sde, sg.EDMSDE):
        sde = VP  # equal steps in t, which they need, are unstable from t = 80
    x, exact = exact_end(sde)
    truth, seen = exact_model(MIXTURE, sde), []

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return truth.net(x, t)  # type: ignore[no-any-return]

    solver = sg.solvers.TorchDiffEq(method, 1e-6, 1e-6, n=INNER[method])
    steps = None if solver.traits.adaptive else 120
    out = sg.solve(sg.ScoreModel(net, sde, "x0"), x, solver=solver, steps=steps)
    assert out.nfe.tolist() == [len(seen)] * 16
    assert min(seen) >= sde.t_min and max(seen) <= sde.T
    error = float((out.x - exact).abs().max())
    assert error < (0.1 if TORCHDIFFEQ[method].order <= 2 else 2e-3), error
    if steps and not solver.traits.adaptive:
        assert out.nfe[0] == solver.calls(steps)


@pytest.mark.parametrize("method", FIXED)
def test_order_of_fixed_methods(method: str) -> None:
    (slope,) = slopes(flow_errors(sg.solvers.TorchDiffEq(method), VP, (64, 128)))
    assert abs(slope - TORCHDIFFEQ[method].order) < 0.15, slope


@pytest.mark.parametrize("method", SCIPY)
def test_every_scipy_method(method: str) -> None:
    x, exact = exact_end(VP)
    out = sg.solve(exact_model(MIXTURE, VP), x[:3], solver=sg.solvers.SciPy(method, 1e-7, 1e-7))
    assert out.status.tolist() == [0, 0, 0] and len(set(out.nfe.tolist())) > 1
    assert float((out.x - exact[:3]).abs().max()) < 1e-4


def test_scipy_takes_each_sample_on_its_own() -> None:
    """With its condition, its own number of calls, and its own end."""

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        assert x.shape == (1, 2, 2) and y.shape == (1,) and x.dtype == torch.float64
        return torch.where(y[:, None, None] < 0, torch.nan, y[:, None, None] * torch.tanh(x))

    y = torch.tensor([0.5, -1.0, 9.0])
    model, x = sg.ScoreModel(net, VP, "x0").given(y=y), normal(3, 2, 2, dtype=torch.float32)
    out = sg.solve(model, x, solver=sg.solvers.SciPy())
    assert out.status.tolist() == [0, sg.Status.NONFINITE, 0] and bool(out.x[1].isnan().all())
    assert out.x.dtype == torch.float32 and out.nfe[1] == 1 and out.nfe[0] != out.nfe[2]
    for i in (0, 2):
        alone = sg.solve(model.given(y=y[i : i + 1]), x[i : i + 1], solver=sg.solvers.SciPy())
        assert torch.equal(alone.x[0], out.x[i]) and alone.nfe[0] == out.nfe[i]
    sick = x.clone()
    sick[0, 0, 0] = torch.inf
    assert sg.solve(model, sick, solver=sg.solvers.SciPy()).status.tolist() == [1, 1, 0]


# ------------------------------------------------------------------------------------- torchsde


def test_its_euler_is_ours() -> None:
    """On the same noise, for any eta and shape."""
    for shape in ((5,), (3, 2), (2, 3, 4, 4)):
        model, x = sg.ScoreModel(pointwise, sg.SubVPSDE(), "x0"), normal(*shape)
        for eta in (0.0, 0.5, 1.0):
            theirs = sg.sample(
                model, x, solver=sg.solvers.TorchSDE("euler"), steps=7, eta=eta, seed=3
            )
            ours = sg.sample(model, x, solver=sg.EulerMaruyama(), steps=7, eta=eta, seed=3)
            close(theirs, ours, 1e-11, 1e-12)
    whole = sg.solve(model, x, solver=sg.solvers.TorchSDE("euler"), steps=7, seed=3)
    assert whole.nfe.tolist() == [7, 7]


@cache
def on_one_path(solver: sg.Solver, n: int) -> Tensor:
    """Where a solver's n steps end on one Brownian path, from 24 states."""
    sde = sg.VPSDE(t_min=0.05)
    walk = sg.walks.log_snr(sde, 512)[:: 512 // n]
    model, noise = exact_model(MIXTURE, sde), sg.Brownian(7, 1.0)
    return run(solver, model, normal(24, 2), walk, noise=noise)


@pytest.mark.parametrize("method", TORCHSDE)
def test_every_torchsde_method_follows_the_path(method: str) -> None:
    """The fine limit of SRA1 on the same Brownian path, and its own order without noise."""
    solver, limit = sg.solvers.TorchSDE(method), on_one_path(sg.solvers.SRA1(), 512)
    errors = [float((on_one_path(solver, n) - limit).square().mean().sqrt()) for n in (16, 64)]
    assert slopes(errors, 4.0)[0] > solver.traits.strong - 0.25 and errors[1] < 0.05, errors
    (slope,) = slopes(flow_errors(solver, VP, (32, 64), eta=0.0))
    assert abs(slope - solver.traits.order) < 0.1, slope
    counted = sg.solve(sg.ScoreModel(pointwise, VP), normal(24, 2), solver=solver, steps=3, seed=0)
    assert counted.nfe[0] == solver.calls(3)


@cache
def with_matrices(solver: sg.Solver, n: int, shape: tuple[int, ...], eta: float = 0.8) -> Tensor:
    """Where a solver's n steps end with diffusion matrices, on one Brownian path."""
    sde = Ornstein()
    model, noise = sg.ScoreModel(Smooth(), sde, "score"), sg.Brownian(1, sde.T)
    return run(solver, model, normal(*shape), n, grid=sg.walks.uniform, eta=eta, noise=noise)


@pytest.mark.parametrize("method", ["euler", "srk", "heun"])
def test_matrix_noise(method: str) -> None:
    """Diffusion matrices on a state's last axis: near the fine limit of our own on one path."""
    solver, n = sg.solvers.TorchSDE(method), 64
    for shape in ((6, 2), (3, 2, 2)):
        limit = with_matrices(sg.solvers.SRA1(), 256, shape)
        there, ours = (with_matrices(each, n, shape) for each in (solver, sg.EulerMaruyama()))
        if method == "euler":
            close(there, ours, 1e-11)
        assert float((there - limit).norm() / (ours - limit).norm()) < {"heun": 0.3}.get(
            method, 1.01 if method == "euler" else 0.05
        )
        zero = with_matrices(solver, n, shape, 0.0)
        by_hand = {"euler": sg.Euler(), "heun": sg.Heun()}.get(method, sg.RK4())
        flow = with_matrices(by_hand, n, shape, 0.0)
        close(zero, flow, 1e-3 if method == "srk" else 1e-10, 1e-3)


def test_a_sample_depends_on_its_own_seed_alone() -> None:
    model = sg.ScoreModel(pointwise, VP, "x0")
    for method in TORCHSDE:
        how: dict[str, Any] = {"solver": sg.solvers.TorchSDE(method), "steps": 4}
        batch = sg.sample(model, (3, 2), seed=[1, 2, 3], **how)
        assert torch.equal(sg.sample(model, (2, 2), seed=[3, 1], **how), batch[[2, 0]])


@pytest.mark.parametrize("cls", [sg.solvers.TorchDiffEq, sg.solvers.SciPy])
def test_noise_is_refused(cls: type[sg.Solver]) -> None:
    with refused("eta = 0, but eta = 1"):
        sg.sample(sg.ScoreModel(pointwise, VP), (2, 2), solver=cls(), eta=1.0)


@pytest.mark.parametrize(
    "solver", [sg.solvers.TorchDiffEq(), sg.solvers.TorchDiffEq("rk4"), sg.solvers.SciPy()]
)
def test_a_lost_sample_stops_no_other(solver: sg.Solver) -> None:
    """One begins as NaN, one meets a NaN on its way: both are named, the others arrive."""
    sde = VP

    def net(x: Tensor, t: Tensor) -> Tensor:
        falls_ill = (x[:, :1] > 1e3) & (t.reshape(-1, 1) < 0.5)
        return torch.where(falls_ill, torch.nan, 0.1 * x)

    x = normal(4, 2)
    x[1, 0], x[2, 0] = float("nan"), 1e4
    how: dict[str, Any] = {"solver": solver, "walk": torch.linspace(1.0, sde.t_min, 9)}
    found = sg.solve(sg.ScoreModel(net, sde), x, **how)
    assert found.status.tolist() == [0, sg.Status.NONFINITE, sg.Status.NONFINITE, 0]
    assert found.x[[1, 2]].isnan().all()
    alone = sg.sample(sg.ScoreModel(net, sde), x[[0, 3]], **how)
    close(found.x[[0, 3]], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["rk4", "dopri5"])
def test_a_graph_of_torchdiffeq_has_the_flow_s_gradient(method: str) -> None:
    model, start = exact_model(MIXTURE, VP), normal(3, 2)

    def slope(solver: sg.Solver) -> Tensor:
        x = start.clone().requires_grad_()
        walk = torch.linspace(1.0, 0.05, 60)
        y = sg.sample(model, x, solver=solver, walk=walk, graph=True)
        (found,) = torch.autograd.grad(y.sum(), x)
        return found

    close(slope(sg.solvers.TorchDiffEq(method)), slope(sg.RK4()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cls", [sg.solvers.TorchDiffEq, sg.solvers.SciPy])
def test_calls_are_limited(cls: Any) -> None:
    model = exact_model(MIXTURE, VP)
    ends = [VP.T, VP.t_min]
    found = sg.solve(model, (3, 2), solver=cls(rtol=1e-9, atol=1e-9, max_nfe=20), walk=ends)
    assert found.status.tolist() == [sg.Status.BUDGET] * 3
    assert found.x.isnan().all() and (found.nfe == 20).all()
    assert sg.solve(model, (3, 2), solver=cls(max_nfe=2000), walk=ends).status.eq(0).all()
    with refused("max_nfe must be a whole number >= 1"):
        cls(max_nfe=0)


def test_refused() -> None:
    with refused("Unknown torchsde method 'rk4'.*milstein"):
        sg.solvers.TorchSDE("rk4")
    with refused("Unknown SciPy method 'rk45'.*DOP853"):
        sg.solvers.SciPy("rk45")
    with refused("must be positive"):
        sg.solvers.SciPy(rtol=0.0)
    with refused("n must be a whole number >= 1"):
        sg.solvers.TorchDiffEq("rk4", n=0)

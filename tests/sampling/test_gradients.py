"""Gradients through a solve, and looking on while it runs."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from tests.cases import FIXED, SDES, Smooth, close, ends, normal, refused

SDE = sg.VPSDE()
DATA = Gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.3]])
MODEL = exact_model(DATA, SDE)
X = normal(3, 2)


def jacobian(x: Tensor, **how: Any) -> Tensor:
    """Of samples (b, d) by starts (b, d), each sample's own: (b, d, d)."""
    start = x.clone().requires_grad_()
    y = sg.sample(how.pop("model", MODEL), start, **{"graph": True, **how})
    rows = [torch.autograd.grad(y[:, i].sum(), start, retain_graph=True)[0] for i in range(2)]
    return torch.stack(rows, 1)


# ------------------------------------------------------------------------------------- exactness


@pytest.mark.parametrize(
    ("name", "graph"),
    [
        *(
            pytest.param(name, True, marks=pytest.mark.slow if name == "marginal" else ())
            for name in SDES
        ),
        ("vp", "checkpoint"),
        ("edm", "checkpoint"),
    ],
)
def test_by_the_start_it_is_the_flow_s_own_jacobian(name: str, graph: Any) -> None:
    """On a Gaussian the flow is affine, and known."""
    sde = SDES[name]
    top, bottom = ends(sde)
    x = top.sigma * X
    got = jacobian(
        x, model=exact_model(DATA, sde), solver=sg.solvers.RK5("lam"), steps=60, graph=graph
    )
    still = torch.zeros(1, 2, dtype=torch.float64)
    origin = DATA.flow(still, top, bottom)
    columns = [DATA.flow(still + e, top, bottom) - origin for e in torch.eye(2).double()]
    want = torch.cat(columns).T.expand(3, 2, 2)
    close(got, want, rtol=0, atol=1e-7 * float(want.abs().max()))


@pytest.mark.parametrize("name", FIXED)
def test_by_the_start_for_every_solver(name: str) -> None:
    """A difference of samples from two starts: exact to rounding where the sampler is affine."""
    solver = FIXED[name]
    how: dict[str, Any] = {"solver": solver, "steps": 4, "seed": 0, "denoise": True}
    got = jacobian(X, **how)
    step = 1e-5 if solver.traits.why_not_linear else 1.0
    differences = [
        (sg.sample(MODEL, X + step * e, **how) - sg.sample(MODEL, X - step * e, **how))
        / (2 * step)
        for e in torch.eye(2).double()
    ]
    want = torch.stack(differences, 2)
    close(got, want, rtol=1e-9 if step == 1.0 else 1e-5, atol=1e-9 if step == 1.0 else 1e-6)
    same = jacobian(X, **{**how, "graph": "checkpoint"})
    close(same, got, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "solver",
    [sg.AdaptiveRK(), sg.AdaptiveRK(per_sample=True), sg.solvers.AdaptiveMultistep()],
    ids=str,
)
def test_by_the_start_where_steps_are_chosen(solver: sg.Solver) -> None:
    got = jacobian(X, solver=solver)
    want = jacobian(X, solver=sg.UniPC(3), steps=200)
    close(got, want, rtol=0, atol=1e-2 * float(want.abs().max()))
    close(jacobian(X, solver=solver, graph="checkpoint"), got, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("graph", [True, "checkpoint"])
@pytest.mark.parametrize(
    ("solver", "how"),
    [
        (sg.UniPC(), {"steps": 5}),
        (sg.DPMSolverPP(2), {"steps": 5, "eta": 1.0, "seed": 1}),
        (sg.Heun(), {"walk": [1.0, 0.5, 0.7, 0.1], "seed": 1, "denoise": True}),
    ],
    ids=["flow", "noise", "climb"],
)
def test_by_a_parameter_it_is_a_finite_difference(
    solver: sg.Solver, how: dict[str, Any], graph: Any
) -> None:
    net = Smooth()
    model = sg.ScoreModel(net, SDE)
    loss = sg.sample(model, X, solver=solver, graph=graph, **how).square().sum()
    loss.backward()
    h, slope = 1e-6, net.W.grad
    assert slope is not None
    for i in range(2):
        for j in range(2):
            both = []
            for sign in (1, -1):
                with torch.no_grad():
                    net.W[i, j] += sign * h
                both.append(float(sg.sample(model, X, solver=solver, **how).square().sum()))
                with torch.no_grad():
                    net.W[i, j] -= sign * h
            close(slope[i, j], (both[0] - both[1]) / (2 * h), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("graph", [True, "checkpoint"])
def test_by_a_condition(graph: Any) -> None:
    def net(x: Tensor, label: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(x + y[:, None])

    def end(y: Tensor, **how: Any) -> Tensor:
        model = sg.ScoreModel(net, SDE).given(y=y)
        return sg.sample(model, X, solver=sg.UniPC(), steps=5, **how)

    y = torch.tensor([0.1, -0.4, 0.3], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(end(y, graph=graph).sum(), y)
    h = 1e-6
    want = (end(y.detach() + h) - end(y.detach() - h)).sum(1) / (2 * h)
    close(slope, want, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    "solver",
    [
        sg.DPMSolverPP(),
        sg.DDIM(1.0),
        sg.PredictorCorrector(),
        sg.solvers.named("song_pc"),
        sg.solvers.StochasticHeun(),
        sg.solvers.SRA1(),
    ],
    ids=lambda solver: type(solver).__name__,
)
def test_what_torch_draws_is_drawn_once(solver: sg.Solver) -> None:
    """Fresh noise, and dropout before it or after: a step that runs again must see the same."""
    drop = torch.nn.Dropout(0.5)
    W = torch.nn.Parameter(normal(2, 2, seed=7))
    model = sg.ScoreModel(lambda x, t: drop(torch.tanh(x @ W)) + 0.3 * x, SDE)
    found = []
    for graph in (True, "checkpoint"):
        torch.manual_seed(5)
        y = sg.sample(model, X, solver=solver, steps=4, graph=graph, eta=1.0)
        found.append([y, *torch.autograd.grad(y.square().sum(), W)])
    for one, other in zip(*found, strict=True):
        close(one, other, rtol=1e-12)


@pytest.mark.parametrize("name", ["heun", "rk4", "er_sde_3", "euler_maruyama", "dpmpp"])
def test_a_learned_schedule_is_checkpointed(name: str) -> None:
    """Levels with gradients: what they remember is made in every run of a step."""
    sde = sg.sde.LearnedVPSDE()
    model = sg.ScoreModel(lambda x, t: 0.5 * x + t[:, None], sde)
    found = []
    for graph in (True, "checkpoint"):
        y = sg.sample(model, X, solver=name, steps=4, walk="uniform", seed=0, graph=graph)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(sde.parameters()))])
    for one, other in zip(*found, strict=True):
        close(one, other, rtol=1e-9)


def test_a_checkpoint_keeps_less() -> None:
    net = torch.nn.Sequential(*[torch.nn.Linear(2, 2), torch.nn.Tanh()] * 8).double()
    model = sg.ScoreModel(lambda x, t: net(x), SDE, module=net)
    kept = []
    for graph in (True, "checkpoint"):
        held = 0

        def pack(x: Tensor) -> Tensor:
            nonlocal held
            held += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            sg.sample(model, X, solver=sg.UniPC(), steps=10, graph=graph)
        kept.append(held)
    assert kept[1] < kept[0] / 4


def test_a_solution_has_its_gradients_too() -> None:
    start = X.clone().requires_grad_()
    solution = sg.solve(MODEL, start, solver=sg.DDIM(), steps=4, path=True, graph=True)
    assert solution.x.requires_grad and solution.path is not None
    assert solution.path.x[-1].requires_grad and solution.status.tolist() == [0, 0, 0]
    assert solution.nfe.tolist() == [4, 4, 4]
    want = sg.sample(MODEL, X, solver=sg.DDIM(), steps=4)
    close(solution.x.detach(), want, rtol=1e-9)


def test_without_it_nothing_is_kept_and_with_it_whatever_is_around() -> None:
    start = X.clone().requires_grad_()
    assert not sg.sample(MODEL, start, solver=sg.DDIM(), steps=3).requires_grad
    assert not sg.solve(MODEL, start, solver=sg.DDIM(), steps=3, path=True).x.requires_grad
    with torch.no_grad():
        y = sg.sample(MODEL, start, solver=sg.DDIM(), steps=3, graph=True)
        assert not torch.is_grad_enabled()
    assert torch.autograd.grad(y.sum(), start)[0].isfinite().all()


# -------------------------------------------------------------------------------------- refusals


def test_where_there_can_be_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    start = X.clone().requires_grad_()

    def go(**how: Any) -> Tensor:
        return sg.sample(MODEL, start, **{"solver": sg.DDIM(), "steps": 3, "graph": True, **how})

    with torch.inference_mode(), refused("no.*under torch.inference_mode: leave that block"):
        go()
    with refused(r"captured loop keeps no graph.*sample\(..., graph=True\)"):
        sg.sampling.Captured(MODEL, X, solver=sg.DDIM(), steps=3, graph=True)
    with refused("True, False or \"checkpoint\", but it is 'all'"):
        go(graph="all")
    with refused("SciPy's, passes none on"):
        go(solver=sg.solvers.SciPy(), steps=None)
    with refused("nothing that requires a gradient.*set requires_grad"):
        sg.sample(MODEL, X, solver=sg.DDIM(), steps=3, graph=True)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with refused("being compiled: call it outside, and compile the network instead"):
        go()
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with refused("captured as a CUDA graph"):
        go()


# ---------------------------------------------------------------------------------- looking on


@pytest.mark.parametrize(
    "solver", [sg.UniPC(), sg.solvers.named("song_pc")], ids=["program", "loop"]
)
@pytest.mark.parametrize("denoise", [False, True])
def test_every_step_is_seen(solver: sg.Solver, denoise: bool) -> None:
    seen: list[tuple[int, int]] = []
    states: list[Tensor] = []

    def watch(step: int, of: int, x: Tensor) -> None:
        seen.append((step, of))
        states.append(x.clone())

    how: dict[str, Any] = {"solver": solver, "steps": 4, "seed": 0, "denoise": denoise}
    solution = sg.solve(MODEL, X, watch=watch, path=True, **how)
    n = 4 + denoise
    assert seen == [(i, n) for i in range(1, n + 1)] and solution.path is not None
    assert torch.equal(torch.stack(states), solution.path.x[1:])
    seen.clear()
    assert torch.equal(sg.sample(MODEL, X, watch=watch, **how), solution.x) and len(seen) == n


def test_a_bar_counts_the_steps_and_reads_nothing() -> None:
    from sdegen.bench.watch import Watch

    out = io.StringIO()
    bar = sg.progress(file=out, desc="sampling", mininterval=0, disable=False)
    reads = []
    for watch in (None, bar, bar):  # and may be used again
        sg.sample(MODEL, X, solver=sg.DDIM(), steps=7, watch=watch)  # what is remembered
        with Watch(X.numel()) as counted:
            sg.sample(MODEL, X, solver=sg.DDIM(), steps=7, watch=watch)
        reads.append(counted.reads)
    assert reads[0] == reads[1] == reads[2]
    assert out.getvalue().count("7/7") >= 4 and "sampling: 100%" in out.getvalue()


def test_what_is_no_watch() -> None:
    before = MODEL.nfe
    for wrong in (sg.progress, lambda step, of: None, 3):
        with refused(r"watch is called as watch\(step, of, states\), as sg.progress\(\) is, but"):
            sg.sample(MODEL, X, solver=sg.DDIM(), steps=2, watch=wrong)  # type: ignore[arg-type]
    assert MODEL.nfe == before

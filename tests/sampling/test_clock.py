"""Laws of the loop: what the network sees, what a step costs, what a sample depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from inspect import isabstract
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.guidance import CFG, Interval
from sdegen.model.denoiser import cost_of
from sdegen.programs import remembered as programs
from sdegen.sampling.plan import Plan
from sdegen.solvers import PLMS, Singlestep
from sdegen.walks import grids as walks
from sdegen.walks.grids import Grid
from tests.cases import (
    EVERY_SOLVER,
    FIXED,
    MIXTURE,
    SDES,
    fixed_solvers,
    normal,
    pointwise,
    summed,
)
from tests.solutions import exact_end


class Ops(TorchDispatchMode):
    """Counts the operations that torch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


READS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select"}
"""What makes a host wait for a device."""


@summed(FIXED, SDES)
def test_a_step_reads_nothing_back(solver: sg.Solver, sde: sg.LinearSDE) -> None:
    model = sg.ScoreModel(pointwise, sde, "edm")
    walk = sg.walks.levels(sde, sg.walks.log_snr(sde, 4))
    x = normal(3, 2, dtype=torch.float32)
    for noise in (sg.noise.Fresh(), sg.Seeded(0), sg.Brownian(0, sde.T)):
        with Ops() as ops:
            for _ in sg.march(solver, sg.Reverse(model, solver.eta, noise), x, walk):
                pass
        assert not READS & set(ops.seen), ops.seen


def test_the_count_sees_a_read() -> None:
    """The negative control: a network that looks at its time is seen."""
    model = sg.ScoreModel(lambda x, t: x * float(t[0]), sg.VPSDE())
    walk = sg.walks.levels(sg.VPSDE(), sg.walks.log_snr(sg.VPSDE(), 2))
    with Ops() as ops:
        list(sg.march(sg.DDIM(), sg.Reverse(model), normal(3, 2), walk))
    assert ops.seen["_local_scalar_dense"] == 2


@fixed_solvers
def test_reads_of_a_solve_do_not_grow_with_its_steps(solver: sg.Solver) -> None:
    model = sg.ScoreModel(pointwise, sg.VPSDE())
    counts = []
    for steps in (2, 20):
        for memory in (walks.remembered, programs.remembered):
            memory.cache_clear()  # what another test has made was looked at there
        with Ops() as ops:
            sg.solve(model, normal(3, 2), solver=solver, steps=steps, seed=0, walk=None)
        counts.append(sum(ops.seen[name] for name in READS))
    # Making and checking the walk reads its n + 1 host times at once, not one by one.
    assert counts[0] == counts[1], counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@summed(FIXED, SDES)
def test_the_clock(solver: sg.Solver, sde: sg.LinearSDE, dtype: torch.dtype) -> None:
    """Times lie in [t_min, T] and never go back up; calls are counted; n steps are n steps."""
    seen: list[float] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == x.shape[:1] and bool((t == t[0]).all())
        seen.append(float(t[0]))
        return x / (1 + x * x)

    model = sg.ScoreModel(net, sde, "x0")
    x = normal(3, 2, dtype=dtype)
    solution = sg.solve(model, x, solver=solver, steps=7, seed=0, path=True)
    assert solution.path is not None and len(solution.path.t) == len(solution.path.x) == 8
    assert float(solution.path.t[0]) == sde.T and float(solution.path.t[-1]) == sde.t_min
    assert solution.nfe.tolist() == [len(seen)] * 3 == [solver.calls(7)] * 3
    assert solution.x.dtype == dtype and torch.equal(solution.path.x[-1], solution.x)
    slack = 1e-6 if dtype == torch.float32 else 0.0  # of the label, rounded to the net's type
    assert min(seen) >= sde.t_min * (1 - slack) and max(seen) <= sde.T * (1 + slack)
    assert seen == sorted(seen, reverse=True)


@fixed_solvers
def test_a_budget_is_met_and_not_exceeded(solver: sg.Solver) -> None:
    model = sg.ScoreModel(pointwise, sg.VPSDE())
    for nfe, denoise in ((7, False), (7, True), (8, False), (8, True), (25, False)):
        if solver.calls(1) + denoise > nfe:
            continue
        how = {"solver": solver, "nfe": nfe, "denoise": denoise, "seed": 0}
        spent = int(sg.solve(model, (2, 3), **how).nfe[0])  # type: ignore[arg-type]
        assert nfe - solver.traits.calls < spent <= nfe, (nfe, denoise)


def churned(sde: sg.SDE, n: int) -> Tensor:
    return sg.walks.churn(sde, walks.uniform(sde, n), 5.0)


def repeated(sde: sg.SDE, n: int) -> Tensor:
    return sg.walks.repaint(sde, walks.uniform(sde, n), 2, 2)


def again(sde: sg.SDE, n: int) -> Tensor:
    return sg.walks.multistep(sde, walks.uniform(sde, n))


@pytest.mark.parametrize("walk", [churned, repeated, again], ids=lambda walk: walk.__name__)
@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.FlowSDE(t_min=0.0)], ids=["noisy", "clean"])
def test_a_budget_is_kept_where_a_walk_climbs(sde: sg.LinearSDE, walk: Grid) -> None:
    """Every way down starts anew, which costs some solvers a call; the plan knows all of it."""
    rows = list[int]()

    def net(x: Tensor, t: Tensor) -> Tensor:
        rows.append(len(x))
        return x / (1 + x * x)

    model = sg.ScoreModel(net, sde, "x0")
    for solver in (PLMS(), sg.PredictorCorrector(PLMS()), Singlestep(3), sg.UniPC(3)):
        for nfe, denoise in ((24, False), (31, True)):
            rows.clear()
            how = {"solver": solver, "nfe": nfe, "denoise": denoise, "seed": 0, "walk": walk}
            planned = Plan.of(model, (2, 3), **how)  # type: ignore[arg-type]
            solution = sg.solve(model, (2, 3), **how)  # type: ignore[arg-type]
            assert nfe / 4 < sum(rows) / 2 <= nfe, (solver, nfe)
            assert solution.nfe.tolist() == [sum(rows) / 2] * 2 == [planned.nfe] * 2


@pytest.mark.parametrize(
    ("solver", "how"),
    [
        (sg.DDIM(), {"nfe": 4}),
        (sg.EulerMaruyama(), {"nfe": 4}),
        (sg.PredictorCorrector(corrector=sg.Langevin(norms="sample")), {"nfe": 4}),
        (sg.AdaptiveRK(rtol=0.1, atol=0.1), {}),
        (sg.solvers.GottaGoFast(rtol=0.1, atol=0.1), {}),
        (sg.UniPC(2), {"nfe": 20, "walk": churned}),
    ],
    ids=["program", "with noise", "plain loop", "adaptive", "on one path", "climbing"],
)
def test_a_solve_of_a_seed_leaves_the_global_generator_alone(
    solver: sg.Solver, how: dict[str, Any]
) -> None:
    model = sg.ScoreModel(lambda x, t: 0.3 * x, sg.VPSDE(), "v")
    before = torch.random.get_rng_state()
    for seed in (0, [1, 2]):
        sg.sample(model, (2, 3), solver=solver, seed=seed, denoise=True, **how)
    assert torch.equal(torch.random.get_rng_state(), before)


ADAPTIVE: dict[str, tuple[Any, dict[str, Any]]] = {
    "its own steps": (sg.AdaptiveRK, {}),
    "shared steps": (sg.AdaptiveRK, {"per_sample": False}),
    "several values": (sg.solvers.AdaptiveMultistep, {}),
    "in lam": (sg.solvers.AdaptiveDPM, {}),
    "SciPy": (sg.solvers.SciPy, {}),
    "torchdiffeq": (sg.solvers.TorchDiffEq, {}),
}
GUIDED: dict[str, Callable[[Any], sg.Denoiser]] = {
    "alone": lambda model: model,
    "two calls": lambda model: CFG(model, 3.0, {"y": 0.0}),
    "a doubled batch": lambda model: CFG(model, 3.0, {"y": 0.0}, together=True),
    "on an interval": lambda model: CFG(model, Interval(3.0, 0.1, 1.0), {"y": 0.0}),
}


@pytest.mark.parametrize("guide", GUIDED)
def test_nfe_is_what_the_network_was_asked(guide: str) -> None:
    """Of every sample, in every way to solve; and a budget is of these evaluations."""
    rows = list[int]()

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        rows.append(len(x))
        return 0.3 * x + 0.1 * y[:, None].to(x)

    plain = sg.ScoreModel(net, sg.VPSDE(), "v").given(y=torch.ones(3))
    model = GUIDED[guide](plain)
    x = normal(3, 2) * torch.tensor([[0.3], [1.0], [3.0]])
    program, loop = (sg.DDIM(), {"nfe": 12}), (sg.Heun(), {"nfe": 12, "graph": True})
    few: list[tuple[Any, dict[str, Any]]] = [
        (kind(rtol=0.05, atol=0.05, **how), {}) for kind, how in ADAPTIVE.values()
    ]
    many: list[tuple[Any, dict[str, Any]]] = [
        (kind(rtol=1e-9, atol=1e-9, max_nfe=17, **how), {}) for kind, how in ADAPTIVE.values()
    ]
    for solver, how in (program, loop, *few, *many):
        rows.clear()
        start = x.clone().requires_grad_("graph" in how)
        solution = sg.solve(model, start, solver=solver, denoise=True, seed=0, **how)
        assert int(solution.nfe.sum()) == sum(rows), solver
        if (solver, how) in many:
            assert set(solution.status.tolist()) == {int(sg.Status.BUDGET)}
            assert int(solution.nfe.max()) <= 17 + cost_of(model)


@pytest.mark.parametrize(
    ("method", "name"),
    [*(("dopri5", name) for name in SDES), ("bosh3", "vp"), ("dopri8", "vp"), ("dopri8", "edm")],
)
def test_an_adaptive_solver_stays_inside(method: str, name: str) -> None:
    sde, seen = SDES[name], []
    exact = exact_model(MIXTURE, sde)

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        F: Tensor = exact.net(x, t)  # type: ignore[operator]
        return F

    x, truth = exact_end(sde)
    solver = sg.solvers.TorchDiffEq(method, 1e-5, 1e-5)
    solution = sg.solve(sg.ScoreModel(net, sde, "x0"), x[:4], solver=solver)
    assert solution.nfe.tolist() == [len(seen)] * 4 and len(seen) > 7
    assert min(seen) >= sde.t_min and max(seen) <= sde.T
    assert (solution.x - truth[:4]).abs().max() < 1e-3


@summed(FIXED, SDES)
def test_a_sample_depends_on_its_own_seed_alone(solver: sg.Solver, sde: sg.LinearSDE) -> None:
    """Alone, in a batch, in another order: the same bits."""
    model = sg.ScoreModel(pointwise, sde, "x0")
    seeds = [5, 3, 11, 7]
    how: dict[str, Any] = {"solver": solver, "steps": 6}
    batch = sg.sample(model, (4, 3), seed=seeds, **how)
    order = [2, 0, 3, 1]
    again = sg.sample(model, (4, 3), seed=[seeds[i] for i in order], **how)
    assert torch.equal(again, batch[order])
    for i, seed in enumerate(seeds):
        assert torch.equal(sg.sample(model, (1, 3), seed=[seed], **how)[0], batch[i])
    assert torch.equal(
        sg.sample(model, (6, 3), seed=9, **how)[:2], sg.sample(model, (2, 3), seed=9, **how)
    )
    assert not torch.equal(batch[0], batch[1])


@fixed_solvers
def test_a_nan_touches_no_neighbour(solver: sg.Solver) -> None:
    model = sg.ScoreModel(pointwise, sg.VPSDE(), "x0")
    x = normal(4, 2, 3)
    sick = x.clone()
    sick[1, 0, 0] = float("nan")
    clean, hurt = (
        sg.solve(model, start, solver=solver, steps=5, seed=[1, 2, 3, 4]) for start in (x, sick)
    )
    assert torch.equal(clean.x[[0, 2, 3]], hurt.x[[0, 2, 3]])
    assert hurt.status.tolist() == [sg.Status.OK, sg.Status.NONFINITE, *[sg.Status.OK] * 2]
    assert clean.status.tolist() == [sg.Status.OK] * 4


@fixed_solvers
def test_states_of_any_shape(solver: sg.Solver) -> None:
    """A state is its samples, whatever their shape: flattened, they come out the same."""
    model = sg.ScoreModel(pointwise, sg.SubVPSDE(), "x0")
    for shape in ((2,), (1, 1), (3, 2), (2, 3, 4, 4), (2, 1, 2, 4, 4)):
        x = normal(*shape)
        whole = sg.sample(model, x, solver=solver, steps=4, seed=0)
        flat = sg.sample(model, x.reshape(len(x), -1), solver=solver, steps=4, seed=0)
        torch.testing.assert_close(whole.reshape(len(x), -1), flat, rtol=1e-12, atol=1e-12)


def test_nine_lines() -> None:
    """The page a newcomer sees, as it is written."""
    net = torch.nn.Conv2d(3, 3, 3, padding=1)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    batches = [normal(4, 3, 32, 32, dtype=torch.float32) for _ in range(2)]
    before = net.weight.clone()

    def optimise(loss: Tensor) -> None:
        assert loss.shape == (4,)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()

    sde = sg.VPSDE()
    model = sg.ScoreModel(lambda x, t: net(x), sde, predicts="eps", module=net)
    for x0 in batches:
        optimise(sg.dsm_loss(model, x0))
    x = sg.sample(model, (64, 3, 32, 32), solver=sg.DPMSolverPP(order=2), steps=20, seed=0)
    assert x.shape == (64, 3, 32, 32) and x.dtype == torch.float32
    assert not x.requires_grad and not torch.equal(before, net.weight)


def test_every_solver_that_is_public_is_among_those_tested() -> None:
    """A solver in a file of its own is held to these laws too; it need not be public."""
    public = {getattr(sg.solvers, name) for name in sg.solvers.__all__}
    solvers = {c for c in public if isinstance(c, type) and issubclass(c, sg.Solver)}
    # Two are made from a model, four take models of a kind alone: they have tests of their own.
    own = {sg.solvers.Tuned, sg.solvers.AnalyticDPM, sg.solvers.Split}
    own |= {sg.solvers.Jump, sg.solvers.Student, sg.solvers.LearnedVariance, sg.solvers.Blended}
    own |= {sg.solvers.QuasiTaylor}  # a polynomial of DDIM's step: tests/solvers/test_quasi_taylor
    apart = {*own, *filter(isabstract, solvers)}
    assert len(solvers) > 30 and solvers - apart <= {type(each) for each in EVERY_SOLVER.values()}


def test_numbers_of_numpy_are_numbers() -> None:
    """What an array hands over as a shape, a count or a seed means what it says."""
    model = sg.ScoreModel(pointwise, sg.VPSDE())
    two, seed = np.int64(2), np.int64(5)
    how: dict[str, Any] = {"solver": sg.DDIM()}
    theirs = sg.sample(model, (two, 3), steps=two, seed=seed, **how)
    assert torch.equal(theirs, sg.sample(model, (2, 3), steps=2, seed=5, **how))
    listed = sg.sample(model, (2, 3), steps=2, seed=torch.tensor([5, 6]), **how)
    assert torch.equal(listed[0], theirs[0])


@fixed_solvers
def test_samples_may_have_times_of_their_own(solver: sg.Solver) -> None:
    """A walk of levels (b,) takes each sample along its own times."""
    sde = sg.VPSDE()
    model, x = sg.ScoreModel(pointwise, sde, "x0"), normal(2, 3)
    walks = [sg.walks.log_snr(sde, 4), sg.walks.log_snr(sde, 4, start=0.8)]
    levels = [sde(t) for t in torch.stack(walks, 1)]
    states = list(sg.march(solver, sg.Reverse(model, solver.eta, sg.Seeded([1, 2])), x, levels))
    for i, walk in enumerate(walks):
        p = sg.Reverse(model, solver.eta, sg.Seeded([i + 1]))
        alone = list(sg.march(solver, p, x[i : i + 1], sg.walks.levels(sde, walk)))
        torch.testing.assert_close(states[-1].x[i], alone[-1].x[0], rtol=1e-10, atol=1e-12)

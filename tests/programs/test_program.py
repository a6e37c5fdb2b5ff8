"""Solvers as programs: the plain loop's numbers, fewer kernels, buffers that are safe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench.watch import Watch
from sdegen.programs.program import Combine
from sdegen.programs.remembered import programmed
from tests.cases import EVERY, EVERY_SOLVER, FIXED, Smooth, normal, pointwise, refused, summed

LINEAR = {name: solver for name, solver in FIXED.items() if not solver.traits.why_not_linear}
linear_solvers = pytest.mark.parametrize("solver", LINEAR.values(), ids=LINEAR)


def march(
    solver: sg.Solver, model: sg.ScoreModel, x: Tensor, times: Tensor, eta: Any, seed: int = 0
) -> list[Tensor]:
    """The states of the plain loop."""
    p = sg.Reverse(model, eta, sg.Seeded(seed))
    return [state.x for state in sg.march(solver, p, x, sg.walks.levels(model.sde, times))]


def off(a: Tensor, b: Tensor) -> float:
    """The largest difference, beside the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def etas(solver: sg.Solver) -> list[Any]:
    """The equations that a solver is tried on."""
    mine = [solver.eta]
    return [*mine, 0.0, 0.7, lambda lam: torch.sigmoid(lam)] if solver.traits.any_eta else mine


@summed(LINEAR, EVERY)
def test_a_program_does_what_the_plain_loop_does(solver: sg.Solver, sde: sg.LinearSDE) -> None:
    x, times = normal(3, 2), sg.walks.log_snr(sde, 6)
    for eta, predicts in zip(etas(solver), ["edm", "eps", "x0", "v"], strict=False):
        model = sg.ScoreModel(pointwise, sde, predicts)
        plain = march(solver, model, x, times, eta)
        made = sg.programs.traced(solver, sde, times, eta, predicts=model.target)
        states = [y.clone() for y in made.steps(model, x, sg.Seeded(0))]
        for mine, theirs in zip(states, plain, strict=True):
            assert off(mine, theirs) < 1e-10
        assert torch.equal(
            sg.sample(model, x, solver=solver, walk=times, eta=eta, noise=sg.Seeded(0)), states[-1]
        )


@linear_solvers
def test_on_a_walk_that_climbs(solver: sg.Solver) -> None:
    sde = sg.VPSDE()
    model, x = sg.ScoreModel(pointwise, sde, "eps"), normal(3, 2)
    times = sg.walks.churn(sde, sg.walks.log_snr(sde, 5), S_churn=2.0)
    assert bool((times.diff() > 0).any())
    last = march(solver, model, x, times, solver.eta)[-1]
    assert off(sg.sample(model, x, solver=solver, walk=times, noise=sg.Seeded(0)), last) < 1e-10


def test_solvers_without_a_program_say_why() -> None:
    known = {name for name, solver in EVERY_SOLVER.items() if not solver.traits.why_not_linear}
    assert {
        "song_pc",
        "torchdiffeq_dopri5",
        "scipy",
        "torchsde",
    }.isdisjoint(known)
    assert len(known) > 50
    sde = sg.VPSDE()
    for name, solver in EVERY_SOLVER.items():
        if name not in known:
            with refused(
                rf"{type(solver).__name__} has no table: .*{solver.traits.why_not_linear}"
            ):
                sg.programs.traced(solver, sde, sg.walks.log_snr(sde, 3))


@dataclass(frozen=True)
class Own(sg.Solver):
    """Euler's method with something done to the state that a researcher may do."""

    how: str = "nothing"
    traits = sg.Traits(order=1)

    def step(self, p: Any, x: Any, t: Any, s: Any, memory: Any = None) -> sg.Step:
        h = s.t - t.t
        if self.how == "clamp":
            x = x.clamp(-1, 1)
        elif self.how == "ask":
            assert isinstance(x, Tensor)
        elif self.how == "compare":
            if bool((x > 0).any()):
                h = 1.0 * h
        elif self.how == "torch's":
            x = torch.lerp(torch.zeros(()).to(x), x, 1.0)
        elif self.how == "power":
            x = x**1
        elif self.how == "model":
            h = h * len([p.model.device])
        elif self.how == "noise":
            h = h * (1 + 0 * getattr(p.noise, "drawn", 0))
        elif self.how == "shape":
            h = h * (1 + 0 * x.shape[0])
        elif self.how == "values":
            h = h * float((x == x).all())
        elif self.how == "random":
            h = h * torch.rand((), dtype=torch.float64)
        elif self.how == "torch":
            return sg.Step(torch.add(x, torch.mul(p.drift(x, t), h)).sub(torch.zeros_like(x)))
        elif self.how == "lerp":
            return sg.Step(torch.lerp(x, x + p.drift(x, t), h))
        return sg.Step(x + p.drift(x, t) * h)


@pytest.mark.parametrize("how", ["nothing", "torch", "lerp"])
def test_a_solver_of_ones_own_is_traced(how: str) -> None:
    sde = sg.VPSDE()
    model, x, times = sg.ScoreModel(pointwise, sde), normal(3, 2), sg.walks.log_snr(sde, 4)
    last = march(sg.Euler(), model, x, times, 0.0)[-1]
    made = sg.programs.traced(Own(how), sde, times)
    assert off(list(made.steps(model, x))[-1], last) < 1e-12


@pytest.mark.parametrize(
    "how",
    ["clamp", "ask", "compare", "torch's", "power", "model", "noise", "shape", "values", "random"],
)
def test_what_is_not_linear_runs_in_the_plain_loop(how: str) -> None:
    sde = sg.VPSDE()
    model, x, times = sg.ScoreModel(pointwise, sde), normal(3, 2), sg.walks.log_snr(sde, 4)
    with refused(r"^Own has no table: it|^Own has no table: "):
        sg.programs.traced(Own(how), sde, times)
    torch.manual_seed(3)
    plain = march(Own(how), model, x, times, 0.0)[-1]
    torch.manual_seed(3)
    assert torch.equal(sg.sample(model, x, solver=Own(how), walk=times), plain)
    again = sg.sample(model, x, solver=Own(how), walk=times)
    assert torch.equal(again, plain) == (how != "random")


@dataclass(frozen=True)
class Mistyped(sg.Solver):
    """Euler's method with a name that does not exist."""

    how: str
    traits = sg.Traits(order=1)

    def step(self, p: Any, x: Any, t: Any, s: Any, memory: Any = None) -> sg.Step:
        if self.how == "name":
            h = s.t - t.t + hh  # type: ignore[name-defined]  # noqa: F821
        elif self.how == "own":
            h = (s.t - t.t) * self.spede  # type: ignore[attr-defined]
        elif self.how == "module":
            h = torch.exq(s.t - t.t)  # type: ignore[attr-defined]
        elif self.how == "equation":
            h = (s.t - t.t) * p.etta
        else:
            h = (s.t - t.t) * x.clmap(0)
        return sg.Step(x + p.drift(x, t) * h)


@pytest.mark.parametrize(
    ("how", "name"),
    [("name", "hh"), ("own", "spede"), ("module", "exq"), ("equation", "etta"), ("x", "clmap")],
)
def test_a_typo_is_named(how: str, name: str) -> None:
    """Where the solver is traced too, unless a tensor might have such an attribute."""
    sde, solver = sg.VPSDE(), Mistyped(how)
    model, times = sg.ScoreModel(pointwise, sde), sg.walks.log_snr(sde, 4)
    with pytest.raises((NameError, AttributeError), match=name):
        sg.sample(model, normal(3, 2), solver=solver, walk=times)
    state = torch.get_rng_state()
    with pytest.raises((NameError, AttributeError, sg.programs.NotLinear), match=name) as seen:
        sg.programs.traced(solver, sde, times)
    assert isinstance(seen.value, sg.programs.NotLinear) == (how == "x")
    assert torch.equal(state, torch.get_rng_state())


def test_an_sde_without_marginals_is_traced_or_walked() -> None:
    """An Ornstein-Uhlenbeck process about a mean is affine; another drift is not."""

    class Mean(sg.SDE):
        T, t_min = 1.0, 1e-3
        prior = sg.Prior(1.0)  # type: ignore[assignment]
        bend = False

        def drift(self, x: Tensor, t: Tensor) -> Tensor:
            return 0.3 - 2 * x if not self.bend else torch.tanh(x)

        def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
            return 1 + t

    class Bent(Mean):
        bend = True

    for sde, linear in ((Mean(), True), (Bent(), False)):
        model, x = sg.ScoreModel(Smooth(), sde, "score"), normal(3, 2)
        times = sg.walks.uniform(sde, 5)
        for solver in (sg.EulerMaruyama(), sg.Heun(), sg.solvers.SRA1()):
            assert (programmed(solver, model, solver.eta, times) is not None) == linear
            last = march(solver, model, x, times, solver.eta)[-1]
            got = sg.sample(model, x, solver=solver, walk=times, noise=sg.Seeded(0))
            assert off(got, last) < 1e-12


# ---------------------------------------------------------------------------------- what it costs


OUTPUT = torch.full((4, 3, 16, 16), 0.1)


def watched(solver: sg.Solver, steps: int, sde: sg.LinearSDE, eta: Any = None) -> Watch:
    """What a sample does, with a network that hands out a new tensor each time."""
    model = sg.ScoreModel(lambda x, t: torch.mul(OUTPUT, 2.0), sde)
    x = normal(4, 3, 16, 16, dtype=torch.float32)
    sg.sample(model, x, solver=solver, steps=steps, eta=eta, seed=0)  # traced once
    with Watch(x.numel()) as watch:
        sg.sample(model, x, solver=solver, steps=steps, eta=eta, seed=0)
    return watch


@linear_solvers
def test_memory_does_not_grow_with_the_steps(solver: sg.Solver) -> None:
    """At most three states beside those that the method must remember."""
    few, many = (
        watched(solver, n, sg.VPSDE(), 0.0 if solver.traits.any_eta else None) for n in (6, 12)
    )
    corrector = getattr(solver, "corrector", 0)
    values = corrector if isinstance(corrector, int) else 0
    k = max(getattr(solver, "order", 1), solver.traits.calls, values)
    # A draw and its parts, of the solver's noise and of corrections'.
    noisy = 3 * (solver.eta != 0 and not solver.traits.any_eta)
    noisy += 3 * isinstance(solver, sg.PredictorCorrector)
    assert few.peak == many.peak <= k + 3 + noisy


@pytest.mark.parametrize(
    ("solver", "sde", "most"),
    [
        (sg.DDIM(), sg.VPSDE(), 2),
        (sg.DDIM(), sg.VESDE(), 1),
        (sg.Euler(), sg.VPSDE(), 2),
        (sg.EulerMaruyama(), sg.VESDE(), 1),
        (sg.DPMSolverPP(2), sg.VPSDE(), 4),
        (sg.solvers.DPMSolverMultistep(2), sg.VESDE(), 3),
    ],
    ids=str,
)
def test_kernels_per_step(solver: sg.Solver, sde: sg.LinearSDE, most: int) -> None:
    """Beyond the network's one, and the noise's."""
    few, many = (watched(solver, n, sde, 0.0 if solver.traits.any_eta else None) for n in (6, 12))
    assert (many.kernels - few.kernels) / 6 - 1 <= most


def test_the_watch_sees_a_plain_loop() -> None:
    """The negative control: state by state, a step makes temporaries."""
    sde = sg.VPSDE()
    model = sg.ScoreModel(lambda x, t: torch.mul(OUTPUT, 2.0), sde)
    x, walk = (
        normal(4, 3, 16, 16, dtype=torch.float32),
        sg.walks.levels(sde, sg.walks.log_snr(sde, 6)),
    )
    with Watch(x.numel()) as watch:
        kept = [state.x for state in sg.march(sg.DDIM(), sg.Reverse(model), x, walk)]
    assert watch.kernels > 6 * 4 and watch.peak > len(kept)


# -------------------------------------------------------------------------- precision, and safety


@pytest.mark.parametrize("solver", [sg.DDIM(), sg.DPMSolverPP(2), sg.UniPC(), sg.Heun()], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_short_types_are_accumulated_in_float32(solver: sg.Solver, dtype: torch.dtype) -> None:
    """Rounded once a combination: nearer the exact result than a loop that rounds each term."""
    sde = sg.EDMSDE(T=20.0)
    model, x = sg.ScoreModel(pointwise, sde, "x0"), 20 * normal(256, 64).to(dtype)
    times = sg.walks.log_snr(sde, 24)
    exact = sg.sample(model, x.double(), solver=solver, walk=times)
    made = sg.sample(model, x, solver=solver, walk=times)
    plain = march(solver, model, x, times, 0.0)[-1]
    assert made.dtype == dtype
    mine, theirs = ((y.double() - exact).square().mean().sqrt() for y in (made, plain))
    assert mine < (0.9 if dtype != torch.float32 else 1.5) * theirs


@pytest.mark.parametrize("b", [1, 5])
def test_what_is_handed_in_and_out_is_left_alone(b: int) -> None:
    """The start, the states of a path, and the result of an earlier sample."""
    model, x = sg.ScoreModel(pointwise, sg.VPSDE()), normal(b, 3)
    start, how = x.clone(), {"solver": sg.DPMSolverPP(), "steps": 5}
    first = sg.sample(model, x, **how)
    kept = first.clone()
    solution = sg.solve(model, x, path=True, **how)
    assert torch.equal(x, start) and torch.equal(first, kept) and solution.path is not None
    plain = march(sg.DPMSolverPP(), model, x, sg.walks.log_snr(sg.VPSDE(), 5), 0.0)
    for mine, theirs in zip(solution.path.x, [x, *plain], strict=True):
        assert off(mine, theirs) < 1e-12


HELD = torch.zeros(4, 3, dtype=torch.float64)
NETWORKS = {
    "its input": lambda x, t: x,
    "a view of its input": lambda x, t: x[:, 1:2].expand_as(x),
    "its input's data": lambda x, t: x.data,
    "one buffer at every call": lambda x, t: HELD.copy_(x).mul_(0.3).add_(t[:, None]),
}


@pytest.mark.parametrize("name", NETWORKS)
@linear_solvers
def test_networks_may_hand_back_memory_in_use(solver: sg.Solver, name: str) -> None:
    """The result is that of a network whose output is its own."""
    sde = sg.VPSDE()
    net = NETWORKS[name]
    x, times = normal(4, 3), sg.walks.log_snr(sde, 5)
    clean = sg.ScoreModel(lambda x, t: net(x.clone(), t).clone(), sde)
    last = march(solver, clean, x, times, solver.eta)[-1]
    got = sg.sample(sg.ScoreModel(net, sde), x, solver=solver, walk=times, noise=sg.Seeded(0))
    assert off(got, last) < 1e-10


def test_an_sde_that_changes_is_traced_again() -> None:
    """As one with learned parameters does: only what cannot change is remembered."""

    class Learned(sg.VPSDE):
        """Not frozen: it says so by its own beta."""

        def __init__(self) -> None:
            super().__init__()
            object.__setattr__(self, "speed", torch.tensor(1.0, dtype=torch.float64))

        def log_alpha(self, t: Tensor) -> Tensor:
            return self.speed * super().log_alpha(t)  # type: ignore[no-any-return, attr-defined]

    sde = Learned()
    model, x, times = sg.ScoreModel(pointwise, sde), normal(3, 2), sg.walks.uniform(sg.VPSDE(), 5)
    results = []
    for speed in (1.0, 0.5):
        sde.speed.fill_(speed)  # type: ignore[attr-defined]
        got = sg.sample(model, x, solver=sg.DDIM(), walk=times)
        assert off(got, march(sg.DDIM(), model, x, times, 0.0)[-1]) < 1e-12
        results.append(got)
    assert off(*results) > 1e-3


def test_a_model_that_does_more_is_called_as_it_is() -> None:
    """A subclass with a forward of its own, as guidance has, goes the plain way."""

    class Guided(sg.ScoreModel):
        def forward(self, x: Tensor, t: Any) -> Any:
            return super().forward(1.1 * x, t)

    sde = sg.VPSDE()
    model, x, times = Guided(pointwise, sde), normal(3, 2), sg.walks.log_snr(sde, 4)
    last = march(sg.DDIM(), model, x, times, 0.0)[-1]
    assert torch.equal(sg.sample(model, x, solver=sg.DDIM(), walk=times), last)
    assert off(sg.sample(sg.ScoreModel(pointwise, sde), x, solver=sg.DDIM(), walk=times), last) > 0


def test_what_is_remembered_is_the_same_program() -> None:
    model, times = sg.ScoreModel(pointwise, sg.VPSDE()), sg.walks.log_snr(sg.VPSDE(), 4)
    one, two = (programmed(sg.DDIM(), model, 0.0, times) for _ in range(2))
    assert one is two is not None
    other = sg.ScoreModel(pointwise, sg.VPSDE(), predicts=lambda level: (0.0, 1.0))
    three, four = (programmed(sg.DDIM(), other, 0.0, times) for _ in range(2))
    assert three is not four and three is not None
    assert [line for line in one.lines if isinstance(line, Combine)] == [
        line for line in three.lines if isinstance(line, Combine)
    ]


def test_steps_make_no_graph_and_a_caller_may_hold_one_outside() -> None:
    """Within a generator gradients are off, between its yields as the caller has them."""
    net = torch.nn.Linear(2, 2).double()
    model = sg.ScoreModel(lambda x, t: net(x), sg.VPSDE(), module=net)
    program = sg.programs.traced(sg.DDIM(), model.sde, sg.walks.log_snr(model.sde, 3))
    for x in program.steps(model, normal(4, 2)):
        assert not x.requires_grad and torch.is_grad_enabled()

"""Both ends of an SDE's interval, where alpha or sigma is zero: the value, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Gaussian
from sdegen.losses import likelihood_time
from sdegen.losses.weightings import WEIGHTINGS
from sdegen.sde import DiscreteVPSDE, Level, LinearSDE, MarginalSDE, expand
from tests.cases import FIXED, close, normal, refused

MEAN, STD = 1.0, 0.6
DATA = Gaussian([MEAN, MEAN], [STD**2, STD**2])


def no_signal_left(n: int = 100) -> DiscreteVPSDE:
    """DDPM's betas, the last of them 1."""
    return DiscreteVPSDE([*torch.linspace(1e-3, 0.2, n - 1).tolist(), 1.0])


SDES: dict[str, LinearSDE] = {
    "VP from 0": sg.VPSDE(t_min=0.0),
    "sub-VP from 0": sg.SubVPSDE(t_min=0.0),
    "cosine from 0": sg.CosineSDE(t_min=0.0),
    "cosine to 1": sg.CosineSDE(T=1.0),
    "EDM from 0": sg.EDMSDE(T=3.0, t_min=0.0),
    "flow from 0": sg.FlowSDE(t_min=0.0),
    "flow to 1": sg.FlowSDE(T=1.0),
    "flow from 0 to 1": sg.FlowSDE(T=1.0, t_min=0.0),
    "two curves from 0 to 1": MarginalSDE(lambda t: (1 - t, t), t_min=0.0),
    # As computed alpha ends at 6e-17, and means 0.
    "quarter circle from 0 to 1": MarginalSDE(
        lambda t: (torch.cos(torch.pi / 2 * t), torch.sin(torch.pi / 2 * t)), t_min=0.0
    ),
    "betas that end at 1": no_signal_left(),
}


def variance(level: Level) -> Tensor:
    return (level.alpha * STD) ** 2 + level.sigma**2


def eps(x: Tensor, level: Level) -> Tensor:
    return expand(level.sigma / variance(level), x) * (x - expand(level.alpha, x) * MEAN)


def score(x: Tensor, level: Level) -> Tensor:
    return -(x - expand(level.alpha, x) * MEAN) / expand(variance(level), x)


def x0(x: Tensor, level: Level) -> Tensor:
    gain = level.alpha * STD**2 / variance(level)
    return MEAN + expand(gain, x) * (x - expand(level.alpha, x) * MEAN)


def velocity(x: Tensor, level: Level) -> Tensor:
    """alpha' x0 + sigma' eps, finite wherever sigma sigma' is."""
    slope = (level.alpha * level.d_alpha * STD**2 + level.d_var / 2) / variance(level)
    centred = x - expand(level.alpha, x) * MEAN
    return expand(level.d_alpha, x) * MEAN + expand(slope, x) * centred


NETS: dict[str, Callable[[Tensor, Level], Tensor]] = {
    "x0": x0,
    "eps": eps,
    "score": score,
    "v": lambda x, at: expand(at.alpha, x) * eps(x, at) - expand(at.sigma, x) * x0(x, at),
    "velocity": velocity,
}


def exact(sde: LinearSDE, predicts: str) -> sg.ScoreModel:
    """A network without error, in that prediction; its values are closed forms at both ends."""
    return sg.ScoreModel(lambda x, t: NETS[predicts](x, sde(t)), sde, predicts=predicts)


NO_SIGNAL = {name for name, sde in SDES.items() if name.endswith("1")}
NO_NOISE = {name for name, sde in SDES.items() if "from 0" in name}
STEEP = {"VP from 0", "cosine from 0"}
"""There sigma leaves zero as sqrt(t) does."""


def says_at_start(predicts: str, sde: str) -> bool:
    """Whether the output says what x0 is, where x is noise alone."""
    return sde not in NO_SIGNAL or predicts in ("x0", "v", "velocity")


def drift_at_end(predicts: str, sde: str) -> bool:
    """Whether the output says what the drift is, where x is x0 itself.

    x0 says nothing of eps there. eps, and v which is eps there, are 0 on their way to a drift of
    0 times sigma' if that is infinite; of a score, f x - g^2/2 score is finite on every SDE.
    """
    if sde not in NO_NOISE:
        return True
    return predicts in ("velocity", "score") or (predicts in ("eps", "v") and sde not in STEEP)


CASES: list[tuple[sg.Solver, bool]] = [
    (sg.DDIM(), False),
    (sg.Heun(), True),
    (sg.DPMSolverPP(), False),
    (sg.Euler(), False),
    (sg.Multistep(4, corrector=4, clock="wide"), False),
    (sg.Multistep(3), False),
]
"""Solvers of the flow, and whether they ask for the drift at their step's end."""

every_end = pytest.mark.parametrize("sde", SDES)
every_net = pytest.mark.parametrize("predicts", NETS)


@every_end
@every_net
def test_the_value_where_it_exists_and_a_refusal_elsewhere(sde: str, predicts: str) -> None:
    process, model = SDES[sde], exact(SDES[sde], predicts)
    x = normal(3, 2) * process.prior.std
    flow = DATA.flow(x, process(process.T), process(process.t_min))
    few = predicts in ("eps", "velocity")
    for solver, looks in CASES if few else CASES[:3]:
        if not says_at_start(predicts, sde):
            with refused(f"predicts {predicts} has no value at t = 1.*no signal left: end the"):
                sg.sample(model, x, solver=solver, steps=60, walk="uniform")
        elif looks and not drift_at_end(predicts, sde):
            with refused(f"predicts {predicts} has no value at t = 0.*no noise: end the walk"):
                sg.sample(model, x, solver=solver, steps=60, walk="uniform")
        else:
            y = sg.sample(model, x, solver=solver, steps=60, walk="uniform")
            close(y, flow, rtol=0, atol=0.06)


@pytest.mark.parametrize(("sde", "predicts"), [("VP from 0", "eps"), ("flow from 0 to 1", "v")])
@pytest.mark.parametrize("name", FIXED)
def test_no_solver_ends_in_a_silent_nan(name: str, sde: str, predicts: str) -> None:
    process, model, solver = SDES[sde], exact(SDES[sde], predicts), FIXED[name]
    if solver.traits.own_walk is not None:
        return
    x = normal(3, 2)
    try:
        y = sg.sample(model, x, solver=solver, steps=60, walk="uniform", seed=0)
    except ValueError as error:
        assert "has no value at t = " in str(error)
        return
    if solver.eta == 0 and solver.traits.follows_flow:
        close(y, DATA.flow(x, process(process.T), process(process.t_min)), rtol=0, atol=0.1)
    assert y.isfinite().all()


@every_end
@every_net
def test_adaptive_solvers_find_the_end_or_say_why_not(sde: str, predicts: str) -> None:
    process, model = SDES[sde], exact(SDES[sde], predicts)
    x = normal(2, 2) * process.prior.std
    way = [process.T, process.t_min]
    for solver in (sg.AdaptiveRK(clock="t"), sg.solvers.SciPy(), sg.solvers.TorchDiffEq()):
        if says_at_start(predicts, sde) and drift_at_end(predicts, sde):
            y = sg.sample(model, x, solver=solver, walk=way)
            close(y, DATA.flow(x, process(process.T), process(process.t_min)), rtol=0, atol=0.02)
        else:
            with refused("has no value at t = [01]"):
                sg.sample(model, x, solver=solver, walk=way)


@pytest.mark.parametrize("predicts", ["x0", "eps"])
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_curves_that_begin_with_a_slope_without_end(power: float, predicts: str) -> None:
    """Diffusion-LM's (Li et al. 2022), alpha^2 = 1 - sqrt(t), and alpha = 1 - sqrt(t)."""
    sde = MarginalSDE(lambda t: ((1 - t.sqrt()) ** power, t ** (power / 2)), T=0.99, t_min=0.0)
    assert float(sde(0.0).alpha) == 1.0 and float(sde(0.0).sigma) == 0.0
    model, x = exact(sde, predicts), normal(3, 2)
    fine = (0.99 * torch.linspace(1, 0, 61, dtype=torch.float64) ** 4).tolist()
    y = sg.sample(model, x, solver=sg.DDIM(), walk=fine)
    close(y, DATA.flow(x, sde(sde.T), sde(0.0)), rtol=0, atol=0.06)
    assert sg.sample(model, x, solver=sg.DDIM(), steps=9, walk="uniform").isfinite().all()


IN_T = [sg.Euler(), sg.Heun(), sg.solvers.SciPy(), sg.AdaptiveRK(), sg.solvers.TorchDiffEq()]


@pytest.mark.parametrize(("T", "t_min"), [(1.0, 1e-3), (0.9, 0.0)])
def test_a_velocity_where_alpha_has_a_slope_without_end(T: float, t_min: float) -> None:
    """At T, as of alpha = sqrt(1 - t), and at 0, as of 1 - sqrt(t), dx/dt = x / 10 is all that
    solvers in t ask for; DDIM wants x0, of which the output says nothing at T."""
    sde = MarginalSDE(lambda t: (1 - t.sqrt() if t_min == 0 else (1 - t).sqrt(), t), T, t_min)
    assert bool(sde(T if T == 1 else 0.0).d_alpha.isinf().all())
    model, x = sg.ScoreModel(lambda x, t: 0.1 * x, sde, predicts="velocity"), normal(3, 2)
    exact_end, walk = x * math.exp(0.1 * (t_min - T)), torch.linspace(T, t_min, 4)
    for solver in IN_T:
        way = [T, t_min] if solver.traits.adaptive else walk
        close(sg.sample(model, x, solver=solver, walk=way), exact_end, rtol=5e-3, atol=0)
        if isinstance(solver, sg.solvers.SciPy):
            continue  # it keeps no graph
        start = x.clone().requires_grad_()
        y = sg.sample(model, start, solver=solver, walk=way, graph=True)
        close(y.detach(), exact_end, rtol=5e-3, atol=0)
    if t_min == 0:
        assert sg.sample(model, x, solver=sg.DDIM(), walk=walk).isfinite().all()
        return
    with refused("no value at t = 1.*use a network that predicts x0 or v, with DDIM"):
        sg.sample(model, x, solver=sg.DDIM(), walk=walk)


def test_a_velocity_that_is_infinite_at_the_end() -> None:
    """The exact one of alpha = 1 - sqrt(t) at 0: who asks nothing there finds the end, of who
    does each sample's status says that it is not finite."""
    sde = MarginalSDE(lambda t: (1 - t.sqrt(), t), T=0.9, t_min=0.0)
    model, x = exact(sde, "velocity"), normal(3, 2)
    flow, fine = DATA.flow(x, sde(0.9), sde(0.0)), 0.9 * torch.linspace(1, 0, 400) ** 3
    for solver in (sg.Euler(), sg.DDIM(), sg.UniPC()):
        close(sg.sample(model, x, solver=solver, walk=fine), flow, rtol=0, atol=0.02)
    for solver in (sg.Heun(), sg.AdaptiveRK()):
        assert (sg.solve(model, x, solver=solver, walk=[0.9, 0.0]).status != 0).all()


@pytest.mark.parametrize("graph", [True, "checkpoint"])
def test_a_graph_ends_where_a_program_does(graph: bool) -> None:
    sde = SDES["VP from 0"]
    model, x = exact(sde, "eps"), normal(3, 2)
    for solver in (sg.DPMSolverPP(), sg.Multistep(4, corrector=4, clock="wide")):
        how = {"solver": solver, "steps": 9, "walk": "uniform"}
        start = x.clone().requires_grad_()
        y = sg.sample(model, start, graph=graph, **how)
        close(y, sg.sample(model, x, **how), rtol=1e-10)
        (slope,) = torch.autograd.grad(y.sum(), start)
        assert slope.isfinite().all() and slope.abs().sum() > 0
    with refused("no value at t = 0"):
        sg.sample(model, x, solver=sg.Heun(), steps=9, walk="uniform", graph=graph)


def test_a_step_without_noise_is_its_denoised_state() -> None:
    """Every method's last step to sigma = 0 is E[x0 | x], EDM's Heun among them."""
    sde = sg.EDMSDE(T=3.0, t_min=0.0)
    model, x = exact(sde, "x0"), normal(3, 2)
    for solver in (sg.UniPC(), sg.Heun("rho"), sg.solvers.Singlestep(), sg.DDIM(1.0)):
        y = sg.sample(model, x, solver=solver, walk=[0.75, 0.0], seed=0)
        close(y, x0(x, sde(torch.tensor(0.75))))


def test_betas_that_leave_no_signal() -> None:
    """Zero terminal SNR: the steps are those of the betas, and the way to the last is monotone."""
    sde = no_signal_left(10)
    alpha2 = torch.cumprod(1 - torch.tensor(sde.betas, dtype=torch.float64), 0)
    steps = torch.arange(1, 11, dtype=torch.float64) / 10
    close(sde(steps).alpha ** 2, alpha2, atol=1e-15)
    t = torch.linspace(0.05, 1.0, 96, dtype=torch.float64)
    level = sde(t)
    assert (level.lam.diff() < 0).all() and float(level.alpha[-1]) == 0.0
    close(sde.time(level.lam), t, rtol=1e-9)
    h = 1e-6
    inner = t[(10 * t - (10 * t).round()).abs() > 1e-3]
    slope = (sde(inner + h).alpha - sde(inner - h).alpha) / (2 * h)
    close(sde(inner).d_alpha, slope, rtol=1e-5)
    with refused("each in \\(0, 1\\); the last may be 1"):
        DiscreteVPSDE([0.1, 1.0, 0.1])
    with refused("each in \\(0, 1\\); the last may be 1"):
        DiscreteVPSDE([0.1, 1.5])


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@every_net
def test_a_loss_at_the_end_of_a_flow_is_its_limit(predicts: str, weighting: str) -> None:
    """At t = T = 1 the loss is what it comes to on the way there."""
    x = normal(4, 2)

    def loss(T: float) -> Tensor:
        sde = sg.FlowSDE(T=T)
        # At a constant: an exact network has no error to weigh.
        model = sg.ScoreModel(lambda x, t: torch.full_like(x, 0.3), sde, predicts=predicts)
        draw = torch.Generator().manual_seed(1)
        at_the_end = lambda sde, u: (torch.full_like(u, sde.T), torch.ones_like(u))  # noqa: E731
        return sg.dsm_loss(model, x, weighting=weighting, times=at_the_end, generator=draw)

    before, end = loss(1 - 1e-7), loss(1.0)
    if float(before.max()) > 1e5:  # the weight itself grows without bound
        assert (end > before).all()
    else:
        close(end, before, rtol=1e-5, atol=1e-5)


def test_times_by_likelihood_need_finite_ends() -> None:
    u = torch.rand(3, dtype=torch.float64)
    for sde in (sg.FlowSDE(T=1.0), sg.VPSDE(t_min=0.0)):
        with refused("draws lam between its ends.*use uniform_time"):
            likelihood_time(sde, u)
    assert likelihood_time(sg.FlowSDE(), u)[0].isfinite().all()


@pytest.mark.parametrize("weighting", ["sigma2", "min_snr"])
@pytest.mark.parametrize("sde", ["VP from 0", "EDM from 0", "flow from 0"])
@every_net
def test_a_loss_without_noise_is_its_limit(predicts: str, sde: str, weighting: str) -> None:
    """At t = 0 an infinite target, as a score's, has a weight of 0: their product is finite."""
    x, process = normal(4, 2), SDES[sde]
    model = sg.ScoreModel(lambda x, t: torch.full_like(x, 0.3), process, predicts=predicts)

    def loss(t: float) -> Tensor:
        draw = torch.Generator().manual_seed(1)
        at = lambda sde, u: (torch.full_like(u, t), torch.ones_like(u))  # noqa: E731
        return sg.dsm_loss(model, x, weighting=weighting, times=at, generator=draw)

    near, end = loss(1e-16), loss(0.0)
    if float(near.max()) > 1e5:  # an x0 network's error in eps grows without bound
        assert (end > near).all()
    else:
        close(end, near, rtol=1e-4, atol=1e-4)


def test_the_end_that_is_named_is_the_one_that_has_no_value() -> None:
    for t_min in (0.0, 1e-3):
        sde = sg.FlowSDE(T=1.0, t_min=t_min)
        with refused("UniPC.* has no value at t = 1, where FlowSDE has no signal left"):
            sg.sample(exact(sde, "v"), (3, 2), solver=sg.UniPC(), steps=5, walk="uniform")


@pytest.mark.parametrize("name", ["singlestep", "predictor_corrector", "unipc", "ddim", "heun"])
def test_the_calls_to_a_level_without_noise_are_counted(name: str) -> None:
    sde, solver = SDES["flow from 0"], FIXED[name]
    for steps in (1, 4):
        how = {"solver": solver, "steps": steps, "walk": "uniform"}
        plan = sg.sampling.Plan.of(exact(sde, "velocity"), (2, 2), **how)
        assert plan.nfe == int(sg.solve(exact(sde, "velocity"), (2, 2), **how).nfe[0])


def test_a_start_below_T_keeps_the_prior_s_mean() -> None:
    class Shifted(sg.EDMSDE):
        @property
        def prior(self) -> sg.Prior:
            return sg.Prior(self.T, mean=4.0)

    sde = Shifted(T=20.0)
    model = sg.ScoreModel(lambda x, t: torch.zeros_like(x), sde)  # eps = 0: nothing moves
    x = sg.sample(model, (4000, 1), solver=sg.DDIM(), walk=[10.0, 5.0], seed=0)
    assert abs(float(x.mean()) - 4) < 0.6 and abs(float(x.std()) / 10 - 1) < 0.05

"""What holds of a network holds of every wrapper: one law for all, and for all of them at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.guidance import CFG, Guided
from sdegen.programs.remembered import programmed
from tests.cases import FIXED, close, refused
from tests.elsewhere import elsewhere
from tests.labelled import BATCH as B
from tests.labelled import KINDS, NULL, OF_ONE_WALK, SDE, WALK, X, Y, labelled, made, states


def source(solver: sg.Solver) -> Any:
    return sg.Brownian(0) if solver.traits.needs_path else sg.Seeded(0)


@pytest.mark.parametrize("name", FIXED)
def test_the_program_is_the_plain_loop(name: str) -> None:
    program_is_loop(FIXED[name], "all")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("solver", [sg.UniPC(3), sg.Heun(), sg.DDIM(1.0)], ids=str)
def test_of_every_kind(solver: sg.Solver, kind: str) -> None:
    program_is_loop(solver, kind)


def program_is_loop(solver: sg.Solver, kind: str) -> None:
    model, n = made(kind), 5
    times = sg.walks.log_snr(SDE, n)
    eta = 0.7 if solver.traits.any_eta else solver.eta
    equation = sg.Reverse(model, eta, source(solver))
    x = states(kind)
    for state in sg.march(solver, equation, x, sg.walks.levels(SDE, times)):  # noqa: B007
        pass
    program = programmed(solver, model, eta, times)
    if program is not None:
        *_, end = (x.clone() for x in program.steps(model, states(kind), source(solver)))
        close(end, state.x, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_its_own(kind: str) -> None:
    """Alone as in the batch, a NaN stays where it is, and no mode changes a bit."""
    model, how = made(kind), {"solver": sg.DPMSolverPP(2), "steps": 5, "eta": 0.5}
    x = states(kind)
    whole = sg.sample(model, x, seed=[1, 2, 3, 4], **how)  # type: ignore[arg-type]
    for i in range(B):
        one = torch.tensor([i])
        alone = sg.sample(model.take(one), x[one], seed=[i + 1], **how)  # type: ignore[arg-type]
        close(alone, whole[one], rtol=1e-11, atol=1e-12)
    sick = x.clone()
    sick[2] = torch.nan
    hurt = sg.sample(model, sick, seed=[1, 2, 3, 4], **how)  # type: ignore[arg-type]
    kept = torch.tensor([0, 1, 3])
    assert torch.equal(hurt[kept], whole[kept])
    with torch.inference_mode():
        again = sg.sample(model, x, seed=[1, 2, 3, 4], **how)  # type: ignore[arg-type]
    assert torch.equal(again, whole) and not whole.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_on_another_device(kind: str) -> None:
    model, how = made(kind), {"solver": sg.DPMSolverPP(2), "walk": WALK, "eta": 0.5, "seed": 0}
    x = states(kind)
    here = sg.sample(model, x, **how)  # type: ignore[arg-type]
    there = elsewhere(lambda move: sg.sample(model, move(x), **how))  # type: ignore[arg-type]
    close(there, here, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in OF_ONE_WALK])
def test_adaptive_solvers_cut_it(kind: str) -> None:
    model, x = made(kind), states(kind)
    solver = sg.AdaptiveRK("bosh3", rtol=1e-2, atol=1e-2)
    whole = sg.solve(model, x, solver=solver)
    for i in range(B):
        one = torch.tensor([i])
        close(sg.sample(model.take(one), x[one], solver=solver), whole.x[one], atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_original_stays_as_it_was(kind: str) -> None:
    model, x = made(kind), states(kind)
    before = model.output(x, SDE(WALK[2]))
    model.take(torch.tensor([1])), model.given(y=Y.flip(0))
    assert torch.equal(model.output(x, SDE(WALK[2])), before)
    assert isinstance(model, sg.model.Denoiser) and type(model).__name__ in repr(model)
    assert "y" in model.conditions


def test_the_likelihood_of_a_guided_model_is_its_flows() -> None:
    """CFG of N(0, v) and N(0, V) in the flow: N(0, v^s V^(1-s)) where sigma_T is large; the mass
    is 1."""
    sde, s, v, V = sg.VPSDE(), 2.0, 0.25, 1.0

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        level = sde(t)
        both = [Gaussian([0.0], [c]).denoise(x, level) for c in (v, V)]
        return torch.where(y[:, None] == 0, *both)

    def judge(x: Tensor, level: sg.Level) -> Tensor:
        a, c = (level.alpha**2 * k + level.sigma**2 for k in (v, V))
        return -0.5 * x.square().sum(1) * (1 / a - 1 / c)

    x = torch.linspace(-1.6, 1.6, 65).double()[:, None]
    plain = sg.ScoreModel(net, sde, "x0")
    label = torch.zeros(65, dtype=torch.int64)
    for model in (
        CFG(plain.given(y=label), s, {"y": 1}),
        Guided(plain.given(y=label), judge, s - 1),
    ):
        density = sg.log_prob(model, x, solver=sg.UniPC(3), steps=150).value.exp()
        mass = torch.trapezoid(density, x[:, 0])
        var = torch.trapezoid(density * x[:, 0] ** 2, x[:, 0])
        assert abs(float(mass) - 1) < 1e-4
        assert abs(float(var) - (v**s * V ** (1 - s) + float(sde(sde.t_min).sigma) ** 2)) < 1e-3


def test_a_gradient_that_is_cut_is_another_density() -> None:
    """The law above sees a judge whose own slope is lost: log p is then 1.39 off at s = 2."""
    sde = sg.VPSDE()
    model = exact_model(Gaussian([0.0], [0.25]), sde)

    def judge(x: Tensor, level: sg.Level) -> Tensor:
        a, c = (level.alpha**2 * k + level.sigma**2 for k in (0.25, 1.0))
        return -0.5 * x.square().sum(1) * (1 / a - 1 / c)

    class Cut(Guided):
        def output(self, x: Tensor, level: Any) -> Tensor:
            with torch.no_grad():
                pushed = super().output(x.detach(), level) - self.model.output(x.detach(), level)
            return self.model.output(x, level) + pushed

    x = torch.zeros(1, 1).double()
    how: dict[str, Any] = {"solver": sg.UniPC(3), "steps": 60}
    right, wrong = (sg.log_prob(kind(model, judge), x, **how).value for kind in (Guided, Cut))
    assert abs(float(right - wrong)) > 0.6


def test_gradients_reach_through_every_wrapper() -> None:
    """d end / d start by a graph is the difference quotient."""
    model = made("all")
    how: dict[str, Any] = {"solver": sg.DDIM(), "steps": 4}
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(sg.sample(model, x, graph=True, **how)[0, 1], x)
    e = torch.zeros_like(X)
    e[0, 1] = 1e-5
    up, down = (sg.sample(model, X + k * e, **how)[0, 1] for k in (1, -1))
    close(slope[0, 1], (up - down) / 2e-5, rtol=1e-5, atol=1e-8)


def test_tuning_and_auto_take_guided_models() -> None:
    cfg = CFG(labelled(SDE).given(y=torch.zeros(16, dtype=torch.int64)), 2.0, {"y": NULL})
    choice = sg.tuning.choose(cfg, (2,), nfe=10, seeds=16)
    assert choice.nfe == 5
    done = sg.solve(cfg, (16, 2), solver="auto", nfe=10, seed=0)
    assert int(done.nfe.max()) == 10
    with refused("One call of CFG is 2 network evaluations, but nfe = 1."):
        sg.tuning.choose(cfg, (2,), nfe=1, seeds=16)

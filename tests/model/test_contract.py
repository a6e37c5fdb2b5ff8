"""The contract of a model: a wrapper that changes the output is sampled by every consumer alike.

A wrapper W of two models is held against N, a network that computes the same function: what holds
of a network must hold of whoever keeps the contract, and nobody may fall back on what is inside.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.model.prediction import predicted
from sdegen.programs.remembered import programmed
from tests.cases import EVERY_SOLVER, FIXED, close, normal, refused

SDE = sg.VPSDE()
FIRST = sg.exact.Gaussian([0.4, -0.3], [0.5, 0.2])
SECOND = sg.exact.Gaussian([-0.6, 0.2], [0.3, 0.4])


@dataclass(frozen=True, eq=False)
class Between:
    """x0 = w x0 of one model + (1 - w) x0 of another, asked as one batch twice as long.

    Written from the contract alone, it inherits from nothing.
    """

    inner: Any
    w: Tensor

    sde = property(lambda self: self.inner.sde)
    target = property(lambda self: self.inner.target)
    device = property(lambda self: self.inner.device)
    dtype = property(lambda self: self.inner.dtype)
    nfe = property(lambda self: self.inner.nfe)
    vjps = property(lambda self: self.inner.vjps)
    data_range = property(lambda self: self.inner.data_range)

    def count(self, calls: int = 0, vjps: int = 0) -> None:
        self.inner.count(calls, vjps)

    def output(self, x: Tensor, level: Any) -> Tensor:
        which = torch.arange(2, device=x.device).repeat_interleave(len(x))
        both = self.inner.given(which=which).output(torch.cat([x, x]), doubled(level))
        self.inner.count(1)
        w = self.w.to(x).reshape(-1, *[1] * (x.ndim - 1))
        one, two = both.chunk(2)
        return w * one + (1 - w) * two

    def __call__(self, x: Tensor, t: Any) -> Any:
        level = t if isinstance(t, sg.sde.Instant) else self.sde(t)
        return predicted(self.sde, self.target, x, self.output(x, level), level)

    def take(self, index: Tensor) -> Between:
        return replace(self, inner=self.inner.take(index), w=self.w[index])


def doubled(level: Any) -> Any:
    """A level of one time for each sample, for a batch twice as long."""
    if not level.t.ndim:
        return level
    return type(level)(*(torch.cat([getattr(level, each.name)] * 2) for each in fields(level)))


def two(x: Tensor, t: Tensor, which: Tensor) -> Tensor:
    level = SDE(t)
    first, second = FIRST.denoise(x, level), SECOND.denoise(x, level)
    return torch.where(which[:, None] == 0, first, second)


def weights(b: int) -> Tensor:
    return torch.linspace(0.2, 1.6, b, dtype=torch.float64)


def wrapper(b: int) -> Between:
    return Between(sg.ScoreModel(two, SDE, "x0"), weights(b))


def network(b: int) -> sg.ScoreModel:
    """The same function as a network."""

    def net(x: Tensor, t: Tensor, w: Tensor) -> Tensor:
        level = SDE(t)
        return w[:, None] * FIRST.denoise(x, level) + (1 - w[:, None]) * SECOND.denoise(x, level)

    return sg.ScoreModel(net, SDE, "x0").given(w=weights(b))


def inside(b: int) -> sg.ScoreModel:
    """What a consumer that drops the wrapper would sample."""
    return sg.ScoreModel(two, SDE, "x0").given(which=torch.zeros(b, dtype=torch.int64))


x_T = normal(4, 2)


def test_a_wrapper_is_a_denoiser() -> None:
    assert isinstance(wrapper(4), sg.model.Denoiser)
    assert isinstance(sg.ScoreModel(two, SDE), sg.model.Denoiser)


@pytest.mark.parametrize("name", FIXED)
def test_the_program_and_the_plain_loop_run_the_wrapper(name: str) -> None:
    solver, n = FIXED[name], 6
    eta = 0.7 if solver.traits.any_eta else solver.eta
    model, same = wrapper(4), network(4)
    times = sg.walks.log_snr(SDE, n)
    walk = sg.walks.levels(SDE, times)
    noise = sg.noise.Brownian(0) if solver.traits.needs_path else sg.Seeded(0)
    for state in sg.march(solver, sg.Reverse(model, eta, noise), x_T, walk):  # noqa: B007
        pass
    again = sg.noise.Brownian(0) if solver.traits.needs_path else sg.Seeded(0)
    got = sg.sample(model, x_T, solver=solver, walk=times, eta=eta, noise=again)
    close(got, state.x, rtol=1e-9, atol=1e-11)
    once_more = sg.noise.Brownian(0) if solver.traits.needs_path else sg.Seeded(0)
    close(
        sg.sample(same, x_T, solver=solver, walk=times, eta=eta, noise=once_more),
        got,
        rtol=1e-9,
        atol=1e-11,
    )
    program = programmed(solver, model, eta, times)
    if program is not None:
        noise = sg.noise.Brownian(0) if solver.traits.needs_path else sg.Seeded(0)
        *_, end = (x.clone() for x in program.steps(model, x_T, noise))
        close(end, got, rtol=1e-12, atol=1e-13)


def test_what_is_inside_is_another_model() -> None:
    """The law above would see a consumer that drops the wrapper."""
    ends = [sg.sample(m(4), x_T, solver=sg.DDIM(), steps=6) for m in (wrapper, inside)]
    assert float((ends[0] - ends[1]).abs().max()) > 0.1


ADAPTIVE = [
    sg.AdaptiveRK(rtol=1e-7, atol=1e-9, per_sample=True),
    sg.solvers.AdaptiveDPM(rtol=1e-5, atol=1e-7, per_sample=True),
    sg.solvers.AdaptiveMultistep(rtol=1e-7, atol=1e-9, per_sample=True),
    sg.solvers.SciPy(rtol=1e-7, atol=1e-9),
]


@pytest.mark.parametrize("solver", ADAPTIVE, ids=lambda s: type(s).__name__)
def test_adaptive_solvers_cut_the_wrapper_with_its_batch(solver: sg.Solver) -> None:
    got = sg.solve(wrapper(4), x_T, solver=solver)
    fine = sg.sample(network(4), x_T, solver=sg.UniPC(3), steps=200)
    close(got.x, fine, rtol=0, atol=2e-4)
    for i in range(4):
        alone = sg.solve(wrapper(4).take(torch.tensor([i])), x_T[i : i + 1], solver=solver)
        close(alone.x, got.x[i : i + 1], rtol=1e-10, atol=1e-12)
        assert int(alone.nfe) == int(got.nfe[i])


@pytest.mark.parametrize("name", ["ddim", "unipc", "heun", "dpmpp", "adaptive_dopri5_lam"])
def test_calls_are_counted_for_each_sample(name: str) -> None:
    """A batch twice as long is two evaluations of every sample."""
    solver = EVERY_SOLVER[name]
    how: dict[str, Any] = {} if solver.traits.adaptive else {"steps": 5}
    one, two_ = (sg.solve(m(4), x_T, solver=solver, **how) for m in (network, wrapper))
    assert torch.equal(two_.nfe, 2 * one.nfe)


@pytest.mark.parametrize("name", FIXED)
def test_samples_of_a_wrapper_stay_apart(name: str) -> None:
    solver = FIXED[name]
    how: dict[str, Any] = {"solver": solver, "steps": 6}
    whole = sg.sample(wrapper(4), x_T, seed=[3, 1, 4, 5], **how)
    index = torch.tensor([2])
    close(sg.sample(wrapper(4).take(index), x_T[2:3], seed=[4], **how), whole[2:3], rtol=1e-12)
    sick = x_T.clone()
    sick[1] = torch.nan
    got = sg.solve(wrapper(4), sick, seed=[3, 1, 4, 5], **how)
    others = torch.tensor([0, 2, 3])
    assert torch.equal(got.x[others], whole[others]) and got.status.tolist() == [0, 1, 0, 0]
    with torch.inference_mode():
        assert torch.equal(sg.sample(wrapper(4), x_T, seed=[3, 1, 4, 5], **how), whole)


@dataclass(frozen=True, eq=False)
class Sloped(Between):
    """Moved by a gradient, with which a number of each sample's own is multiplied."""

    def output(self, x: Tensor, level: Any) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            y = x.clone().requires_grad_()
            cost = (self.w[:, None] * y.square()).sum() / (1 + level.t.clone().square()).sum()
            (slope,) = torch.autograd.grad(cost, y)
        return self.inner.given(which=torch.zeros(len(x))).output(x, level) - 0.1 * slope

    def take(self, index: Tensor) -> Sloped:
        return replace(self, inner=self.inner.take(index), w=self.w[index])


@pytest.mark.parametrize(
    "solver",
    [sg.DDIM(), sg.AdaptiveRK(rtol=1e-2, atol=1e-2), sg.solvers.SciPy(rtol=1e-2, atol=1e-2)],
    ids=lambda solver: type(solver).__name__,
)
def test_gradients_inside_a_wrapper_under_inference_mode(solver: sg.Solver) -> None:
    """What is cut with the batch is no tensor of inference mode, which no gradient takes."""
    model = Sloped(sg.ScoreModel(two, SDE, "x0"), weights(4))
    how: dict[str, Any] = {} if solver.traits.adaptive else {"steps": 4}
    x = x_T * torch.tensor([[0.01], [1.0], [3.0], [30.0]])  # adaptive steps part, and so do they
    want = sg.sample(model, x, solver=solver, **how)
    with torch.inference_mode():
        assert torch.equal(sg.sample(model, x, solver=solver, **how), want)


def test_likelihoods_and_encodings_are_the_wrappers() -> None:
    x = normal(4, 2, seed=2) / 2
    got, want = (sg.log_prob(m(4), x, divergence="exact") for m in (wrapper, network))
    close(got.value, want.value, rtol=1e-10)
    assert torch.equal(got.nfe, 2 * want.nfe) and got.vjps == want.vjps > 0
    for both in (sg.encode, sg.decode):
        close(both(wrapper(4), x, steps=20), both(network(4), x, steps=20), rtol=1e-10)
    a, b = (sg.elbo(m(4), x, draws=4, seed=0).value for m in (wrapper, network))
    close(a, b, rtol=1e-10)


def test_a_loss_trains_the_wrapper() -> None:
    x0 = normal(4, 2, seed=3)
    a, b = (
        sg.dsm_loss(m(4), x0, generator=torch.Generator().manual_seed(0))
        for m in (wrapper, network)
    )
    close(a, b, rtol=1e-10)


@pytest.mark.parametrize("cut", [slice(None, 1), (slice(None), slice(None, 1))], ids=["b", "d"])
@pytest.mark.parametrize("name", ["ddim", "heun", "adaptive_dopri5_lam", "scipy", "song_pc"])
def test_an_output_of_another_shape_is_refused(name: str, cut: Any) -> None:
    """It would broadcast, and samples would mix."""

    class Broadcasts(sg.ScoreModel):
        def output(self, x: Tensor, level: Any) -> Tensor:
            return super().output(x, level)[cut]

    # SciPy takes one sample at a time: the first of one is all there is.
    model = Broadcasts(lambda x, t: torch.tanh(x), SDE)
    solver = EVERY_SOLVER["adaptive_dopri5" if name == "scipy" and cut == slice(1) else name]
    how: dict[str, Any] = {} if solver.traits.adaptive else {"steps": 3}
    with refused("output has its state's shape .*, but this one has"):
        sg.sample(model, x_T, solver=solver, **how)
    with refused("output has its state's shape .*, but this one has"):
        sg.log_prob(model, x_T / 4, divergence="exact")


def test_a_wrapper_refuses_data_outside_its_models_range() -> None:
    inner = sg.ScoreModel(two, SDE, "x0", data_range=(-1.0, 1.0))
    with refused("trained on data in"):
        sg.log_prob(Between(inner, weights(4)), 5 * torch.ones(4, 2, dtype=torch.float64))


def test_what_is_no_model_is_refused() -> None:
    with refused("A model is a ScoreModel or another Denoiser.*Linear"):
        sg.sample(torch.nn.Linear(2, 2), (2, 2), solver=sg.DDIM(), steps=2)  # type: ignore[arg-type]

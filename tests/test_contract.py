"""The contract of a model: a wrapper that changes the output is sampled by every consumer alike.

A wrapper W of two models is held against N, a network that computes the same function: what holds
of a network must hold of whoever keeps the contract, and nobody may fall back on what is inside.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from conftest import EVERY_SOLVER, FIXED, close, normal, refused
from torch import Tensor, nn

import sdegen as sg
from sdegen.model.prediction import predicted
from sdegen.programs.remembered import programmed

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


@pytest.mark.parametrize("name", ["ddim", "unipc", "heun", "ddpm"])
def test_samples_of_a_wrapper_stay_apart(name: str) -> None:
    solver = EVERY_SOLVER[name]
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


# ------------------------------------------------------------------ conditions say their axis


class Adds(nn.Module):
    """A network with a label for each sample and a context that is the same for all."""

    def forward(self, x: Tensor, t: Tensor, y: Tensor, context: Tensor) -> Tensor:
        assert len(y) == len(x) and context.shape == (4, 5)
        return x * 0.1 + y[:, None] + context.mean()


def test_a_shared_condition_is_not_cut_by_coincidence() -> None:
    """A context (4, 5) beside a batch of 4 was cut to (1, 5)."""
    context, y = torch.ones(4, 5), torch.arange(4.0)
    model = sg.ScoreModel(Adds(), SDE).given({"context": context}, y=y)
    part = model.take(torch.tensor([2]))
    assert part.conditions["context"] is context and part.conditions["y"].tolist() == [2.0]
    assert model.conditions["y"] is y and model.conditions["context"] is context
    x = x_T.float()
    got = sg.sample(model, x, solver=ADAPTIVE[0])
    alone = sg.sample(part, x[2:3], solver=ADAPTIVE[0])
    close(got[2:3], alone, rtol=1e-6)


def test_conditions_of_another_length_are_refused() -> None:
    model = sg.ScoreModel(Adds(), SDE).given({"context": torch.ones(4, 5)}, y=torch.ones(3))
    with refused(r"condition y has 3 values, but the batch has 4 samples.*given\(dict\(y=...\)\)"):
        sg.sample(model, x_T.float(), solver=sg.DDIM(), steps=2)


def test_nested_conditions_are_cut() -> None:
    model = sg.ScoreModel(lambda x, t, c: x, SDE)
    both = model.given(c={"a": torch.arange(3), "b": [torch.arange(6).reshape(3, 2), 1.0, None]})
    part = both.take(torch.tensor([1])).conditions["c"]
    assert part["a"].tolist() == [1] and part["b"][0].tolist() == [[2, 3]]
    assert part["b"][1:] == [1.0, None]
    with refused("condition c has 3 values"):
        both(normal(2, 2), 0.5)


def test_a_condition_given_again_has_the_axis_it_says_last() -> None:
    model = sg.ScoreModel(lambda x, t, c: x, SDE)
    shared = model.given({"c": torch.ones(5)})
    assert shared.take(torch.tensor([0])).conditions["c"].shape == (5,)
    assert shared.given(c=torch.ones(3)).take(torch.tensor([0])).conditions["c"].shape == (1,)


# --------------------------------------------------------------------------- subclasses


class Halved(sg.ScoreModel):
    """A model that changes its output."""

    def output(self, x: Tensor, level: Any) -> Tensor:
        return super().output(x, level) / 2


class Viewed(sg.ScoreModel):
    """A model whose views are made by code of its own."""

    def forward(self, x: Tensor, t: Any) -> Any:
        seen = super().forward(x, t)
        return replace(seen, F=seen.F / 2)


def test_a_subclass_that_changes_its_output_is_asked_by_all() -> None:
    def half(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x) / 2

    model, same = Halved(lambda x, t: torch.tanh(x), SDE), sg.ScoreModel(half, SDE)
    close(model(x_T, 0.5).eps, same(x_T, 0.5).eps)
    assert programmed(sg.DDIM(), model, 0.0, sg.walks.log_snr(SDE, 3)) is not None
    for name in ("ddim", "heun", "adaptive_dopri5_lam"):
        how: dict[str, Any] = {} if name == "adaptive_dopri5_lam" else {"steps": 5}
        a, b = (sg.sample(m, x_T, solver=EVERY_SOLVER[name], **how) for m in (model, same))
        close(a, b)


def test_a_subclass_with_views_of_its_own_runs_in_the_plain_loop_alone() -> None:
    model = Viewed(lambda x, t: torch.tanh(x), SDE)
    same = sg.ScoreModel(lambda x, t: torch.tanh(x) / 2, SDE)
    close(
        sg.sample(model, x_T, solver=sg.DDIM(), steps=5),
        sg.sample(same, x_T, solver=sg.DDIM(), steps=5),
    )
    program = sg.programs.traced(sg.DDIM(), SDE, sg.walks.log_snr(SDE, 3))
    with refused("Viewed overrides forward.*override output"):
        list(program.steps(model, x_T))


def test_overriding_what_nobody_asks_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"Old.call is asked by nobody: override output\(x, level\)"
    ):

        class Old(sg.ScoreModel):
            def call(self, x: Tensor, level: Any) -> Tensor:
                return x


# ----------------------------------------------------------------------- a network from anywhere


class Sampled:
    """What diffusers' models return."""

    def __init__(self, sample: Tensor) -> None:
        self.sample = sample


@pytest.mark.parametrize(
    "wrap",
    [
        lambda F: (F, None),
        lambda F: [F],
        lambda F: {"sample": F, "extra": F},
        lambda F: {"out": F, "loss": None},
        Sampled,
    ],
    ids=["tuple", "list", "sample", "one", "object"],
)
def test_outputs_of_every_kind(wrap: Any) -> None:
    plain = sg.ScoreModel(lambda x, t: torch.tanh(x), SDE)
    other = sg.ScoreModel(lambda x, t: wrap(torch.tanh(x)), SDE)
    a, b = (sg.sample(m, x_T, solver=sg.UniPC(2), steps=5) for m in (plain, other))
    assert torch.equal(a, b)


@pytest.mark.parametrize("out", [None, (), {"a": x_T, "b": x_T}, "x"])
def test_other_outputs_are_refused(out: Any) -> None:
    with refused(r"A network returns a tensor, a tuple.*module="):
        sg.ScoreModel(lambda x, t: out, SDE)(x_T, 0.5)


def test_whole_labels_stay_whole() -> None:
    """An embedding is looked up by int64, in the plain loop, in programs and in training."""

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(1000, 2)
            self.seen = set[torch.dtype]()

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            self.seen.add(t.dtype)
            return x + self.table(t)

    def step(level: Any) -> Tensor:
        return (999 * level.t).round().long()

    net = Lookup()
    model = sg.ScoreModel(net, SDE, time=step)
    x = x_T.float()
    program = sg.sample(model, x, solver=sg.DDIM(), steps=5)
    *_, state = sg.march(
        sg.DDIM(), sg.Reverse(model), x, sg.walks.levels(SDE, sg.walks.log_snr(SDE, 5))
    )
    close(program, state.x, rtol=1e-5)
    sg.dsm_loss(model, x).mean().backward()
    assert net.seen == {torch.int64}


def test_a_function_that_hides_a_module() -> None:
    net = nn.Linear(2, 2).double()
    hiding = (lambda x, t: net(x), Holder(net).ask)
    for function in hiding:
        with pytest.warns(UserWarning, match=r"holds a module, whose parameters.*module=net"):
            sg.ScoreModel(function, SDE)
        model = sg.ScoreModel(function, SDE, module=net)
        assert model.dtype == torch.float64 and len(list(model.parameters())) == 2
    assert torch.equal(model(x_T, 0.5).eps, net(x_T))


class Holder:
    """An object whose method calls a network."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def ask(self, x: Tensor, t: Tensor) -> Tensor:
        return self.net(x)


def test_a_second_head() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.cat([torch.tanh(x), x + 1], 1)

    plain = sg.ScoreModel(lambda x, t: torch.tanh(x), SDE)
    model = sg.ScoreModel(Two(), SDE, heads=2)
    for shape in ((4, 2), (4, 2, 3, 3)):
        x = normal(*shape)
        seen = model(x, 0.5)
        assert torch.equal(seen.more, x + 1) and torch.equal(seen.eps, torch.tanh(x))
        assert plain(x, 0.5).more is None
        for solver in (sg.DDIM(), sg.Heun(), ADAPTIVE[0]):
            how: dict[str, Any] = {} if solver.traits.adaptive else {"steps": 4}
            assert torch.equal(
                sg.sample(model, x, solver=solver, **how),
                sg.sample(plain, x, solver=solver, **how),
            )
    with refused(r"returned \(4, 4\). If the second half is a variance.*heads=2"):
        sg.ScoreModel(Two(), SDE)(x_T, 0.5)
    with refused("heads=2 the network must return twice the channels"):
        sg.ScoreModel(lambda x, t: x, SDE, heads=2)(x_T, 0.5)
    with refused("heads is 1, or 2"):
        sg.ScoreModel(Two(), SDE, heads=3)


def test_a_solver_that_reads_the_second_head_runs_in_the_plain_loop() -> None:
    @dataclass(frozen=True)
    class Reads(sg.Solver):
        traits = sg.Traits(order=1)

        def step(self, p: Any, x: Tensor, t: Any, s: Any, memory: Any = None) -> sg.Step:
            seen = p.model(x, t)
            return sg.Step(x + 0.1 * seen.more)

    model = sg.ScoreModel(lambda x, t: torch.cat([x, x], 1), SDE, heads=2)
    with pytest.raises(sg.programs.NotLinear, match="second output"):
        sg.programs.traced(Reads(), SDE, sg.walks.log_snr(SDE, 2))
    close(sg.sample(model, x_T, solver=Reads(), steps=2), x_T * 1.1**2)


def test_a_model_says_what_it_is() -> None:
    model = sg.ScoreModel(nn.Linear(2, 2), SDE, "v", time="lam")
    for part in ("Linear of 6 parameters", "VPSDE(", "predicts='v'", "time='lam'"):
        assert part in repr(model)
    assert "given y" in repr(model.given(y=1))


@pytest.mark.parametrize("predicts", ["eps", "x0", "score", "v", "velocity", "edm"])
def test_a_model_is_pickled_and_copied(predicts: str) -> None:
    from sdegen.networks import MLP

    model = sg.ScoreModel(MLP(dim=2), SDE, predicts)
    x = x_T.float()
    want = sg.sample(model, x, solver=sg.DDIM(), steps=3)
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(sg.sample(other, x, solver=sg.DDIM(), steps=3), want)
        before = model.nfe
        other(x, 0.5)
        assert model.nfe == before, "a copy counts for itself"


def test_a_network_of_another_type_since_is_found() -> None:
    """Labels and scales are prepared once; the network's type is looked up each time."""
    from sdegen.networks import MLP

    net = MLP(dim=2)
    model = sg.ScoreModel(net, SDE, "edm")
    x = x_T.float()
    single = sg.sample(model, x, solver=sg.DDIM(), steps=3)
    net.double()
    double = sg.sample(model, x, solver=sg.DDIM(), steps=3)
    close(single, double, rtol=1e-4, atol=1e-5)
    net.load_state_dict({k: v.float() for k, v in net.state_dict().items()}, assign=True)
    assert model.dtype == torch.float32
    assert torch.equal(sg.sample(model, x, solver=sg.DDIM(), steps=3), single)

"""Guidance by a gradient: exact on labelled mixtures, closed forms on Gaussians."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.guidance import CFG, Guided, Judge
from tests.cases import SDES, Plain, close, normal, refused
from tests.labelled import NULL, TARGETS, labelled, log_class

X = normal(40, 2)


@pytest.mark.parametrize("predicts", TARGETS)
@pytest.mark.parametrize("name", SDES)
def test_bayes_makes_the_conditional_model(name: str, predicts: str) -> None:
    """Guided(s = 1) by the true p(y | x_t) is the model of the class, at every level."""
    sde = SDES[name]
    model, y = labelled(sde, predicts), torch.arange(len(X)) % 3
    guided = Guided(model.given(y=torch.full_like(y, NULL)), log_class, given={"y": y})
    for t in torch.linspace(sde.t_min + 0.02 * (sde.T - sde.t_min), 0.98 * sde.T, 5).double():
        level = sde(t)
        x = level.alpha * X + level.sigma * X.flip(0)
        close(guided(x, level).eps, model.given(y=y)(x, level).eps, atol=1e-9, rtol=1e-9)
        close(guided(x, level).x0, model.given(y=y)(x, level).x0, atol=1e-8, rtol=1e-8)


def quadratic(x: Tensor, level: sg.Level, centre: Tensor) -> Tensor:
    return -0.5 * (x - centre).square().sum(1)


def test_its_own_arguments_are_cut_with_the_batch() -> None:
    model = exact_model(Gaussian([0.0, 0.0], [1.0, 0.5]), sg.VPSDE())
    guided = Guided(model, quadratic, normal(4, 1)[:, 0].abs(), given={"centre": normal(4, 2)})
    how: dict[str, Any] = {"solver": sg.AdaptiveRK(rtol=1e-4, atol=1e-4)}
    whole = sg.sample(guided, normal(4, 2), **how)
    for i in range(4):
        one = torch.tensor([i])
        close(sg.sample(guided.take(one), normal(4, 2)[one], **how), whole[one], atol=1e-12)


def test_through_the_network_is_the_gradient_through_it() -> None:
    """On N(0, v) x0 = k x: the gradient of -|x0 - c|^2 / 2 by x is k (c - k x)."""
    sde, x = sg.VPSDE(), normal(5, 2)
    model = exact_model(Gaussian([0.0, 0.0], [0.5, 0.5]), sde)
    guided = Guided(
        model, lambda x0, level: -0.5 * (x0 - 1).square().sum(1), scale=0.7, through=True
    )
    level = sde(0.6)
    k = level.alpha * 0.5 / (level.alpha**2 * 0.5 + level.sigma**2)
    calls, vjps = model.nfe, model.vjps
    with torch.no_grad():
        got = guided(x, level).score
    assert (model.nfe - calls, model.vjps - vjps) == (1, 1) and not got.requires_grad
    close(got, model(x, level).score + 0.7 * k * (1 - k * x), rtol=1e-10, atol=1e-10)


def test_a_score_alone_can_be_guided() -> None:
    """Of an SDE without marginals: score + scale grad log p."""
    model = sg.ScoreModel(lambda x, t: -x, Plain(), "score")
    guided = Guided(model, lambda x, t: -x.square().sum(1), 0.5)
    close(guided(X, 0.5).score, -2 * X)
    with refused("through=True changes E.x0 . x., which needs alpha and sigma, but Plain gives"):
        Guided(model, quadratic, through=True)


@pytest.mark.parametrize("s", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_the_flow_of_two_gaussians_is_a_product_of_powers(name: str, s: float) -> None:
    """Conditional N(m, v), other N(0, V): where eta = 0 a distance from the guided mean's path
    shrinks by [n_s(v)/n_t(v)]^s [n_s(V)/n_t(V)]^(1-s), with n(v)^2 = alpha^2 v + sigma^2."""
    sde, v, V = SDES[name], 0.25, 1.0

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        level = sde(t)
        both = [Gaussian([0.0], [c]).denoise(x, level) for c in (v, V)]
        return torch.where(y[:, None] == 0, *both)

    model = sg.ScoreModel(net, sde, "x0").given(y=torch.zeros(2, dtype=torch.int64))
    x = sde.prior.sample(normal(2, 1))
    end = sg.sample(CFG(model, s, {"y": 1}), x, solver=sg.UniPC(3), steps=400)
    T, e = sde(sde.T), sde(sde.t_min)
    gain = 1.0
    for var, power in ((v, s), (V, 1 - s)):
        n_e, n_T = (float(at.alpha**2 * var + at.sigma**2) ** 0.5 for at in (e, T))
        gain *= (n_e / n_T) ** power
    close(end, gain * x, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("eta", "var"), [(0.0, 1 / 16), (1.0, 7 / 64)])
def test_every_eta_ends_elsewhere(eta: float, var: float) -> None:
    """s = 2, v = 1/4, V = 1: the closed forms, and not p(x|c)^2 / p(x) with 1/7."""
    sde = sg.VPSDE()

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        level = sde(t)
        both = [Gaussian([0.0], [c]).denoise(x, level) for c in (0.25, 1.0)]
        return torch.where(y[:, None] == 0, *both)

    n = 100_000
    model = sg.ScoreModel(net, sde, "x0").given(y=torch.zeros(n, dtype=torch.int64))
    x = torch.randn(n, 1, generator=torch.Generator().manual_seed(0)).double()
    how: dict[str, Any] = {"solver": sg.DPMSolverPP(2), "steps": 200, "eta": eta, "seed": 1}
    found = float(sg.sample(CFG(model, 2.0, {"y": 1}), x, **how).var())
    assert abs(found - var) < 4 * var * (2 / n) ** 0.5 + 4e-4  # and the noise of t_min


def test_what_samples_would_share_is_refused() -> None:
    model = exact_model(Gaussian([0.0, 0.0], [1.0, 0.5]), sg.VPSDE())
    for bad in (lambda x, level: x.sum(), lambda x, level: x, lambda x, level: 1.0):
        with refused(r"log_p returns one number for each of 3 samples, \(3,\), but it returned"):
            Guided(model, bad)(normal(3, 2), 0.5)
    with refused("Guided takes a model first, but it is 3"):
        Guided(3, quadratic)  # type: ignore[arg-type]


def test_a_judge_of_other_states_and_a_constant_are_refused() -> None:
    model = exact_model(Gaussian([0.0, 0.0], [1.0, 0.5]), sg.EDMSDE())
    with refused("The judge knows the noisy states of VPSDE"):
        Guided(model, Judge(Linear(), sg.VPSDE()))
    with refused("log_p has no gradient by the state"):
        Guided(model, lambda x, level: torch.zeros(len(x)))(normal(3, 2), 0.5)
    with refused("log_p was given centre of 2 values, but the batch has 3 samples"):
        Guided(model, quadratic, given={"centre": torch.zeros(2)})(normal(3, 2), 0.5)


@pytest.mark.parametrize("through", [False, True])
def test_where_x0_and_eps_do_not_follow_it_says_so(through: bool) -> None:
    """At alpha = 0 a plain model has a value, a guided one none."""
    sde = sg.FlowSDE(T=1.0)
    model = sg.ScoreModel(lambda x, t: x * (1 + t[:, None]), sde, "velocity")
    guided = Guided(model, lambda x, level: -x.square().sum(1), through=through)
    with refused("A guided score has no value where alpha is 0, at t = 1: begin below T"):
        sg.sample(guided, normal(3, 2), solver=sg.DDIM(), walk="uniform", steps=4)


@pytest.mark.parametrize("predicts", ["eps", "velocity", "v"])
def test_at_the_ends_it_has_a_value_where_there_is_one(predicts: str) -> None:
    """A score adds nothing at sigma = 0; at alpha = 0 eps is moved by -sigma of it."""
    sde = sg.FlowSDE(T=1.0, t_min=0.0)
    model = sg.ScoreModel(lambda x, t: 0.5 * x, sde, predicts)
    guided = Guided(model, lambda x, level: -x.square().sum(1))
    x = normal(3, 2)
    assert torch.equal(guided.output(x, sde(0.0)), model.output(x, sde(0.0)))
    if predicts == "eps":
        close(guided.output(x, sde(1.0)), model.output(x, sde(1.0)) + 2 * x)


def test_no_scale_asks_no_judge() -> None:
    model = exact_model(Gaussian([0.0, 0.0], [1.0, 0.5]), sg.VPSDE())

    def never(x: Tensor, level: sg.Level) -> Tensor:
        raise AssertionError

    level = sg.VPSDE()(0.5)
    assert torch.equal(Guided(model, never, 0.0).output(X, level), model.output(X, level))


class Linear(nn.Module):
    """Logits of a state and its label, for three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.of_x, self.of_t = nn.Linear(2, 3), nn.Linear(1, 3)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        logits: Tensor = self.of_x(x) + self.of_t(label[:, None])
        return logits


def test_a_judge_is_told_what_a_model_is() -> None:
    """c_in x and the label of its name; log-probabilities that sum to one."""
    sde, net = sg.VPSDE(), Linear().double()
    judge = Judge(net, sde, time="lam", sigma_data=0.6)
    level, x = sde(torch.linspace(0.2, 0.8, 4).double()), normal(4, 2)
    c_in = ((0.6 * level.alpha) ** 2 + level.sigma**2).rsqrt()[:, None]
    want = net(c_in * x, level.lam).log_softmax(1)
    for k in range(3):
        close(judge(x, level, torch.full((4,), k)), want[:, k])
    with refused("A network of noisy states needs"):
        Judge(net, Plain())

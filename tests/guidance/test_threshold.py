"""Thresholds and what is known: x0 is changed, and the pair of x0 and eps stays one state's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.guidance import Known, Thresholded
from sdegen.guidance.threshold import quantile
from tests.cases import SDES, Plain, close, normal, refused
from tests.labelled import TARGETS

X0 = 3 * normal(4, 3, 2, 2)


def constant(sde: sg.LinearSDE, predicts: str = "x0", data_range: Any = (-1, 1)) -> sg.ScoreModel:
    """The model whose x0 is X0, whatever the state."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        level = sde(t.double())
        alpha, sigma = (c.reshape(-1, 1, 1, 1) for c in (level.alpha, level.sigma))
        if predicts == "edm":
            x = x * ((alpha * 0.5) ** 2 + sigma**2).sqrt()
        a, b = (torch.as_tensor(c).reshape(-1, 1, 1, 1) for c in TARGETS[predicts](level))
        return a * X0 + b * (x - alpha * X0) / sigma

    return sg.ScoreModel(net, sde, predicts, time="t", data_range=data_range)


@pytest.mark.parametrize("predicts", TARGETS)
@pytest.mark.parametrize("name", SDES)
def test_x0_is_clipped_and_eps_follows(name: str, predicts: str) -> None:
    sde = SDES[name]
    level, x = sde(0.5 * sde.T), sde.T * normal(4, 3, 2, 2)
    p = Thresholded(constant(sde, predicts))(x, level)
    close(p.x0, X0.clamp(-1, 1), rtol=1e-8, atol=1e-8)
    close(level.alpha * p.x0 + level.sigma * p.eps, x, rtol=1e-8, atol=1e-8)


def test_a_dynamic_threshold_by_hand() -> None:
    """Saharia et al. (2022), app. C, on the range [0, 4]; numpy's quantiles."""
    model, sde = constant(sg.VPSDE(), data_range=(0, 4)), sg.VPSDE()
    got = Thresholded(model, 0.9)(X0, sde(0.5)).x0
    u = (X0.numpy() - 2) / 2
    c = np.maximum(1, np.quantile(abs(u).reshape(4, -1), 0.9, axis=1)).reshape(4, 1, 1, 1)
    close(got, torch.as_tensor(2 + 2 * np.clip(u, -c, c) / c))


@pytest.mark.parametrize("q", [0.05, 0.5, 0.995, 1.0])
def test_quantiles_are_numpys(q: float) -> None:
    for shape in ((3, 1), (3, 2), (2, 5, 7)):
        x = normal(*shape)
        close(quantile(x, q), torch.as_tensor(np.quantile(x.reshape(len(x), -1), q, axis=1)))
    assert quantile(normal(2, 9).half(), q).dtype == torch.float16


@pytest.mark.parametrize("predicts", ["x0", "velocity", "v"])
def test_at_the_ends_it_has_a_value_where_there_is_one(predicts: str) -> None:
    """At alpha = 0 for every model; at sigma = 0 for a model of x0, else it is refused."""
    sde, x = sg.FlowSDE(T=1.0, t_min=0.0), normal(3, 2)
    model = sg.ScoreModel(lambda x, t: 3 * x, sde, predicts, data_range=(-0.2, 0.2))
    y, mask = torch.full((1, 2), 0.1).double(), torch.tensor([[True, False]])
    for wrapped in (Thresholded(model), Known(model, y, mask)):
        p = wrapped(x, sde(1.0))
        assert p.F.isfinite().all() and p.eps.isfinite().all()
        if predicts == "x0":
            assert wrapped.output(x, sde(0.0)).isfinite().all()
        else:
            with refused("has no value where sigma is 0, at t = 0: end above it"):
                wrapped.output(x, sde(0.0))


def test_what_lies_within_stays() -> None:
    sde = sg.VPSDE()
    model = sg.ScoreModel(lambda x, t: x.tanh(), sde, "x0", data_range=(-1, 1))
    level = sde(0.5)
    for q in (None, 1.0):
        assert torch.equal(Thresholded(model, q).output(X0, level), model.output(X0, level))


def test_a_threshold_needs_a_range() -> None:
    with refused("Thresholded needs to know where data lies: give data_range=.low, high."):
        Thresholded(constant(sg.VPSDE(), data_range=None))
    with refused(r"A quantile lies in \(0, 1\], but it is 2"):
        Thresholded(constant(sg.VPSDE()), 2)
    with refused("Thresholded changes E.x0 . x., which needs alpha and sigma, but Plain"):
        Thresholded(sg.ScoreModel(lambda x, t: x, Plain(), "score", data_range=(-1, 1)))


SOLVERS: list[sg.Solver] = [
    sg.DDIM(),
    sg.Ancestral(),
    sg.Heun(),
    sg.UniPC(3),
    sg.solvers.StochasticHeun(),
    sg.PredictorCorrector(),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_what_is_known_ends_as_it_is(name: str, solver: sg.Solver) -> None:
    """With denoise=True to the last bit: it is the model's own x0."""
    model = exact_model(Gaussian([0.5, 0.0], [[1.0, 0.9], [0.9, 1.0]]), SDES[name])
    y = torch.tensor([[1.5, torch.nan], [-0.5, torch.nan], [0.1, torch.nan]]).double()
    known = Known(model, y, torch.tensor([True, False]))
    end = sg.sample(known, (3, 2), solver=solver, steps=6, seed=0, denoise=True)
    assert torch.equal(end[:, 0], y[:, 0]) and end.isfinite().all()


def test_what_is_known_is_cut_with_the_batch() -> None:
    model = exact_model(Gaussian([0.0, 0.0], [1.0, 0.5]), sg.VPSDE())
    y, mask = normal(4, 2), torch.rand(4, 2, generator=torch.Generator().manual_seed(0)) < 0.5
    known = Known(model, y, mask)
    how: dict[str, Any] = {"solver": sg.AdaptiveRK(rtol=1e-4, atol=1e-4), "seed": [1, 2, 3, 4]}
    whole = sg.sample(known, (4, 2), **how)
    for i in range(4):
        one = torch.tensor([i])
        alone = sg.sample(known.take(one), (1, 2), **{**how, "seed": [i + 1]})
        close(alone, whole[one], atol=1e-12)
    shared = Known(model, y[:1], mask[:1])
    assert torch.equal(shared.take(torch.tensor([2, 3])).y, y[:1])


def test_what_does_not_fit_is_refused_before_a_call() -> None:
    model = exact_model(Gaussian([0.0, 0.0], [1.0, 0.5]), sg.VPSDE())
    wrong = torch.zeros(4, 3), torch.ones(4, 3, dtype=torch.bool)
    before = model.nfe
    with refused(r"What is known has the shape \(4, 3\), but states are \(4, 2\)"):
        sg.sample(Known(model, *wrong), (4, 2), solver=sg.DDIM(), steps=3)
    with refused(r"A mask has the shape \(3,\)|A mask has the shape \(1, 3\)"):
        sg.sample(Known(model, torch.zeros(1, 2), wrong[1][0]), (4, 2), solver=sg.DDIM(), steps=3)
    assert model.nfe == before
    with refused("A mask is boolean, true where x0 is known, but it is torch.float32"):
        Known(model, torch.zeros(1, 2), torch.zeros(1, 2))
    with refused("What is known is a floating-point tensor, but y is torch.int64"):
        Known(model, torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.slow
def test_the_bias_of_imputation_and_its_remedy() -> None:
    """Correlation 0.9, x_1 = 1.5: the other is N(1.35, 0.19). More steps do not take the bias
    away; RePaint does."""
    n = 4000
    model = exact_model(Gaussian([0.0, 0.0], [[1.0, 0.9], [0.9, 1.0]]), sg.VPSDE())
    known = Known(model, torch.tensor([[1.5, 0.0]]).double(), torch.tensor([[True, False]]))

    def mean(**how: Any) -> float:
        return float(sg.sample(known, (n, 2), seed=0, **how)[:, 1].mean())

    error = 5 * (0.5 / n) ** 0.5
    assert abs(mean(solver=sg.DDIM(), steps=100) - 0.659) < error
    assert abs(mean(solver=sg.Ancestral(), steps=100) - 0.916) < error
    plain = abs(mean(solver=sg.Ancestral(), steps=1000) - 1.35)
    assert plain > 0.35
    again = sg.recipes.repaint(100, 10, 10, sg.walks.log_snr)
    assert abs(mean(**again) - 1.35) < plain / 5

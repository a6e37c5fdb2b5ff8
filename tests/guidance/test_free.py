"""Guidance without a classifier: what it is made of, bit for bit, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.guidance import CFG, Contrast, Interval, Stepwise, cfgpp
from tests.cases import close, normal, refused
from tests.labelled import NULL, TARGETS, labelled

SDE = sg.VPSDE()
Y = torch.tensor([0, 1, 2, 0, 1])
X = normal(5, 2)
LEVEL = SDE(0.4)


def model(predicts: str = "eps", y: Any = Y) -> sg.ScoreModel:
    return labelled(SDE, predicts).given(y=y)


def test_scale_one_and_zero_are_the_models_themselves() -> None:
    for s, y in ((1.0, Y), (1, Y), (0.0, torch.full_like(Y, NULL)), (0, torch.full_like(Y, NULL))):
        m = model()
        cfg = CFG(m, s, {"y": NULL})
        how: dict[str, Any] = {"solver": sg.DPMSolverPP(2), "nfe": 6, "seed": 0}
        done = sg.solve(cfg, X, **how)
        assert torch.equal(done.x, sg.sample(model(y=y), X, **how))
        assert done.nfe.tolist() == [6] * 5 and cfg.cost == 1


@pytest.mark.parametrize("together", [False, True])
def test_a_budget_is_of_evaluations(together: bool) -> None:
    cfg = CFG(model(), 3.0, {"y": NULL}, together=together)
    done = sg.solve(cfg, X, solver=sg.DDIM(), nfe=20)
    assert done.nfe.tolist() == [20] * 5
    assert done.walk is not None and done.walk.steps == 10
    assert sg.sampling.Plan.of(cfg, X, solver=sg.DDIM(), nfe=21, denoise=True).nfe == 20
    assert sg.solve(cfg, X, nfe=8).nfe.tolist() == [8] * 5
    with refused("One call of CFG is 2 network evaluations, but nfe = 1."):
        sg.solve(cfg, X, solver=sg.DDIM(), nfe=1)


def test_together_is_apart() -> None:
    apart, both = (CFG(model(), 2.5, {"y": NULL}, together=k) for k in (False, True))
    for level in (LEVEL, SDE(torch.linspace(0.1, 0.9, 5).double())):
        close(both.output(X, level), apart.output(X, level), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("predicts", TARGETS)
def test_every_prediction_is_guided_alike(predicts: str) -> None:
    """A combination with weights that sum to one is the same of x0, eps, v, score and F."""
    c, u = model()(X, LEVEL), model(y=torch.full_like(Y, NULL))(X, LEVEL)
    got = CFG(model(predicts), 3.0, {"y": NULL})(X, LEVEL)
    for view in ("x0", "eps", "score"):
        want = getattr(u, view) + 3.0 * (getattr(c, view) - getattr(u, view))
        close(getattr(got, view), want, rtol=1e-8, atol=1e-8)


def test_a_scale_for_each_sample_and_a_negative_condition() -> None:
    s = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    other = torch.tensor([1, 2, 0, NULL, 2])
    whole = CFG(model(), s, {"y": other})
    for i in range(5):
        alone = CFG(model(y=Y[i : i + 1]), float(s[i]), {"y": int(other[i])})
        want = alone.output(X[i : i + 1], LEVEL)
        close(whole.output(X, LEVEL)[i : i + 1], want, rtol=1e-12, atol=1e-12)
        one = torch.tensor([i])
        close(whole.take(one).output(X[one], LEVEL), want, rtol=1e-12, atol=1e-12)
    assert torch.equal(whole.given(y=other).model.conditions["y"], other)
    assert torch.equal(whole.model.conditions["y"], Y)


def test_rescaling_gives_the_conditional_models_deviation() -> None:
    c = model()(X, LEVEL).x0.std(1)
    plain, whole, part = (CFG(model(), 4.0, {"y": NULL}, rescale=r) for r in (0.0, 1.0, 0.7))
    x0 = plain(X, LEVEL).x0
    close(whole(X, LEVEL).x0.std(1), c, rtol=1e-9)
    close(part(X, LEVEL).x0, (0.3 + 0.7 * c / x0.std(1))[:, None] * x0, rtol=1e-9)
    flat = labelled(SDE).given(y=Y[:1])
    still = CFG(flat, 2.0, {"y": NULL}, rescale=1.0).output(torch.zeros(1, 2).double(), LEVEL)
    assert still.isfinite().all()
    with refused(r"rescale lies in \[0, 1\]"):
        CFG(model(), 2.0, {"y": NULL}, rescale=2.0)


def test_an_interval_and_its_cost() -> None:
    """Outside rho in (low, high] it is the conditional model, for one evaluation."""
    m = model()
    cfg = CFG(m, Interval(3.0, 0.3, 3.0), {"y": NULL})
    times = sg.walks.log_snr(SDE, 20)
    rho = SDE(times).rho[:-1]
    inside = int(((rho > 0.3) & (rho <= 3.0)).sum())
    assert 0 < inside < 20
    done = sg.solve(cfg, X, solver=sg.DDIM(), walk=times)
    assert done.nfe.tolist() == [20 + inside] * 5
    assert torch.equal(cfg.output(X, SDE(1.0)), m.output(X, SDE(1.0)))
    mixed = SDE(torch.tensor([1.0, 0.4, 0.01, 0.4, 1.0]).double())
    want = CFG(m, torch.tensor([1.0, 3.0, 1.0, 3.0, 1.0]), {"y": NULL}).output(X, mixed)
    close(cfg.output(X, mixed), want, rtol=1e-12, atol=1e-12)
    with refused("An interval of rho has 0 <= low < high, but they are 2, 1"):
        Interval(1.0, 2, 1)


@pytest.mark.parametrize("n", [1, 2, 12])
def test_cfgpp_is_ddim_with_a_scale_for_each_step(n: int) -> None:
    """x_s = alpha_s x0(eps_lam) + sigma_s eps_u, Chung et al. (2024), alg. 2, by hand."""
    times, lam = sg.walks.log_snr(SDE, n), 0.6
    cond, free = model(), model(y=torch.full_like(Y, NULL))
    x = X
    for t, s in zip(SDE(times).unbind()[:-1], SDE(times).unbind()[1:], strict=True):
        u, c = free(x, t).eps, cond(x, t).eps
        x0 = (x - t.sigma * (u + lam * (c - u))) / t.alpha
        x = s.alpha * x0 + s.sigma * u
    cfg = CFG(model(), cfgpp(SDE, times, lam), {"y": NULL})
    close(sg.sample(cfg, X, solver=sg.DDIM(), walk=times), x, rtol=1e-11, atol=1e-11)


def test_a_scale_for_each_step_at_its_stages() -> None:
    steps = Stepwise((1.0, 0.5, 0.2), (2.0, 3.0))
    for t, s in ((1.0, 2.0), (0.7, 2.0), (0.5, 3.0), (0.3, 3.0), (0.2, 3.0)):
        assert steps(SDE(t)) == s
    each = steps(SDE(torch.tensor([0.7, 0.5]).double()))
    assert isinstance(each, torch.Tensor) and each.tolist() == [2.0, 3.0]
    for times, scales in (((1.0, 0.5), (1.0, 2.0)), ((0.5, 1.0), (1.0,))):
        with refused("Stepwise takes n . 1 falling times and n scales"):
            Stepwise(times, scales)


def test_autoguidance_takes_models_of_any_target() -> None:
    strong, weak = model("v"), labelled(SDE, "eps").given(y=torch.full_like(Y, NULL))
    both = Contrast([weak, strong], [2.0])
    want = weak(X, LEVEL).x0 + 2 * (strong(X, LEVEL).x0 - weak(X, LEVEL).x0)
    close(both(X, LEVEL).x0, want, rtol=1e-9, atol=1e-9)
    before = both.nfe
    done = sg.solve(both, X, solver=sg.DDIM(), nfe=8)
    assert done.nfe.tolist() == [8] * 5 and both.nfe - before == 8 and both.cost == 2
    shared = Contrast([strong.given(y=torch.full_like(Y, NULL)), strong], [2.0])
    assert sg.solve(shared, X, solver=sg.DDIM(), nfe=8).nfe.tolist() == [8] * 5


def test_several_conditions_are_steps_of_a_ladder() -> None:
    low, mid, top = (labelled(SDE).given(y=torch.full_like(Y, k)) for k in (NULL, 1, 2))
    got = Contrast([low, mid, top], [1.5, torch.full((5,), 7.0).double()])(X, LEVEL).x0
    a, b, c = (each(X, LEVEL).x0 for each in (low, mid, top))
    close(got, a + 1.5 * (b - a) + 7.0 * (c - b), rtol=1e-9, atol=1e-9)
    ladder = Contrast([low, top], [torch.arange(5.0).double()])
    one = torch.tensor([3])
    close(ladder.take(one).output(X[one], LEVEL), ladder.output(X, LEVEL)[one], atol=1e-12)


def told(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    return 0.1 * x + text.sum()


def test_a_shared_condition_stays_shared() -> None:
    """Of the batch's length too: it is no sample's own."""
    for n in (7, 5):
        shared = sg.ScoreModel(told, SDE, "x0").given(dict(text=torch.ones(n).double()))
        cfg = CFG(shared, 3.0, {"text": 0.0})
        close(cfg.output(X, LEVEL), 0.1 * X + 3 * n)
        one = torch.tensor([2])
        close(cfg.take(one).output(X[one], LEVEL), 0.1 * X[one] + 3 * n)
    with refused("together=True takes conditions that are tensors with the batch's axis, and"):
        CFG(shared, 3.0, {"text": 0.0}, together=True)


def test_a_negative_condition_is_cut_with_its_samples() -> None:
    other = torch.tensor([1, 2, 0, NULL, 2])
    cfg = CFG(model(), 2.0, {"y": other})
    flip = torch.arange(5).flip(0)
    again = cfg.take(flip).given(y=Y.flip(0))
    close(again.output(X[flip], LEVEL), cfg.output(X, LEVEL)[flip], rtol=1e-12, atol=1e-12)


def test_what_a_weaker_model_was_told_stays_after_a_cut() -> None:
    weak, strong = model(y=torch.full_like(Y, NULL)), model()
    both = Contrast([weak, strong], [torch.tensor(2.0).double()])
    part = both.take(torch.tensor([1, 3])).given(y=torch.tensor([2, 2]))
    assert part.ladder[0].conditions["y"].tolist() == [NULL, NULL]
    assert part.ladder[1].conditions["y"].tolist() == [2, 2]


def test_numbers_on_the_way_are_float64() -> None:
    levels = SDE(torch.tensor([0.5, 0.9]).double())
    for scale in (Interval(0.1, 0.0, 100.0), Stepwise((1.0, 0.5, 0.0), (0.1, 0.1))):
        assert scale(SDE(0.5)) == 0.1 and scale(levels).tolist() == [0.1, 0.1]  # type: ignore[union-attr]


def test_what_does_not_fit_is_refused() -> None:
    bare = labelled(SDE)
    with refused(r"the place of y, but the model was given none: give it first, model.given\(y="):
        CFG(bare, 2.0, {"y": NULL})
    for bad in (torch.tensor([1, 2]), 2.5, None, "a", torch.tensor(2.0)):
        with refused(r"without: y is a torch.int64 of shape \(5,\), and .* cannot stand in its"):
            CFG(model(), 2.0, {"y": bad})
    for bad in ("abc", [1, 2], True, float("nan"), torch.ones(2, 2), torch.tensor([1, 2])):
        with refused("A scale is a number, floating-point numbers .b,., or a function"):
            CFG(model(), bad, {"y": NULL})  # type: ignore[arg-type]
    with refused(r"A scale has \(3,\) numbers, but the batch has 5 samples"):
        CFG(model(), torch.ones(3), {"y": NULL}).output(X, LEVEL)
    with refused(r"CFG needs without"):
        CFG(model(), 2.0, {})
    with refused("Contrast is of models on one SDE"):
        Contrast([labelled(sg.EDMSDE()).given(y=Y), model()], [2.0])
    with refused("there are 1 models and 1 scales"):
        Contrast([model()], [2.0])
    with refused("together=True puts the conditions of a ScoreModel together"):
        CFG(CFG(model(), 2.0, {"y": 0}), 2.0, {"y": NULL}, together=True)

"""What is recommended where nothing is said."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.guidance import CFG, Contrast, Guided, Interval, Stepwise, Thresholded, cfgpp
from sdegen.guidance.wrapped import jumps, strength_of
from sdegen.sampling import recipes
from tests.cases import MIXTURE, Plain, Smooth, close, normal, refused
from tests.labelled import NULL, labelled

NET = Smooth()


@pytest.mark.parametrize(("nfe", "order"), [(1, 4), (11, 4), (12, 4), (39, 4), (40, 5), (100, 5)])
def test_what_is_recommended_keeps_to_its_calls(nfe: int, order: int) -> None:
    how = recipes.recommended(nfe)
    assert how["solver"].order == how["solver"].corrector == order
    assert how["solver"].euler_at_final == (nfe < 12)
    model = sg.ScoreModel(NET, sg.VPSDE())
    assert sg.solve(model, normal(2, 2), **how).nfe.tolist() == [nfe, nfe]
    with refused("nfe must be a whole number >= 1"):
        recipes.recommended(0)


def test_without_a_solver_the_recommended_one_is_taken() -> None:
    model, x = sg.ScoreModel(NET, sg.EDMSDE()), normal(3, 2)
    for nfe in (4, 20, 50):
        how = recipes.recommended(nfe)
        assert torch.equal(sg.sample(model, x, nfe=nfe), sg.sample(model, x, **how))
    solver = recipes.recommended(4)["solver"]
    assert torch.equal(sg.sample(model, x, steps=4), sg.sample(model, x, nfe=4))
    times = sg.walks.log_snr(sg.EDMSDE(), 4)
    own = sg.sample(model, x, solver=solver, walk=times)
    assert torch.equal(sg.sample(model, x, walk=times), own)
    assert torch.equal(sg.sample(model, x, walk="log_snr", nfe=4), own)
    assert sg.solve(model, x, nfe=5, denoise=True).nfe.tolist() == [5, 5, 5]
    for wrong in ({}, {"steps": 3, "nfe": 3}, {"walk": "karras"}):
        with refused("exactly one of steps and nfe"):
            sg.sample(model, x, **wrong)  # type: ignore[arg-type]
    for name in ("steps", "nfe"):
        for n in (2.5, "4", 0):
            with refused(f"{name} must be a whole number >= 1"):
                sg.sample(model, x, **{name: n})  # type: ignore[arg-type]


@pytest.mark.parametrize("nfe", [3, 5, 8])
def test_few_calls_gain_by_an_eased_walk(nfe: int) -> None:
    """On the problem of the tests, by the mean over three SDEs; from ten on nothing is eased."""
    gains = []
    for sde in (sg.VPSDE(), sg.EDMSDE(), sg.FlowSDE()):
        model, x = exact_model(MIXTURE, sde), sde.prior.sample(normal(200, 2))
        fine = sg.sample(model, x, nfe=100)
        how = recipes.recommended(nfe)
        eased, focused = (
            (sg.sample(model, x, **{**how, "walk": walk}) - fine).square().mean().sqrt()
            for walk in (how["walk"], "focused")
        )
        gains.append(float(eased / focused))
    assert math.prod(gains) < 0.8**3, gains
    assert recipes.recommended(10)["walk"] == "eased"


def test_the_usual_solver_needs_marginals() -> None:
    model = sg.ScoreModel(NET, Plain(), predicts="score")
    with refused("The usual solver needs alpha and sigma, but Plain gives only"):
        sg.sample(model, normal(2, 2), nfe=4)


SCALES = [
    (1.0, 1.0),
    (0.0, 1.0),
    (4.0, 4.0),
    (torch.tensor([2.0, 5.0, 3.0]), 5.0),
    (Interval(6.0, 0.2, 2.0), 6.0),
    (Stepwise((1.0, 0.5, 0.0), (2.0, 7.0)), 7.0),
    (Stepwise((1.0, 0.5, 0.0), (2.0, -7.0)), 8.0),
    (lambda level: 1 + 2 * level.t, 3.0),
    (-7.0, 8.0),
    (torch.tensor([2.0, -7.0, 0.5]), 8.0),
]


@pytest.mark.parametrize(("scale", "strength"), SCALES)
def test_guided_models_say_how_strongly(scale: Any, strength: float) -> None:
    inner = labelled(sg.VPSDE()).given(y=torch.tensor([0, 1, 2]))
    cfg = CFG(inner, scale, {"y": NULL})
    assert strength_of(cfg) == strength_of(Thresholded(cfg, None, (-1, 1))) == strength
    x = normal(3, 2)
    for steps in (3, 12, 50):
        how = recipes.recommended(steps, strength, isinstance(scale, Interval | Stepwise))
        found = sg.solve(cfg, x, steps=steps)
        assert found.walk is not None and found.walk.steps == steps
        assert found.solver == how["solver"]
        again = sg.sample(cfg, x, solver=how["solver"], walk=how["walk"], steps=steps)
        assert torch.equal(found.x, again)
    if strength <= 1:
        assert found.solver == recipes.recommended(50)["solver"]
    assert strength_of(inner) == 1
    outer = Guided(cfg, lambda x, level: -x.square().sum(1), 1.5)
    assert strength_of(outer) == max(strength, 1.5) and outer.jumps == cfg.jumps


def test_the_order_under_guidance_follows_the_steps_beside_the_scale() -> None:
    def values(steps: int, strength: float, jumps: bool = False) -> tuple[int, int]:
        solver = recipes.recommended(steps, strength, jumps)["solver"]
        return solver.order, solver.corrector

    assert [values(n, 4.0) for n in (1, 3, 4, 15, 16, 31, 39, 40, 640)] == [
        *((2, 0), (2, 0), (2, 3), (2, 3), (4, 4), (4, 4), (4, 4), (5, 5), (5, 5))
    ]
    assert values(79, 10.0) == (4, 4) and values(80, 10.0) == (5, 5)
    assert values(16, 16.0) == values(8, 8.0) == (2, 3) and values(15, 16.0) == (2, 0)
    assert values(640, 4.0, True) == (2, 3) and values(3, 4.0, True) == (2, 0)
    with refused("strength"):
        recipes.recommended(10, "strong")  # type: ignore[arg-type]
    for n in (12, 39, 40, 200):  # where guidance fades the rule is the one without it
        assert recipes.recommended(n, 1 + 1e-9)["solver"] == recipes.recommended(n)["solver"]


def guided(scale: Any, sde: sg.LinearSDE | None = None, n: int = 3) -> CFG:
    """CFG of a network of labels."""
    inner = labelled(sg.VPSDE() if sde is None else sde).given(y=torch.arange(n))
    return CFG(inner, scale, {"y": NULL})


def test_a_scale_jumps_where_it_says_so() -> None:
    def smooth(level: Any) -> Any:
        return 1 + 3 * level.t

    def step(level: Any) -> float:
        return 4.0 if float(level.t) < 0.5 else 1.0

    step.jumps = True  # type: ignore[attr-defined]
    sde = sg.VPSDE()
    ends = cfgpp(sde, sg.walks.log_snr(sde, 4), 0.6)
    scales: list[tuple[Any, bool]] = [
        (4.0, False),
        (torch.tensor([4.0, 2.0, 1.0]), False),
        (smooth, False),
        (step, True),
        (Interval(4.0, 0.3, 3.0), True),
        (ends, True),
    ]
    for scale, says in scales:
        cfg = guided(scale)
        by = Guided(cfg.model, lambda x, level: -x.square().sum(1), scale)
        of = Contrast([cfg.other, cfg.model], [scale])
        for each in (
            cfg,
            by,
            of,
            Thresholded(cfg, None, (-1, 1)),
            Contrast([cfg, cfg.model], [1]),
        ):
            assert jumps(each) is says
    found = sg.solve(guided(smooth), normal(3, 2), steps=40)
    assert found.solver == recipes.recommended(40)["solver"]  # five values, as m is 10


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_scale_that_is_not_finite_stays_in_its_sample(bad: float) -> None:
    for place in range(3):
        scale = torch.tensor([2.0, 4.0, 3.0])
        scale[place] = bad
        cfg, x = guided(scale), normal(3, 2)
        rest = [i for i in range(3) if i != place]
        assert strength_of(cfg) == max(scale[rest].tolist())
        alone = sg.sample(cfg.take(torch.tensor(rest)), x[rest], steps=8)
        assert torch.equal(sg.sample(cfg, x, steps=8)[rest], alone) and alone.isfinite().all()
    assert strength_of(guided(torch.full((3,), bad))) == 1


def test_a_function_is_looked_at_where_it_has_values_and_at_small_noise() -> None:
    flow = sg.FlowSDE(T=1.0)  # lam is -inf at T

    def undefined(level: Any) -> Any:
        return 3 + 0 * level.lam

    assert strength_of(guided(undefined, flow)) == 3
    by = Guided(labelled(flow).given(y=torch.arange(3)), lambda x, level: -x.sum(1), undefined)
    assert strength_of(by) == 3
    for sde, at in ((sg.VPSDE(), 3.3), (sg.EDMSDE(), 3.0), (flow, 0.0)):

        def bump(level: Any, at: float = at) -> Any:
            return 1 + 7 * torch.exp(-((level.lam - at) ** 2))

        assert 7.5 < strength_of(guided(bump, sde)) <= 8


@pytest.mark.parametrize("scale", [-7.0, -0.25, 0.0, 0.3, 1.0, 1.5, 4.0])
def test_a_negative_scale_is_the_same_guidance_with_the_models_exchanged(scale: float) -> None:
    y = torch.tensor([0, 1, 2])
    model, x, level = labelled(sg.VPSDE()).given(y=y), normal(3, 2), sg.VPSDE()(0.4)
    one = CFG(model, scale, {"y": NULL})
    two = CFG(model.given(y=torch.full((3,), NULL)), 1 - scale, {"y": y})
    close(one.output(x, level), two.output(x, level), rtol=1e-6, atol=1e-6)
    assert strength_of(one) == strength_of(two) == max(scale, 1 - scale, 1)
    assert strength_of(Contrast([one.other, model], [scale])) == strength_of(one)
    log_p = Guided(model, lambda x, level: -x.square().sum(1), scale)
    assert strength_of(log_p) == max(abs(scale), 1)


@pytest.mark.parametrize("scales", [(8.0, 8.0), (1.5, 7.5), (7.5, 1.5), (2.0, -3.0), (0.7, 0.2)])
def test_several_models_are_guided_as_far_as_their_weights_go(scales: tuple[float, ...]) -> None:
    """A Contrast is sum_k w_k F_k, and its strength the sum of the positive w_k."""
    model = labelled(sg.VPSDE())
    ladder = [model.given(y=torch.full((1,), k)) for k in range(3)]
    contrast, x, level = Contrast(ladder, scales), normal(1, 2), sg.VPSDE()(0.4)
    w = [1 - scales[0], scales[0] - scales[1], scales[1]]
    F = sum(c * m.output(x, level) for c, m in zip(w, ladder, strict=True))
    close(contrast.output(x, level), F, rtol=1e-5, atol=1e-5)
    assert strength_of(contrast) == pytest.approx(sum(max(c, 0.0) for c in w))


def test_a_contrast_sees_the_guidance_of_every_model() -> None:
    cfg = guided(9.0)
    assert strength_of(Contrast([cfg, cfg.model], [1.5])) == 9
    assert strength_of(Contrast([cfg.model, cfg, cfg.other], [1.5, 0.5])) == 9
    assert Contrast([guided(Interval(9.0, 0.3, 3.0)), cfg.model], [1.5]).jumps

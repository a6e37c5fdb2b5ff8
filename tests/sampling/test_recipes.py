"""What is recommended where nothing is said."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.guidance import CFG, Guided, Interval, Stepwise, Thresholded
from sdegen.guidance.wrapped import strength_of
from sdegen.sampling import recipes
from tests.cases import Plain, Smooth, normal, refused
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
    (lambda level: 1 + 2 * level.t, 3.0),
]


@pytest.mark.parametrize(("scale", "strength"), SCALES)
def test_guided_models_say_how_strongly(scale: Any, strength: float) -> None:
    inner = labelled(sg.VPSDE()).given(y=torch.tensor([0, 1, 2]))
    cfg = CFG(inner, scale, {"y": NULL})
    assert strength_of(cfg) == strength_of(Thresholded(cfg, None, (-1, 1))) == strength
    x = normal(3, 2)
    for steps in (3, 12, 50):
        how = recipes.recommended(steps, strength, callable(scale))
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

    assert [values(n, 4.0) for n in (1, 3, 4, 15, 16, 31, 32, 63, 64, 640)] == [
        *((2, 0), (2, 0), (2, 3), (2, 3), (3, 3), (3, 3), (4, 4), (4, 4), (5, 5), (5, 5))
    ]
    assert values(16, 16.0) == values(8, 8.0) == (2, 3) and values(15, 16.0) == (2, 0)
    assert values(640, 4.0, True) == (2, 3) and values(3, 4.0, True) == (2, 0)
    with refused("strength"):
        recipes.recommended(10, "strong")  # type: ignore[arg-type]

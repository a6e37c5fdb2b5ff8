"""What is recommended where nothing is said."""

from __future__ import annotations

import pytest
import torch

import sdegen as sg
from sdegen.sampling import recipes
from tests.cases import Plain, Smooth, normal, refused

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

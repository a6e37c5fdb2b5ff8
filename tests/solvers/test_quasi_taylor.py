"""Quasi-Taylor steps are DDIM's, to the order of their polynomial, and no more."""

from __future__ import annotations

import pytest
import torch

import sdegen as sg
from sdegen.exact import exact_model
from sdegen.exact.orders import flow_order
from sdegen.solvers import QuasiTaylor
from tests.cases import MIXTURE, SDES, close, closed_form, normal, refused, slopes


@closed_form
@pytest.mark.parametrize("p", [1, 2, 3])
def test_a_step_is_off_from_ddims_by_the_next_order(p: int, sde: sg.LinearSDE) -> None:
    model, errors = exact_model(MIXTURE, sde), []
    middle = (sde(0.9 * sde.T).lam + sde(sde.t_min).lam) / 2
    for h in (0.2, 0.1, 0.05):
        t, s = (sde(sde.time(middle + shift)) for shift in (0.0, h))
        x = t.alpha * MIXTURE.sample(8, torch.Generator().manual_seed(0)) + t.sigma * normal(8, 2)
        a, b = (
            solver.step(sg.Reverse(model), x, t, s).x for solver in (QuasiTaylor(p), sg.DDIM())
        )
        errors.append(float((a - b).abs().max()))
    assert slopes(errors)[-1] == pytest.approx(p + 1, abs=0.1)


def test_it_comes_to_ddim_and_to_its_order() -> None:
    model, x = exact_model(MIXTURE, SDES["vp"]), normal(4, 2)
    close(
        sg.sample(model, x, solver=QuasiTaylor(30), steps=5),
        sg.sample(model, x, solver=sg.DDIM(), steps=5),
        rtol=1e-11,
    )
    assert flow_order(QuasiTaylor(3), SDES["vp"]) == pytest.approx(1, abs=0.1)
    with refused("QuasiTaylor's p must be a whole number >= 1, but it is 0"):
        QuasiTaylor(0)

"""The schedule does not matter: what works in lam gives one x / alpha on every linear SDE.

In y = x / alpha and lam = log(alpha / sigma) the reverse equation is the same for all of them, so
that a method built on these alone cannot tell them apart, at any step size. An order is a limit
and hides a factor that tends to one; this law does not.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import exact_model
from sdegen.solvers.equation import Eta
from tests.cases import BROAD, EVERY, FIXED, MIXTURE, half_of_the_way, normal, run, works_in_time

IN_LAM = {name: solver for name, solver in FIXED.items() if not works_in_time(solver)}
LAM = torch.linspace(-3.0, 4.0, 9, dtype=torch.float64)
"""Eight steps within the reach of every SDE."""


def end(solver: sg.Solver, sde: sg.LinearSDE, eta: Eta) -> Tensor:
    """x / alpha at the walk's end, from the same x / alpha and the same noise."""
    walk = sde.time(LAM)
    top, bottom = sde(walk[[0, -1]]).unbind()
    model = exact_model(MIXTURE, sde)
    noise = sg.noise.Fresh(torch.Generator().manual_seed(0))  # a seed's belongs to its times
    return run(solver, model, top.alpha * normal(4, 2), walk, eta=eta, noise=noise) / bottom.alpha


@pytest.mark.parametrize("name", IN_LAM)
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_schedule_does_not_matter(name: str, every: bool) -> None:
    """At its own eta and at one that changes on the way; at numbers too, of all of them slowly."""
    solver, on = IN_LAM[name], {**EVERY}
    if name not in BROAD:
        del on["marginal"]  # a level as any other's, only made slowly: two solvers tell
    own: list[Eta] = [solver.eta]
    numbers = (0.0, 0.7, 1.0) if every or name in BROAD else ()
    others = [eta for eta in numbers if eta != solver.eta]
    for eta in [*own, *others, half_of_the_way] if solver.traits.any_eta else own:
        want = end(solver, EVERY["vp"], eta)
        for key, sde in on.items():
            off = float((end(solver, sde, eta) - want).abs().max())
            assert off < 1e-8, (key, eta, off)


def test_what_works_in_time_does_see_the_schedule() -> None:
    """The control: the solvers that are left out are left out for a reason."""
    left_out = {name: solver for name, solver in FIXED.items() if works_in_time(solver)}
    assert len(IN_LAM) >= 52 and len(left_out) + len(IN_LAM) == len(FIXED)
    for name, solver in left_out.items():
        ends = [end(solver, EVERY[sde], solver.eta) for sde in ("vp", "edm")]
        assert float((ends[1] - ends[0]).abs().max()) > 1e-5, name

"""Everything with everything: it runs finitely, or is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sdegen as sg
from sdegen.losses.weightings import WEIGHTINGS
from sdegen.model.prediction import PREDICTIONS
from sdegen.model.score import TIME_LABELS
from tests.cases import BROAD, EVERY, FIXED, Pendulum, normal, refused

WELL = Pendulum()


def half(lam: Tensor) -> Tensor:
    """An eta that is a function."""
    return torch.full_like(lam, 0.5)


def may_be(solver: sg.Solver, sde: sg.SDE, walk: str, eta: Any, noise: sg.Noise) -> bool:
    """Whether the equation, the walk and the noise are what the solver can take."""
    linear, discrete = isinstance(sde, sg.LinearSDE), isinstance(sde, sg.DiscreteVPSDE)
    if eta is not None and eta != solver.eta and not solver.traits.any_eta:
        return False
    noisy = (solver.eta if eta is None else eta) != 0
    if (eta is half or solver.traits.needs_marginals or callable(solver.eta)) and not linear:
        return False
    if noisy and solver.traits.needs_path and not noise.path:
        return False
    return walk == "uniform" or (discrete if walk == "leading" else linear)


THREE = ("vp", "discrete", "flow")
"""SDEs with three solvers here, whose ends and grids differ; and with all among the slow tests."""


@pytest.mark.parametrize(
    ("name", "fixed"),
    [
        *(
            pytest.param(
                name, tuple(FIXED), id=name, marks=() if name == "pendulum" else pytest.mark.slow
            )
            for name in (*EVERY, "pendulum")
        ),
        *(pytest.param(name, BROAD, id=f"{name}-three") for name in THREE),
    ],
)
def test_the_whole_product(name: str, fixed: tuple[str, ...]) -> None:
    """Every solver, prediction, walk, eta and noise on an SDE: it runs finitely or is refused."""
    sde, good, bad = EVERY.get(name, WELL), 0, 0
    for predicts in [*PREDICTIONS, "edm"]:
        if sde is WELL and predicts != "score":
            with refused("no marginals"):
                sg.ScoreModel(lambda x, t: 0 * x, sde, predicts)
            continue
        model = sg.ScoreModel(lambda x, t: torch.full_like(x, 0.1), sde, predicts)
        solvers = (
            *(FIXED[each] for each in fixed),
            sg.AdaptiveRK("bosh3"),
            sg.solvers.AdaptiveDPM(2),
            sg.solvers.GottaGoFast(),
        )
        # The prediction is read in one place: for all but one, one walk and one eta are enough.
        several = predicts == ("score" if sde is WELL else "x0")
        cases = (("uniform", None, sg.Seeded(0)),)
        if several:
            cases = (
                *cases,
                *(("uniform", eta, sg.Seeded(0)) for eta in (0.0, 0.7, half)),
                *((walk, None, sg.Brownian(0, sde.T)) for walk in ("karras", "leading")),
            )
        for solver, (walk, eta, noise) in itertools.product(solvers, cases):
            how: dict[str, Any] = {"solver": solver, "walk": walk, "noise": noise, "steps": 2}
            if may_be(solver, sde, walk, eta, noise):
                out = sg.solve(model, (2, 2), eta=eta, **how)
                assert out.x.isfinite().all(), (predicts, solver, walk, eta)
                assert out.status.tolist() == [0, 0]
                good += 1
            else:
                with refused("eta|marginals|alpha|path|grid"):
                    sg.solve(model, (2, 2), eta=eta, **how)
                bad += 1
    assert good > 20 and bad > 5


def test_every_weighting_and_label_on_every_sde() -> None:
    for sde in EVERY.values():
        for name in WEIGHTINGS:
            model = sg.ScoreModel(lambda x, t: 0.1 * x, sde)
            loss = sg.dsm_loss(model, normal(5, 2), weighting=name)
            assert loss.shape == (5,) and loss.isfinite().all() and (loss > 0).all()
        for label in TIME_LABELS:
            model = sg.ScoreModel(lambda x, t: x * t[:, None], sde, time=label)
            assert model(normal(3, 2), sde.T / 2).eps.isfinite().all()


@given(
    batch=st.integers(1, 5),
    shape=st.lists(st.integers(1, 4), max_size=3),
    steps=st.integers(1, 6),
    seed=st.integers(-(2**70), 2**70),
    solver=st.sampled_from(list(FIXED.values())),
    sde=st.sampled_from(list(EVERY.values())),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_shapes_types_and_seeds(
    batch: int,
    shape: list[int],
    steps: int,
    seed: int,
    solver: sg.Solver,
    sde: sg.LinearSDE,
    dtype: torch.dtype,
) -> None:
    model = sg.ScoreModel(lambda x, t: 0.1 * x, sde, "x0")
    x = normal(batch, *shape).to(dtype)
    y = sg.sample(model, x, solver=solver, steps=steps, seed=seed)
    assert y.shape == x.shape and y.dtype == dtype and y.isfinite().all()
    assert torch.equal(y, sg.sample(model, x, solver=solver, steps=steps, seed=seed))

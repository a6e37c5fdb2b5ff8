"""The blend of predictions: its formulas, its order, samples apart, what is refused."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.guidance import CFG
from sdegen.solvers import Blended
from sdegen.solvers.blended import FORMS, discrepancies
from tests.cases import MIXTURE, close, normal, refused

SDE = sg.VPSDE()
MODEL = exact_model(MIXTURE, SDE)


def states(n: int = 6, model: Any = MODEL, **how: Any) -> Tensor:
    """Ends of the blend from fixed starts."""
    return sg.sample(model, normal(n, 2), solver=Blended(**how), walk="focused", steps=8)


# ----------------------------------------------------------------------------------- its formulas


@pytest.mark.parametrize("steps", [1, 2])
def test_before_anything_is_known_a_step_is_that_of_x0(steps: int) -> None:
    """One step has no discrepancy; of two the first begins the second as Multistep's does."""
    kept = []
    plain = sg.Multistep(4, corrector=4, clock="wide")
    for solver in (Blended(), plain):
        how: dict[str, Any] = {"solver": solver, "steps": steps, "path": True}
        kept.append(sg.solve(MODEL, normal(4, 2), **how).path.x[1])
    close(*kept, rtol=1e-12, atol=0)


@pytest.mark.parametrize("predicts", ["eps", "x0", "v"])
def test_a_network_may_write_where_it_wrote(predicts: Any) -> None:
    """One buffer at every call: what is remembered is of the call that it was."""
    held = torch.zeros(4, 2, dtype=torch.float64)

    def net(x: Tensor, t: Tensor) -> Tensor:
        return held.copy_(x).mul_(0.3).add_(t[:, None])

    how: dict[str, Any] = {"solver": Blended(), "steps": 6}
    kept = (sg.ScoreModel(each, SDE, predicts) for each in (net, lambda x, t: net(x, t).clone()))
    close(*(sg.sample(model, normal(4, 2), **how) for model in kept), rtol=1e-12, atol=0)


def test_where_both_predictions_are_one_the_blend_is_either() -> None:
    """Of a point mass x0 never changes: every share leads to the exact end."""
    point = exact_model(Gaussian([0.3, -1.0], [0.0, 0.0]), SDE)
    x = normal(5, 2)
    want = sg.sample(point, x, solver=sg.Multistep(3, clock="wide"), steps=4)
    for power in (0.0, 1.0):
        got = sg.sample(point, x, solver=Blended(power=power, euler_at_final=True), steps=4)
        assert torch.isfinite(got).all()
        if power == 1.0:
            close(got, want, rtol=0, atol=1e-9)


def test_shares_are_those_of_the_formula() -> None:
    """d of two rows known by hand, smoothed, and softmax against the quotient of powers."""
    one, zero = torch.ones(2, 3), torch.zeros(2, 3)
    off = discrepancies([one, one], [zero, one - torch.tensor([[2.0], [4.0]])])
    close(off.exp(), torch.tensor([[1.0, 2.0], [1.0, 4.0]]), rtol=1e-6, atol=0)
    solver = Blended(power=2.0, keep=0.25)
    later = solver.smoothed(off, 2 * off)
    close(later, 1.75 * off, rtol=1e-6, atol=0)
    got = solver.blend([one, zero], off)
    close(got[:, 0], torch.tensor([4 / 5, 16 / 17]), rtol=1e-6, atol=0)


def test_the_better_prediction_gets_the_larger_share() -> None:
    """Of eight atoms that of x0 in the end, of a Gaussian of falling variances the other."""
    g = torch.Generator().manual_seed(0)
    atoms = sg.exact.Empirical(torch.randn(8, 6, generator=g, dtype=torch.float64))
    smooth = Gaussian([0.0] * 6, [k**-1.5 for k in range(1, 7)])
    shares = []
    for problem in (atoms, smooth):
        p = sg.solvers.Reverse(exact_model(problem, SDE))
        levels = sg.walks.levels(SDE, sg.walks.focused(SDE, 12))
        x, memory = normal(8, 6), None
        for t, s in itertools.pairwise(levels):
            x, memory, _ = Blended().step(p, x, t, s, memory)
        assert memory is not None and memory.off is not None
        shares.append(float(torch.softmax(-memory.off, 1)[:, 1].median()))
    assert shares[0] < 0.1 and shares[1] > 0.7, shares


# ------------------------------------------------------------------------------------------- laws


def off(solver: sg.Solver, steps: int) -> float:
    """Against a Gaussian's flow in closed form, over equal steps of lam from -1 to 2."""
    problem = Gaussian([0.3, -0.2], [0.8, 0.05])
    walk = SDE.time(torch.linspace(-1.0, 2.0, steps + 1, dtype=torch.float64))
    x, (top, bottom) = normal(4, 2), SDE(walk[[0, -1]]).unbind()
    got = sg.sample(exact_model(problem, SDE), x, solver=solver, walk=walk)
    return float((got - problem.flow(x, top, bottom)).square().mean().sqrt())


@pytest.mark.parametrize(
    ("order", "corrector", "claimed"), [(1, 2, 2), (2, 2, 2), (3, 3, 3), (4, 4, 4), (5, 5, 5)]
)
def test_orders_are_those_claimed(order: int, corrector: int, claimed: int) -> None:
    """Those of the forms at least: where errors of one order cancel in part, a slope above."""
    solver = Blended(order, corrector)
    assert solver.traits.order == claimed
    # On this walk the first step is as long as the others, and what it leaves is of order 3.
    seen = min(claimed, 3)
    assert seen - 0.15 < math.log2(off(solver, 24) / off(solver, 48)) < seen + 1


def test_the_blend_is_no_worse_than_the_worse_of_its_predictions() -> None:
    how: dict[str, Any] = {"order": 3, "corrector": 3, "clock": "wide"}
    for steps in (8, 20):
        alone = [off(sg.Multistep(**how, prediction=q), steps) for q in ("x0", "straight")]
        assert off(Blended(3, 3), steps) < 1.1 * max(alone)


def test_a_sample_alone_is_the_one_in_the_batch_and_a_nan_stays_its_own() -> None:
    x = normal(5, 2)
    how: dict[str, Any] = {"solver": Blended(), "walk": "focused", "steps": 9}
    whole = sg.sample(MODEL, x, **how)
    for i in range(5):
        close(sg.sample(MODEL, x[i : i + 1], **how), whole[i : i + 1], rtol=1e-12, atol=0)
    x[2, 1] = math.nan
    sick = sg.solve(MODEL, x, **how)
    assert sick.status.tolist() == [0, 0, 1, 0, 0]
    kept = torch.tensor([0, 1, 3, 4])
    close(sick.x[kept], whole[kept], rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(1,), (3, 1), (2, 1, 2, 2)])
def test_states_of_any_shape_in_float32_and_under_inference_mode(shape: tuple[int, ...]) -> None:
    model = sg.ScoreModel(lambda x, t: 0.3 * torch.tanh(x), SDE, predicts="x0")
    with torch.inference_mode():
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        got = sg.sample(model, x, solver=Blended(), walk="focused", steps=7)
    assert got.shape == shape and got.dtype == torch.float32 and torch.isfinite(got).all()
    wide = sg.sample(model, x.double(), solver=Blended(), walk="focused", steps=7)
    close(got.double(), wide, rtol=1e-4, atol=1e-5)


def test_a_step_is_one_network_call() -> None:
    solution = sg.solve(MODEL, normal(3, 2), solver="blended", nfe=6)
    assert solution.nfe.tolist() == [6, 6, 6]
    assert solution.solver == Blended(4, 4, euler_at_final=True)
    many = sg.sampling.Plan.of(MODEL, (2, 2), solver="blended", nfe=40).solver
    assert many == Blended(5, 5)


# ---------------------------------------------------------------------------------------- refused


def asked(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """A network that is told a condition."""
    return x * y[:, None]


def test_what_it_cannot_do_is_refused() -> None:
    guided = CFG(sg.ScoreModel(asked, SDE, "x0").given(y=torch.ones(2)), 3.0, {"y": 0})
    with refused("is for models that are not guided, but this one is, of strength 3"):
        sg.sample(guided, (2, 2), solver="blended", nfe=8)
    with refused("Blended integrates the equation with eta = 0, but eta = 1"):
        sg.sample(MODEL, (2, 2), solver=Blended(), steps=3, eta=1.0)
    for settings, said in (
        ({"corrector": 0}, "corrector is at least 2"),
        ({"corrector": 1}, "backward Euler"),
        ({"order": 0}, "Blended's order"),
        ({"power": -1.0}, "power must be at least 0"),
        ({"keep": 1.0}, "keep must be at least 0 and below 1"),
    ):
        with refused(said):
            Blended(**settings)  # type: ignore[arg-type]
    with pytest.raises(sg.programs.NotLinear, match="how well they predicted"):
        sg.programs.traced(Blended(), SDE, sg.walks.focused(SDE, 3), 0.0)
    assert len(FORMS) == 2

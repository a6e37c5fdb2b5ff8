"""Volumes: slices by themselves, what joins them, and a proximal map against convex duality."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear
from torch import Tensor

import sdegen as sg
from sdegen.exact import Empirical, Gaussian, exact_model, posterior
from sdegen.guidance import CFG, TV, Average, Mask, Refined, Sliced, pigdm
from tests.cases import Plain, close, normal, refused
from tests.labelled import NULL, SDE, labelled

LEVEL = SDE(0.4)
SLICES = exact_model(Empirical(normal(6, 2, 3, 5, seed=1)), SDE)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_slices_lie_along_an_axis(dim: int) -> None:
    """Of volumes whose slices are data: each as the model says of it alone."""
    volume = normal(4, 2, 3, 5).unsqueeze(dim).repeat_interleave(3, dim)
    volume = volume + 0.3 * normal(*volume.shape, seed=2)
    got = Sliced(SLICES, dim, 3)(volume, LEVEL).x0
    for k in range(3):
        close(got.select(dim, k), SLICES(volume.select(dim, k), LEVEL).x0, rtol=1e-12, atol=1e-14)
    for t in (torch.tensor([0.1, 0.3, 0.5, 0.9]).double(),):
        each = torch.cat([Sliced(SLICES, dim, 3)(volume[i : i + 1], t[i]).x0 for i in range(4)])
        close(Sliced(SLICES, dim, 3)(volume, t).x0, each, rtol=1e-12, atol=1e-14)


def test_what_was_measured_of_all_slices_joins_them() -> None:
    """N(0, I) slices and an operator across them: the exact posterior of the whole volume."""
    slices = exact_model(Gaussian([0.0] * 4, [1.0] * 4), SDE)
    x, A = normal(3, 2, 4), Average(2)
    y = A(normal(3, 2, 4, seed=1))
    whole = Gaussian([0.0] * 8, [1.0] * 8)
    seen = pigdm(Sliced(slices, 1, 2), y, A, 0.3, iterations=2)(x, LEVEL).x0
    for i in range(3):
        want = posterior(whole, lambda v: A(v.reshape(-1, 2, 4)), y[i], 0.3)
        close(seen[i].flatten(), want.denoise(x[i].reshape(1, 8), LEVEL)[0], rtol=1e-7, atol=1e-9)


def test_an_evaluation_of_each_slice_is_counted() -> None:
    """So that budgets are kept: 20 evaluations of five slices are four steps."""
    model = Sliced(exact_model(Gaussian([0.0, 0.0], [1.0, 0.5]), SDE), 1, 5)
    assert model.cost == 5 and Sliced(model, 1, 2).cost == 10
    before = model.nfe
    model.output(normal(3, 5, 2), LEVEL)
    assert model.nfe - before == 5
    done = sg.solve(model, (3, 5, 2), nfe=20, seed=0)
    assert done.walk.steps == 4 and done.nfe.tolist() == [20] * 3


def test_conditions_of_volumes_are_told_to_their_slices() -> None:
    x, y = normal(3, 4, 2), torch.tensor([2, 0, 1])
    inner = labelled(SDE)
    got = Sliced(inner, 1, 4).given(y=y)(x, LEVEL).x0
    for i in range(3):
        close(got[i], inner.given(y=y[i].expand(4))(x[i], LEVEL).x0)
    each = torch.arange(12) % 3  # told before, they are the slices' own
    got = Sliced(inner.given(y=each), 1, 4)
    close(got(x, LEVEL).x0.flatten(0, 1), inner.given(y=each)(x.flatten(0, 1), LEVEL).x0)
    some = torch.tensor([2, 0])
    close(got.take(some)(x[some], LEVEL).x0, got(x, LEVEL).x0[some])


Y, SCALES = torch.tensor([2, 0, 1]), torch.tensor([0.5, 3.0, 2.0]).double()


@pytest.mark.parametrize("null", [NULL, torch.tensor([1, 3, 0])], ids=["all", "each"])
@pytest.mark.parametrize("together", [False, True])
def test_guided_volumes_are_volumes_of_guided_slices(null: Any, together: bool) -> None:
    """CFG(Sliced) is Sliced(CFG), and stays so of some volumes and with other conditions."""
    each, inner = (
        torch.arange(3).repeat_interleave(4),
        labelled(SDE).given(y=Y.repeat_interleave(4)),
    )
    wide = null[each] if isinstance(null, Tensor) else null
    slices = CFG(inner, SCALES[each], {"y": wide}, together=together)
    one, two = CFG(Sliced(inner, 1, 4), SCALES, {"y": null}), Sliced(slices, 1, 4)
    x, some, other = normal(3, 4, 2), torch.tensor([2, 0]), torch.tensor([1, 1, 2])
    for a, b, at in (
        (one, two, x),
        (one.take(some), two.take(some), x[some]),
        (one.given(y=other), two.given(y=other), x),
        (one.given(y=other).take(some), two.take(some).given(y=other[some]), x[some]),
    ):
        close(a.output(at, LEVEL), b.output(at, LEVEL), rtol=1e-12, atol=1e-13)
        assert torch.equal(a.conditions["y"], b.conditions["y"])
    assert (one.cost, two.cost) == (8, 8)
    assert sg.solve(one, x, nfe=24).nfe.tolist() == [24] * 3
    close(sg.sample(one, x, nfe=24), sg.sample(two, x, nfe=24), rtol=1e-10, atol=1e-11)


def test_conditions_are_said_of_volumes() -> None:
    """So that ``given`` undoes what ``conditions`` says; what slices of one volume do not share,
    no volume has, and what is for all samples alike stays as it is."""
    seen: list[dict[str, Any]] = []

    def net(x: Tensor, t: Tensor, **given: Any) -> Tensor:
        seen.append(given)
        return x.tanh()

    model, pair = sg.ScoreModel(net, SDE, "x0"), {"a": normal(3, 5), "b": (normal(3, 1), Y)}
    told = {"y": Y, "names": ["u", "v", "w"], "both": pair, "w": 0.3, "more": torch.ones(7)}
    shared = {"more": told["more"]}
    volumes = Sliced(model, 1, 4).given(shared, **{n: v for n, v in told.items() if n != "more"})
    own = volumes.model.given(place=torch.arange(4).repeat(3))  # type: ignore[attr-defined]
    volumes = Sliced(own, 1, 4)
    known = dict(volumes.conditions)
    assert list(known) == ["y", "names", "both", "w", "more"] and volumes.shared == {"more"}
    assert known["names"] == told["names"] and torch.equal(known["both"]["b"][1], Y)
    volumes.output(normal(3, 4, 2), LEVEL)
    known.pop("more")
    volumes.given(shared, **known).output(normal(3, 4, 2), LEVEL)
    one, two = seen
    assert one.keys() == two.keys() and torch.equal(one["place"], two["place"])
    assert one["names"] == two["names"] == ["u"] * 4 + ["v"] * 4 + ["w"] * 4
    for a, b in ((one["y"], two["y"]), (one["both"]["a"], two["both"]["a"])):
        assert torch.equal(a, b) and len(a) == 12
    guided = CFG(volumes, 2.0, {"y": 0, "more": 2.0})
    assert torch.equal(guided.other.conditions["more"], torch.full((7,), 2.0))  # type: ignore[attr-defined]
    assert guided.take(torch.tensor([1])).output(normal(1, 4, 2), LEVEL).shape == (1, 4, 2)


def solved(c: Tensor, weight: float) -> Tensor:
    """argmin |x - c|^2 / 2 + weight |D x|_1 of a vector: c - D^T w, w the bounded dual."""
    D = np.diff(np.eye(len(c)), axis=0)
    w = lsq_linear(D.T, c.numpy(), (-weight, weight), tol=1e-14, max_iter=1000).x
    return c - torch.from_numpy(D.T @ w)


def test_two_slices_are_a_soft_threshold() -> None:
    """Their mean stays, and their difference shrinks by 2 weight, with data or without."""
    x0, weight = normal(5, 1, 2, 3, 3), 0.2
    y = normal(5, 1, 2, 3, 3, seed=1)
    every = Mask(torch.ones(1, 1, 2, 3, 3, dtype=torch.bool))
    how: dict[str, Any] = {"iterations": 50, "steps": 2}
    plain = TV(None, None, weight, 2, rho=0.5, **how)
    joint = TV(every, y, weight, 2, gamma=3.0, rho=2.0, **how)
    for tv, c, w in ((plain, x0, weight), (joint, (x0 + 3 * y) / 4, weight / 4)):
        mean, half = c.mean(2, keepdim=True), (c[:, :, 1:] - c[:, :, :1]) / 2
        half = torch.sign(half) * (half.abs() - w).clamp(min=0)
        close(tv(x0), torch.cat([mean - half, mean + half], 2), atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    ("weight", "rho", "n"), [(0.05, 0.3, 30), (0.5, 0.3, 110), (0.5, 1.0, 60), (5.0, 3.0, 60)]
)
def test_lines_of_any_length_are_the_dual_problems(weight: float, rho: float, n: int) -> None:
    """Where iterations lead to is not rho's, which says how many are needed."""
    x0 = normal(3, 9)
    got = TV(None, None, weight, 1, rho=rho, iterations=n, steps=9)(x0)
    close(got, torch.stack([solved(c, weight) for c in x0]), atol=1e-7, rtol=0)


def test_the_objective_falls() -> None:
    """With every iteration of ADMM, each sample's, where rho is not small; down to the least."""
    A, x0 = Average(2), normal(4, 6, 4, 4)
    y = A(normal(4, 6, 4, 4, seed=1))
    values = []
    for n in (1, 2, 3, 4, 6, 9, 13, 20, 60):
        tv = TV(A, y, 0.3, 1, gamma=2.0, rho=3.0, iterations=n)
        values.append(tv.objective(tv(x0), x0))
    for before, after in pairwise(values):
        assert bool((after < before).all())
    assert bool((values[-1] < tv.objective(x0, x0)).all())
    near = tv(x0) + 0.05 * normal(*x0.shape, seed=3)
    assert bool((tv.objective(near, x0) > values[-1]).all())


def test_nothing_is_kept_from_one_call_to_the_next() -> None:
    A, x0 = Average(2), normal(3, 5, 4, 4)
    tv = TV(A, A(x0.flip(0)), 0.3, 1, iterations=7)
    first = tv(x0)
    tv(10 * x0.flip(0))
    assert torch.equal(tv(x0), first)
    for i in range(3):
        alone = tv.take(torch.tensor([i]))(x0[i : i + 1])
        close(alone, first[i : i + 1], rtol=1e-11, atol=1e-12)


def test_refined_is_the_map_of_x0() -> None:
    """And x is its x0 and eps still, for every solver's view."""
    volumes, tv = Sliced(SLICES, 2, 4), TV(None, None, 0.1, 2)
    x = normal(2, 2, 4, 3, 5)
    p = Refined(volumes, tv)(x, LEVEL)
    close(p.x0, tv(volumes(x, LEVEL).x0), rtol=1e-12, atol=1e-13)
    close(LEVEL.alpha * p.x0 + LEVEL.sigma * p.eps, x, rtol=1e-12, atol=1e-13)
    clipped = Refined(volumes, lambda x0: x0.clamp(-0.1, 0.1))
    assert torch.equal(clipped.take(torch.tensor([1]))(x[1:], LEVEL).x0, clipped(x, LEVEL).x0[1:])


def test_what_is_no_volume_is_refused() -> None:
    model = Sliced(SLICES, 2, 3)
    before = model.nfe
    for shape in ((4, 2, 5, 3, 5), (4, 2)):
        with refused("Sliced takes volumes of 3 slices along axis 2, but they are"):
            model.output(normal(*shape), LEVEL)
    assert model.nfe == before
    for dim, slices in ((0, 3), (2, 0), (1.5, 3)):
        with refused("must be a whole number >= 1"):
            Sliced(SLICES, dim, slices)  # type: ignore[arg-type]
    with refused("Refined takes a function of x0"):
        Refined(model, 0.3)  # type: ignore[arg-type]
    with refused("Refined changes E.x0 . x., which needs alpha and sigma, but Plain"):
        Refined(sg.ScoreModel(lambda x, t: x, Plain(), "score"), lambda x0: x0)


def test_what_has_no_minimum_is_refused() -> None:
    A, y = Average(2), normal(1, 3, 2, 2)
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("A and y, or neither", {"A": A, "y": None}),
        ("A is an Operator, not", {"A": lambda x: x, "y": y}),
        ("TV's weight must be a number >= 0", {"weight": -0.1}),
        ("TV's gamma must be a number >= 0", {"gamma": -1.0}),
        ("ADMM has rho > 0, but rho = 0", {"rho": 0}),
        ("TV's dim must be a whole number >= 1, but it is 0", {"dim": 0}),
        ("TV's iterations must be a whole number >= 1", {"iterations": 0}),
        ("TV's steps must be a whole number >= 1", {"steps": 0}),
    ]
    for message, how in wrong:
        with refused(message):
            TV(**{"A": A, "y": y, "weight": 0.1, "dim": 1, **how})
    tv = TV(A, y, 0.1, 1)
    with refused(r"A makes \(2, 3, 4, 4\) of states \(2, 3, 8, 8\), but y is \(1, 3, 2, 2\)"):
        tv(normal(2, 3, 8, 8))
    with refused(r"States \(2, 3\) have no axis 2"):
        TV(None, None, 0.1, 2)(normal(2, 3))

"""STORK: what its stages make of a step, against the polynomials and the method that they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import exact_model
from sdegen.sde.level import Level
from sdegen.solvers import STORK
from sdegen.solvers.exponential import NoiseForm, StraightForm, lagrange
from sdegen.solvers.stabilised import EQUATIONS, gegenbauer, lagrange_at
from tests.cases import MIXTURE, SDES, close, normal, refused, slopes
from tests.solutions import flow_errors


def test_its_stages_are_gegenbauers_polynomial() -> None:
    """dy/du = z y over u = 1: sum_j of C_j^(3/2) (1 + pace z) is e^z to second order, and at most
    1 in size as far as -(n + 4)(n - 1) / 3, and no further."""
    for n in (2, 3, 5, 20, 50):
        end = (n + 4) * (n - 1) / 3

        def gain(z: Tensor, n: int = n) -> Tensor:
            none = torch.zeros(n, 0, len(z), dtype=torch.float64)
            return gegenbauer(torch.ones(()).double(), z.expand(n, -1), none)[0]

        z = torch.tensor([-2e-2, -1e-2], dtype=torch.float64)
        off = (gain(z) - z.exp()).abs()
        assert abs(math.log2(float(off[0] / off[1])) - 3) < 0.1
        inside = gain(-torch.linspace(0, end, 400, dtype=torch.float64))
        assert float(inside.abs().max()) < 1 + 1e-9
        assert float(gain(torch.tensor([-1.3 * end - 0.5], dtype=torch.float64)).abs()) > 1


@pytest.mark.parametrize("stages", [2, 7, 50])
def test_on_a_straight_flow_it_is_a_quadrature(stages: int) -> None:
    """Whatever the stages are stable for: of u's moments over the step the first two are right,
    the third is not, where the exact integral of the same three values has it."""
    sde = sg.FlowSDE(T=1.0)
    levels = sg.walks.levels(sde, torch.tensor([0.9, 0.8, 0.65, 0.5], dtype=torch.float64))

    def end(solver: sg.Solver, power: int) -> float:
        """Of u = (0.65 - tau)^power: how far y goes in the last step."""

        def net(x: Tensor, t: Tensor) -> Tensor:
            return (0.65 - t[:, None]) ** power * torch.ones_like(x)

        model, memory = sg.ScoreModel(net, sde, predicts="velocity"), None
        p, x = sg.Reverse(model, 0.0), torch.zeros(1, 1, dtype=torch.float64)
        for t, s in pairwise(levels):
            before = x
            x, memory, *_ = solver.step(p, x, t, s, memory)
        return float(before - x)

    h = 0.15
    for power, wanted in enumerate((h, h**2 / 2)):
        assert abs(end(STORK(stages=stages), power) - wanted) < 1e-12
    exact = sg.Multistep(3, prediction="straight", clock="tau")
    assert abs(end(exact, 2) - h**3 / 3) < 1e-12
    assert abs(end(STORK(stages=stages), 2) - h**3 / 3) > 0.05 * h**3
    wrong = end(STORK(stages=stages, published=True), 1) / h**2
    assert wrong < 0.49 and (stages != 50 or wrong > 0.489)


THREE_EIGHTHS = (
    [0.0, 1 / 3, 2 / 3, 1.0],
    [[], [1 / 3], [-1 / 3, 1.0], [1.0, -1.0, 1.0]],
    [1 / 8, 3 / 8, 3 / 8, 1 / 8],
)
CLASSICAL = (
    [0.0, 0.5, 0.5, 1.0],
    [[], [0.5], [0.0, 0.5], [0.0, 0.0, 1.0]],
    [1 / 6, 1 / 3, 1 / 3, 1 / 6],
)


def fourth(
    prediction: str, values: int, table: tuple[list[float], list[list[float]], list[float]]
) -> Callable[[Any, Tensor, list[Level], list[Tensor]], Tensor]:
    """A step of any method of fourth order whose stages ask the polynomial through ``values``."""
    of = EQUATIONS[prediction]
    places, inner, outer = table

    def step(sde: Any, x: Tensor, levels: list[Level], seen: list[Tensor]) -> Tensor:
        *past, t, s = levels
        past, q = [*past, t][-values:], torch.stack(seen[-values:])
        h, y, slopes = of.clock(s) - of.clock(t), x / of.scale(t), list[Tensor]()
        u = of.clock(t) + torch.tensor(places, dtype=torch.float64) * h
        basis = lagrange_at(torch.stack([of.clock(node) for node in past]), u)
        pull, push = of.rates(sde, t, u)
        for j, row in enumerate(inner):
            at = y + h * sum(a * slope for a, slope in zip(row, slopes, strict=True))
            slopes.append(pull[j] * at + push[j] * torch.einsum("k,k...->...", basis[j], q))
        y = y + h * sum(b * slope for b, slope in zip(outer, slopes, strict=True))
        return of.scale(s) * y

    return step


@pytest.mark.parametrize("table", [CLASSICAL, THREE_EIGHTHS])
@pytest.mark.parametrize("values", [2, 3, 4])
def test_stages_of_fourth_order_are_the_exact_integral(values: int, table: Any) -> None:
    """STORK-4's stages are some method's of fourth order: on a straight flow they see no state, so
    that whatever their table they integrate a polynomial of degree 3 exactly."""
    sde = sg.FlowSDE(T=1.0)
    model, seen = exact_model(MIXTURE, sde), list[Tensor]()
    levels = sg.walks.levels(sde, torch.tensor([0.9, 0.8, 0.65, 0.5, 0.42], dtype=torch.float64))
    exact = sg.Multistep(values, prediction="straight", clock="tau")
    p, x, memory = sg.Reverse(model, 0.0), normal(6, 2), None
    for t, s in pairwise(levels):
        before = x
        seen.append(StraightForm().view(model(x, t)))
        x, memory, *_ = exact.step(p, x, t, s, memory)
    close(x, fourth("straight", values, table)(sde, before, levels, seen), rtol=1e-12)


def test_stages_of_fourth_order_are_deis_to_their_own_order() -> None:
    """Of eps in t on VP a step of STORK-4 is off DEIS' exact integral by h^5 alone."""
    sde, seen = sg.VPSDE(), [normal(6, 2) for _ in range(3)]
    p, off, x = sg.Reverse(exact_model(MIXTURE, sde), 0.0), list[float](), normal(6, 2)
    for h in (0.04, 0.02, 0.01):
        times = 0.5 - h * torch.arange(4, dtype=torch.float64)
        levels = sg.walks.levels(sde, times)
        ours = fourth("eps", 3, CLASSICAL)(sde, x, levels, seen)
        nodes = levels[2::-1]
        weights = lagrange(p, NoiseForm(), nodes, *levels[2:], "t")
        exact = levels[3].alpha / levels[2].alpha * x
        exact = exact + sum(w * q for w, q in zip(weights, seen[::-1], strict=True))
        off.append(float((ours - exact).norm()))
    assert all(slope > 4.75 for slope in slopes(off)), off


def test_on_eps_it_is_deis_by_another_integral() -> None:
    """The same values and polynomial: the difference falls as the stages' own order says."""
    sde = sg.VPSDE()
    model, x = exact_model(MIXTURE, sde), normal(16, 2)
    far = []
    for n in (32, 64):
        ours = sg.sample(model, x, solver=STORK(prediction="eps"), steps=n)
        far.append(float((ours - sg.sample(model, x, solver=sg.solvers.DEIS(3), steps=n)).norm()))
    assert slopes(far)[0] > 1.5 and far[1] < 0.2


@pytest.mark.parametrize(
    "solver",
    [STORK(1), STORK(2), STORK(2, prediction="eps"), STORK(2, stages=5, published=True)],
    ids=str,
)
def test_values_give_the_order_and_the_published_places_take_it(solver: STORK) -> None:
    (slope,) = slopes(flow_errors(solver, SDES["vp"], (48, 96), eta=0.0))
    assert abs(slope - solver.traits.order) < 0.25, slope


def test_it_is_the_stages_of_the_authors_code() -> None:
    """One step of theirs, stage by stage on states, from a Taylor polynomial by differences:
    even steps of a straight flow, as ``published`` has it."""
    sde, n, h = sg.FlowSDE(T=1.0), 50, 0.1
    seen: list[Tensor] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(torch.sin(3 * x + t[:, None]))
        return seen[-1]

    model = sg.ScoreModel(net, sde, predicts="velocity")
    times = torch.tensor([0.9, 0.8, 0.7, 0.6], dtype=torch.float64)
    x = normal(4, 2)
    before = sg.solve(model, x, solver=STORK(published=True), walk=times[:3]).x
    after = sg.solve(model, x, solver=STORK(published=True), walk=times).x
    a, b, c = seen[-3:]  # at 0.9, 0.8 and 0.7
    first, second = (4 * b - a - 3 * c) / (2 * h), (a - 2 * b + c) / h**2

    def weight(j: int) -> float:
        if j < 2:
            return (1.0, 1 / 3)[j]
        return 4 * (j - 1) * (j + 4) / (3 * j * (j + 1) * (j + 2) * (j + 3))

    w = 6 / ((n + 4) * (n - 1))
    last, y = before, before - h * w * c
    for j in range(2, n + 1):
        at = 4 / (3 * (n**2 + n - 2)) if j == 2 else ((j - 1) ** 2 + j - 3) / (n**2 + n - 2)
        mu, nu = (
            (2 * j + 1) * weight(j) / (j * weight(j - 1)),
            -(j + 1) * weight(j) / (j * weight(j - 2)),
        )
        d = -at * h
        v = c - d * -first + d**2 / 2 * second
        gamma = -mu * w * (1 - j * (j + 1) * weight(j - 1) / 2)
        turn = mu * y + nu * last + (1 - mu - nu) * before - h * mu * w * v - h * gamma * c
        last, y = y, turn
    close(after, y, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: STORK(0), "STORK's order"),
        (lambda: STORK(stages=1), "STORK's stages"),
        (lambda: STORK(prediction="x0"), "Unknown prediction 'x0'"),
        (
            lambda: sg.sample(
                exact_model(MIXTURE, sg.FlowSDE(T=1.0)),
                normal(2, 2),
                solver=STORK(prediction="eps"),
                steps=4,
            ),
            "no signal left: take prediction='straight'",
        ),
        (
            lambda: sg.sample(
                exact_model(MIXTURE, sg.VPSDE()), normal(2, 2), solver=STORK(), steps=4, eta=1.0
            ),
            "eta",
        ),
    ],
)
def test_refusals(make: object, words: str) -> None:
    with refused(words):
        make()  # type: ignore[operator]

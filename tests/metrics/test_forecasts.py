"""Scores of forecasts, against closed forms and their own definition."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from sdegen.metrics import covered, crps
from tests.cases import close, normal, refused


def test_of_a_sure_forecast_the_score_is_the_distance() -> None:
    y = normal(5)
    close(crps(torch.full((7, 5), 0.3, dtype=torch.float64), y), (y - 0.3).abs())


def test_the_score_is_the_integral_of_squared_distribution_functions() -> None:
    """With all pairs, own ones too, it is that of the empirical law; without them a part more."""
    x, y = normal(9).tolist(), 0.4

    def squared(z: float) -> float:
        return (sum(v <= z for v in x) / 9 - (y <= z)) ** 2

    ends = sorted([*x, y])
    area = sum(quad(squared, a, b)[0] for a, b in pairwise(ends))
    pairs = torch.tensor(x).double()
    spread = float((pairs[:, None] - pairs).abs().sum()) / 2
    fair = crps(pairs[:, None], torch.tensor([y]))
    close(fair, torch.tensor([area + spread / 81 - spread / 72]), rtol=1e-6)


def test_the_score_is_without_bias() -> None:
    """The mean over many small ensembles is the closed form of a normal law."""
    y, z = 0.7, normal(3, 200_000)
    made = crps(1.5 * z, torch.full((200_000,), y))
    u = y / 1.5
    exact = 1.5 * (u * (2 * norm.cdf(u) - 1) + 2 * norm.pdf(u) - torch.pi**-0.5)
    assert abs(float(made.mean()) - exact) < 5 * float(made.std()) / 200_000**0.5


def test_the_score_is_proper_and_scales() -> None:
    x, y = normal(50, 2000), normal(2000, seed=1)
    best = float(crps(x, y).mean())
    assert all(float(crps(a * x + b, y).mean()) > best for a, b in ((0.5, 0), (2, 0), (1, 0.5)))
    close(crps(2 * x + 3, 2 * y + 3), 2 * crps(x, y), rtol=1e-9)
    order = torch.randperm(50)
    close(crps(x[order], y), crps(x, y), rtol=1e-9)


def test_a_band_of_all_but_the_outermost() -> None:
    """39 draws: a band of 95 % goes from the least to the largest, 19: one of 90 %."""
    x = normal(39, 1)
    y = torch.stack([x.min(), x.max(), x.min() - 1e-9, x.max() + 1e-9])
    assert covered(x.expand(-1, 4), y).tolist() == [True, True, False, False]
    assert covered(x[:19].expand(-1, 1), x[:19].max()[None], 0.9).tolist() == [True]


def test_a_band_holds_its_share_of_further_draws() -> None:
    """Just so, whatever the law: 79 draws of 2 and 78 of 80 places, with heavy tails."""
    n = 40_000
    x = normal(80, n).exp() ** 3
    held = covered(x[:79], x[79])
    assert abs(float(held.double().mean()) - 0.95) < 5 * (0.95 * 0.05 / n) ** 0.5
    half = covered(x[:79], x[79], 0.5)
    assert abs(float(half.double().mean()) - 0.5) < 5 * 0.5 / n**0.5


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    x = normal(39, 3)
    with refused(r"n >= 2, but they are \(1, 3\) of \(3,\)"):
        crps(x[:1], x[0])
    with refused("Draws are"):
        crps(x, x[0, :2])
    with refused("not finite"):
        crps(x, x[0] / 0)
    with refused("0.95 takes 39 draws or more, but there are 38"):
        covered(x[:38], x[0])
    with refused(r"a share in \(0, 1\)"):
        covered(x, x[0], 1.0)
    monkeypatch.setitem(sys.modules, "scoringrules", None)
    with refused(r"sdegen\[series\]"):
        crps(x, x[0])


def test_as_many_draws_as_one_likes() -> None:
    """Pairs of 200,000 draws would take 320 GB: the closed form of a normal law, far and near."""
    z = normal(200_000, 1)
    for m, s, y in ((0.0, 1.0, 0.0), (2.0, 0.3, 1.0), (-1e6, 5.0, -1e6 + 10)):
        u = (y - m) / s
        exact = s * (u * (2 * norm.cdf(u) - 1) + 2 * norm.pdf(u) - torch.pi**-0.5)
        close(crps(m + s * z, torch.tensor([y]).double()), [exact], rtol=5e-3)


def test_two_draws_and_none_of_them_right() -> None:
    close(crps(torch.tensor([[0], [2]]), torch.tensor([1])), [0.0])
    close(crps(torch.tensor([[0.0], [1.0]]), torch.tensor([3.0])), [2.0])

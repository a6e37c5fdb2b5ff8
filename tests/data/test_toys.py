"""Toys of the plane: what is drawn is what the definitions say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, spatial, stats
from sklearn import datasets as sklearn_datasets

from sdegen.data import (
    toy,
)
from sdegen.data.toys import TOYS
from tests.cases import refused_with

N = 20000


def same_law(x: Any, y: Any) -> bool:
    """Whether two samples (n, 2) agree along each of six directions (Kolmogorov-Smirnov)."""
    angle = torch.arange(6) * math.pi / 6
    direction = torch.stack([angle.cos(), angle.sin()]).double()
    a, b = (torch.as_tensor(z).double() @ direction for z in (x, y))
    return min(stats.ks_2samp(a[:, d], b[:, d]).pvalue for d in range(6)) > 1e-3


# E|x|^2 / 2 worked out in the docstrings, or here where the coordinates differ.
MOON = (0.75 + 0.01, (1.25 - 2 / math.pi) / 2 - 1 / 16 + 0.01)
ROLL = tuple(
    integrate.quad(lambda t, f=f: (t * f(t)) ** 2 / (3 * math.pi), 1.5 * math.pi, 4.5 * math.pi)[0]
    for f in (math.cos, math.sin)
)
VARIANCE = {
    "gaussians8": (0.51, 0.51),
    "moons": MOON,
    "checkerboard": (1 / 3, 1 / 3),
    "swissroll": (
        (ROLL[0] - 4) / 100 + 0.0025,
        (ROLL[1] - 4 / (9 * math.pi**2)) / 100 + 0.0025,
    ),
    "pinwheel": (0.55, 0.55),
}


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_standardised_by_analytic_constants(name: str) -> None:
    x = toy(name, N, seed=3).x.double()
    variance = torch.tensor(VARIANCE[name], dtype=torch.float64)
    assert ((variance > 0.5**2) & (variance < 1)).all()
    assert (x.mean(0).abs() < 4 * (variance / N).sqrt()).all()
    error = (x**2).std(0) / math.sqrt(N)
    assert ((x.var(0) - variance).abs() < 4 * error).all()


@pytest.mark.parametrize("name", TOYS)
def test_toys_follow_their_seed_and_leave_the_global_one(name: str) -> None:
    before = torch.get_rng_state()
    a, b, other = toy(name, 100, 7), toy(name, 100, 7), toy(name, 100, 8)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)
    assert not (a.x == other.x).any()
    assert a.shape == (2,) and len(a) == 100 and len(toy(name, 1)) == 1


@pytest.mark.parametrize(
    "name, classes",
    [("gaussians8", 8), ("moons", 2), ("checkerboard", 0), ("swissroll", 0), ("pinwheel", 5)],
)
def test_toy_classes_are_equally_likely(name: str, classes: int) -> None:
    data = toy(name, N)
    assert data.classes == classes
    if classes:
        assert stats.chisquare(data.y.bincount()).pvalue > 1e-3
    else:
        assert not data.y.any()


def test_gaussians8_is_a_standard_normal_of_scale_a_tenth_about_its_centres() -> None:
    data = toy("gaussians8", N)
    centre = np.exp(1j * np.arange(8) * math.pi / 4)[data.y]
    offset = (data.x[:, 0].numpy() + 1j * data.x[:, 1].numpy() - centre) / 0.1
    assert stats.kstest(np.abs(offset) ** 2, stats.chi2(2).cdf).pvalue > 1e-3
    assert stats.kstest(np.angle(offset), stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3
    assert np.abs(np.abs(centre + 0.1 * offset) - 1).max() < 0.1 * math.sqrt(2 * math.log(1e3 * N))


def test_moons_agree_with_scikit_learn() -> None:
    x, y = sklearn_datasets.make_moons(N, noise=0.1, random_state=0)
    data = toy("moons", N)
    for label in (0, 1):
        assert same_law(data.x[data.y == label], x[y == label] - [0.5, 0.25])


def test_swissroll_agrees_with_scikit_learn() -> None:
    x, _ = sklearn_datasets.make_swiss_roll(N, noise=0.5, random_state=0)
    theirs, ours = (x[:, [0, 2]] - [2, 2 / (3 * math.pi)]) / 10, toy("swissroll", N).x.numpy()
    assert same_law(ours, theirs)
    t = np.linspace(1.5 * math.pi, 4.5 * math.pi, 5000)
    spiral = np.stack([t * np.cos(t) - 2, t * np.sin(t) - 2 / (3 * math.pi)], 1) / 10
    off_it = [spatial.cKDTree(spiral).query(z)[0] for z in (ours, theirs)]
    assert stats.ks_2samp(*off_it).pvalue > 1e-3


def test_checkerboard_is_uniform_on_squares_of_one_colour() -> None:
    x = toy("checkerboard", N).x.double()
    cell = ((x + 1) * 2).floor().long()
    assert cell.min() == 0 and cell.max() == 3
    assert (cell.sum(1) % 2 == 0).all()
    counts = (4 * cell[:, 0] + cell[:, 1]).bincount()
    assert (counts > 0).sum() == 8
    assert stats.chisquare(counts[counts > 0]).pvalue > 1e-3
    for inside in ((x + 1) * 2 - cell).unbind(1):
        assert stats.kstest(inside.numpy(), "uniform").pvalue > 1e-3


def test_pinwheel_arms_untwisted_are_gaussians() -> None:
    data = toy("pinwheel", N)
    z = np.array([1, 1j]) @ data.x.double().numpy().T * np.exp(-2j * math.pi * data.y.numpy() / 5)
    r = np.abs(z)
    for _ in range(50):  # r + i s = z exp(-i exp(r) / 4), solved for r by iteration
        r = (z * np.exp(-0.25j * np.exp(r))).real
    s = (z * np.exp(-0.25j * np.exp(r))).imag
    for k in range(5):
        assert stats.kstest(r[data.y == k], stats.norm(1, 0.3).cdf).pvalue > 1e-3
    assert stats.kstest(s, stats.norm(0, 0.1).cdf).pvalue > 1e-3


def test_a_toy_must_be_known_and_have_points() -> None:
    with refused_with("gaussians8, moons, checkerboard, swissroll, pinwheel"):
        toy("spiral")
    with refused_with("n = 0"):
        toy("moons", 0)

"""Precision, recall, density, coverage and the kernel distance, by hand and by closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from sdegen.metrics import coverage, kernel_distance
from tests.cases import close, normal, refused


def by_hand(a: torch.Tensor, b: torch.Tensor, k: int) -> list[float]:
    """The definitions, one pair at a time."""

    def radius(x: torch.Tensor, i: int) -> float:
        far = sorted(float((x[i] - x[j]).norm()) for j in range(len(x)) if j != i)
        return far[k - 1]

    ra, rb = ([radius(x, i) for i in range(len(x))] for x in (a, b))
    d = [[float((p - q).norm()) for q in b] for p in a]
    n, m = range(len(a)), range(len(b))
    precision = sum(any(d[i][j] <= rb[j] for j in m) for i in n) / len(a)
    recall = sum(any(d[i][j] <= ra[i] for i in n) for j in m) / len(b)
    density = sum(d[i][j] <= rb[j] for i in n for j in m) / (k * len(a))
    covered = sum(any(d[i][j] <= rb[j] for i in n) for j in m) / len(b)
    return [precision, recall, density, covered]


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("chunk", [7, 2**24])
def test_they_are_their_definitions(k: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdegen.metrics.neighbours.AT_ONCE", chunk)
    a, b = normal(17, 3), 1.5 * normal(23, 3).flip(0) + 0.5
    close(coverage(a, b, k), by_hand(a, b, k))


def test_the_same_law_is_covered_and_another_is_not() -> None:
    """Of one law the density is 1 and the coverage 1 - 2^-k on average (Naeem et al. 2020, lemma
    1 and 2: the expected coverage is near that of equal numbers)."""
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1500, 2, generator=g) for _ in range(2))
    same = coverage(a, b)
    assert abs(same.density - 1) < 0.06 and abs(same.coverage - (1 - 2**-5)) < 0.02
    assert min(same.precision, same.recall) > 0.9
    narrow = coverage(0.1 * a, b)
    assert narrow.precision > 0.99 and narrow.recall < 0.1 and narrow.coverage < 0.2
    assert coverage(a + 20, b) == (0.0, 0.0, 0.0, 0.0)


def test_the_kernel_distance_of_normals_is_its_closed_form() -> None:
    """In one dimension k(x, y) = (x y + 1)^3 has the features 1, x, x^2, x^3 with weights 1, 3,
    3, 1: the squared MMD is the weighted square of differences of moments."""
    g = torch.Generator().manual_seed(0)
    m, s = 0.4, 1.3
    a = torch.randn(20_000, 1, generator=g).double()
    b = m + s * torch.randn(20_000, 1, generator=g).double()
    moments = [m, m**2 + s**2 - 1, m**3 + 3 * m * s**2]
    exact = 3 * moments[0] ** 2 + 3 * moments[1] ** 2 + moments[2] ** 2
    got = kernel_distance(a, b)
    assert got.blocks == 20 and abs(got.value - exact) < 4 * got.error < 0.5 * exact
    assert kernel_distance(a, b, size=500).blocks == 40


def test_its_error_is_that_of_fresh_draws() -> None:
    """The spread of the value over fresh data is what is reported, and the mean is 0 of one law,
    where a biased estimate is far above."""
    found = [
        kernel_distance(normal(120, 3, seed=i), normal(200, 3, seed=900 + i)) for i in range(150)
    ]
    values = torch.tensor([each.value for each in found])
    reported = torch.tensor([each.error for each in found]).square().mean().sqrt()
    assert found[0].blocks == 10 and abs(float(values.std() / reported) - 1) < 0.25
    assert abs(float(values.mean())) < 4 * float(values.std()) / 150**0.5
    assert math.isnan(kernel_distance(normal(9, 2), normal(9, 2).flip(0), size=9).error)


def test_too_few_are_refused() -> None:
    with refused("5 nearest neighbours need 6 samples or more, but there are 5"):
        coverage(normal(5, 2), normal(9, 2))
    with refused("5 nearest neighbours need 6 data or more, but there are 2"):
        coverage(normal(9, 2), normal(2, 2))
    with refused("k"):
        coverage(normal(9, 2), normal(9, 2), 0)
    with pytest.raises(ValueError):
        kernel_distance(normal(1, 2), normal(9, 2))
    with refused("size"):
        kernel_distance(normal(5, 2), normal(9, 2), size=6)

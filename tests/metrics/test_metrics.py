"""Metrics against closed forms, SciPy and exact transport plans."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sdegen.metrics import (
    ImageClassifier,
    coverage,
    fit_classifier,
    frechet_distance,
    kernel_distance,
    mmd,
    sliced_wasserstein,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def cross(mean: Tensor, scale: Tensor) -> Tensor:
    """2 d points with exactly this mean, and the unbiased covariance diag(scale^2)."""
    arms = torch.diag(scale) * math.sqrt((2 * len(scale) - 1) / 2)
    return torch.cat([mean + arms, mean - arms])


# ------------------------------------------------------------------------------------ Frechet


def test_frechet_of_diagonal_gaussians() -> None:
    mean_a, mean_b = normal(6, seed=1), normal(6, seed=2)
    scale_a, scale_b = normal(6, seed=3).exp(), normal(6, seed=4).exp()
    exact = (mean_a - mean_b).square().sum() + (scale_a - scale_b).square().sum()
    distance = frechet_distance(cross(mean_a, scale_a), cross(mean_b, scale_b))
    assert distance == pytest.approx(exact.item(), rel=1e-12)


def test_frechet_of_two_lines_at_an_angle() -> None:
    """Rank one, covariances that do not commute: overlap |cos| s r, by hand."""
    angle, s, r = 0.7, 2.0, 3.0
    u, v = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(angle), math.sin(angle)])
    a, b = (torch.stack([k * w, -k * w]).double() / math.sqrt(2) for k, w in ((s, u), (r, v)))
    exact = s**2 + r**2 - 2 * s * r * math.cos(angle)
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("sizes", [(200, 150), (400, 9), (5, 4)], ids=str)
def test_frechet_against_scipy(sizes: tuple[int, int]) -> None:
    import numpy as np
    from scipy.linalg import sqrtm

    a = normal(sizes[0], 8, seed=1) @ normal(8, 8, seed=2)
    b = normal(sizes[1], 8, seed=3) @ normal(8, 8, seed=4) + 1
    s_a, s_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    # Where S is singular, SciPy needs the usual ridge; its root is then known to 1e-5 only.
    ridge = 1e-10 * np.eye(8) if min(sizes) <= 8 else 0.0
    root = sqrtm((s_a + ridge) @ (s_b + ridge)).real
    exact = (a.mean(0) - b.mean(0)).square().sum().item() + np.trace(s_a + s_b - 2 * root)
    tolerance = 1e-4 if min(sizes) <= 8 else 1e-10
    assert frechet_distance(a, b) == pytest.approx(exact, rel=tolerance)


@pytest.mark.parametrize("n", [3, 40])
def test_frechet_of_a_translation_is_exact_even_when_singular(n: int) -> None:
    a, shift = normal(n, 10), normal(10, seed=1)
    assert frechet_distance(a, a) < 1e-12
    assert frechet_distance(a, a + shift) == pytest.approx(shift.square().sum().item(), rel=1e-12)


def test_frechet_is_symmetric_and_computes_in_float64() -> None:
    a, b = normal(50, 4), 2 * normal(60, 4, seed=1)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    far = (a + 1e4).float()  # in float32, 1e8 - 1e8 would leave nothing of the spread
    assert frechet_distance(far, far + 1) == pytest.approx(4, rel=1e-3)


# ------------------------------------------------------------------------- sliced Wasserstein


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 12), m=st.integers(1, 12), seed=st.integers(0, 1000))
def test_unequal_sizes_equal_repeated_samples(n: int, m: int, seed: int) -> None:
    """Repeating every sample changes no law, and sets of one size pair in sorted order."""
    a, b = normal(n, 3, seed=seed), normal(m, 3, seed=seed + 1)
    common = math.lcm(n, m)
    repeated = sliced_wasserstein(
        a.repeat(common // n, 1), b.repeat_interleave(common // m, 0), 16, seed
    )
    assert sliced_wasserstein(a, b, 16, seed) == pytest.approx(repeated, rel=1e-12)


@pytest.mark.parametrize(("n", "m"), [(4, 4), (3, 5), (6, 4), (1, 5)])
def test_in_one_dimension_it_is_optimal_transport(n: int, m: int) -> None:
    """The cheapest of all transport plans, found by linear programming."""
    import numpy as np
    from scipy.optimize import linprog

    a, b = normal(n, 1, seed=n), normal(m, 1, seed=10 + m) + 0.5
    cost = torch.cdist(a, b).square().numpy()
    leaves = np.kron(np.eye(n), np.ones(m))
    arrives = np.kron(np.ones(n), np.eye(m))
    plan = linprog(
        cost.ravel(),
        A_eq=np.vstack([leaves, arrives]),
        b_eq=np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)]),
    )
    assert sliced_wasserstein(a, b, projections=3) ** 2 == pytest.approx(plan.fun, rel=1e-9)


@pytest.mark.parametrize("d", [1, 2, 7])
def test_a_translation_costs_its_square_over_the_dimension(d: int) -> None:
    """(u.c)^2 has the mean |c|^2 / d and the variance 2 |c|^4 (d - 1) / (d^2 (d + 2))."""
    a, c, projections = normal(20, d), normal(d, seed=1), 20_000
    square = c.square().sum().item()
    error = square * math.sqrt(2 * (d - 1) / (d * d * (d + 2)) / projections)
    cost = sliced_wasserstein(a, a + c, projections) ** 2
    assert cost == pytest.approx(square / d, abs=4 * error + 1e-12)
    assert sliced_wasserstein(a, a) == 0


def test_images_are_flattened_and_the_order_of_samples_is_nothing() -> None:
    a, b = normal(6, 2, 3, 3), normal(9, 2, 3, 3, seed=1)
    flat = sliced_wasserstein(a, b)
    assert sliced_wasserstein(a.flatten(1), b.flatten(1)) == flat
    assert sliced_wasserstein(a.flip(0), b.roll(2, 0)) == pytest.approx(flat, rel=1e-12)


def test_projections_come_from_the_seed_alone() -> None:
    a, b, state = normal(6, 4), normal(9, 4, seed=1), torch.get_rng_state()
    assert sliced_wasserstein(a, b, seed=3) == sliced_wasserstein(a, b, seed=3)
    assert sliced_wasserstein(a, b, seed=3) != sliced_wasserstein(a, b, seed=4)
    assert torch.equal(torch.get_rng_state(), state)


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("metric", [frechet_distance, sliced_wasserstein])
def test_sets_that_cannot_be_compared_are_refused(
    metric: Callable[[Tensor, Tensor], float],
) -> None:
    good = normal(5, 3)
    for bad in (normal(5, 4), normal(5), normal(5, 3, 1), normal(5, 0)):
        with pytest.raises(ValueError, match=r"the (sets|features) have shapes \(5, 3\) and"):
            metric(good, bad)
    for value in (math.nan, math.inf):
        broken = good.clone()
        broken[2, 1] = value
        with pytest.raises(ValueError, match="second set has values that are not finite"):
            metric(good, broken)
        with pytest.raises(ValueError, match="first set has values that are not finite"):
            metric(broken, good)


@pytest.mark.parametrize(
    "metric", [frechet_distance, sliced_wasserstein, kernel_distance, coverage]
)
def test_bytes_beside_floats_and_what_is_no_tensor_are_refused(
    metric: Callable[[Tensor, Tensor], object],
) -> None:
    """Bytes beside [-1, 1] are of another range, and would be as far as that."""
    good = normal(20, 3)
    for other in (good.byte(), good.to(torch.complex128), good > 0):
        for pair in ((good, other), (other, good)):
            with pytest.raises(ValueError, match=r"numbers of one range: .*from_uint8"):
                metric(*pair)
    with pytest.raises(ValueError, match=r"is a torch.Tensor \(b, \*\), but it is of ndarray"):
        metric(good, good.numpy())
    numbers = (3 * good).round()  # whole ones of a type of their own are as good as floats
    assert metric(good, numbers.long()) == metric(good, numbers)
    assert metric(numbers.abs().byte(), numbers.long()) == metric(numbers.abs(), numbers)


def test_sets_that_are_too_small_are_refused() -> None:
    with pytest.raises(ValueError, match=r"5 and 1 samples, expected 2 or more"):
        frechet_distance(normal(5, 3), normal(1, 3))
    with pytest.raises(ValueError, match=r"0 and 5 samples, expected 1 or more"):
        sliced_wasserstein(normal(0, 3), normal(5, 3))
    with pytest.raises(ValueError, match="median distance of the data is 0"):
        mmd(normal(5, 3), torch.ones(5, 3))
    with pytest.raises(ValueError, match="projections = 0"):
        sliced_wasserstein(normal(5, 3), normal(5, 3), projections=0)
    with pytest.raises(ValueError, match="flatten them first"):
        frechet_distance(normal(5, 3, 1), normal(5, 3, 1))


def test_the_kernel_is_as_wide_as_the_median_of_pairs() -> None:
    """A row with itself is no pair: two rows have one distance, which is the width."""
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    k = [math.exp(-((d / 2) ** 2) / 2) for d in (0, 1, 2)]
    cross = (k[0] + k[2] + k[1] + k[1]) / 4
    assert mmd(a, b) == pytest.approx(max(0.0, k[1] + k[2] - 2 * cross) ** 0.5, abs=1e-6)
    far = (k[2] + k[1] - 0.0) ** 0.5
    assert mmd(a + 1000, b) == pytest.approx(far, rel=1e-5)


# ---------------------------------------------------------------------------------- classifier


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    return x[order], torch.tensor(data.target)[order]


@pytest.fixture(scope="module")
def fitted(digits: tuple[Tensor, Tensor]) -> ImageClassifier:
    x, y = digits
    return fit_classifier(x[:899], y[:899], steps=200)


def test_held_out_digits_are_recognised(
    fitted: ImageClassifier, digits: tuple[Tensor, Tensor]
) -> None:
    x, y = digits[0][899:], digits[1][899:]
    assert not fitted.training
    with torch.no_grad():
        assert (fitted(x).argmax(1) == y).double().mean() > 0.93
        torch.testing.assert_close(fitted.head(fitted.features(x)), fitted(x))


def test_features_tell_real_digits_from_damaged_ones(
    fitted: ImageClassifier, digits: tuple[Tensor, Tensor]
) -> None:
    """The use of it: farther from the data, the farther the samples have been pushed."""
    x = digits[0]
    with torch.no_grad():
        real = fitted.features(x[:899])
        assert real.shape == (899, 64)
        noise = normal(*x[899:].shape).float()
        distances = [
            frechet_distance(real, fitted.features(x[899:] + level * noise))
            for level in (0.0, 0.2, 0.5, 1.0)
        ]
    assert distances == sorted(distances) and distances[1] > 1.2 * distances[0]


def test_the_fit_depends_on_its_seed_alone(digits: tuple[Tensor, Tensor]) -> None:
    x, y = (v[:200] for v in digits)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fit_classifier(x, y, steps=3, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = fit_classifier(x, y, steps=3, seed=5)
    other = fit_classifier(x, y, steps=3, seed=6)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 2, 2), (2, 8, 16)], ids=str)
def test_other_images_and_dtypes_fit_too(shape: tuple[int, int, int]) -> None:
    x, y = normal(6, *shape), torch.tensor([0, 1, 2, 0, 1, 2])
    net = fit_classifier(x, y, steps=2)
    assert net(x).shape == (6, 3) and net.features(x).shape == (6, 64)
    assert net(x).dtype == torch.float64


def test_what_cannot_be_classified_is_refused() -> None:
    x, y = normal(4, 1, 8, 8), torch.tensor([0, 1, 2, 1])
    for images in (x[:, 0], x[:0], x.byte()):
        with pytest.raises(ValueError, match="expected floating-point images"):
            fit_classifier(images, y)
    for labels in (y[:3], y.double(), y - 1):
        with pytest.raises(ValueError, match=r"expected torch\.int64 labels"):
            fit_classifier(x, labels)

"""What is no law is refused, and weights are shares."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.exact import Empirical, Gaussian, GaussianMixture, LowRankMixture, Mixture, exact_model
from tests.cases import close, normal, refused

EYE = torch.eye(2).double()
TURNED = torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double()  # a variance of -1 along an axis
UPPER = torch.tensor([[1.0, 0.5], [0.0, 1.0]]).double()
NAN = float("nan")


def low(**other: Any) -> LowRankMixture:
    parts = {"means": normal(2, 3), "axes": torch.eye(3)[:, :1].double().expand(2, 3, 1),
             "vars": torch.ones(2, 1), "weights": torch.ones(2) / 2, "std": 0.1}  # fmt: skip
    return LowRankMixture(**{**parts, **other})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Gaussian([0.0, 0.0], TURNED), "no variance below 0, but along one axis it is -1"),
        (lambda: Gaussian([0.0, 0.0], [1.0, -1.0]), "no variance below 0"),
        (lambda: Gaussian([0.0, 0.0], [1.0, -1e-4]), "along one axis it is -0.0001"),
        (lambda: Gaussian([0.0, 0.0], [[1.0, 1e-4], [0.0, 1.0]]), "is symmetric and finite"),
        (lambda: Gaussian([0.0, 0.0], UPPER), "A covariance is symmetric and finite"),
        (lambda: Gaussian([0.0, 0.0], [1.0, NAN]), "A covariance is symmetric and finite"),
        (lambda: Gaussian([0.0], [1.0, 1.0]), r"but they are \(1,\) and \(2,\)"),
        (lambda: Gaussian([0.0, 0.0], [[1.0]]), r"but they are \(2,\) and \(1, 1\)"),
        (lambda: Gaussian(0.0, 1.0), r"but they are \(\) and \(\)"),  # type: ignore[arg-type]
        (lambda: GaussianMixture(EYE, torch.stack([EYE, TURNED]), [0.5, 0.5]), "below 0"),
        (lambda: GaussianMixture(EYE, torch.stack([EYE, UPPER]), [0.5, 0.5]), "is symmetric"),
        (lambda: GaussianMixture(EYE, torch.stack([EYE, EYE]), [1.5, -0.5]), "weights are"),
        (lambda: Mixture([[0.0], [1.0]], [1.0, -1.0], [0.5, 0.5]), "stds are numbers >= 0"),
        (lambda: Mixture([[0.0], [1.0]], [1.0, NAN], [0.5, 0.5]), "stds are numbers >= 0"),
        (lambda: Mixture([[0.0], [1.0]], [1.0, 1.0], [1.5, -0.5]), "weights are numbers >= 0"),
        (lambda: Mixture([[0.0], [1.0]], [1.0, 1.0], [0.0, 0.0]), "One weight is above 0"),
        (lambda: low(std=-0.1), "std must be a number >= 0"),
        (lambda: low(vars=-torch.ones(2, 1)), "vars are numbers >= 0"),
        (lambda: low(weights=torch.tensor([NAN, 1.0])), "weights are numbers >= 0"),
    ],
)  # fmt: skip
def test_what_is_no_law_is_refused(make: Any, said: str) -> None:
    with refused(said):
        exact_model(make(), sg.VPSDE())(torch.zeros(1, 2).double(), 0.5)


def test_what_rounding_leaves_below_zero_is_zero() -> None:
    """A covariance of three samples in eight dimensions; one of few directions in many, as
    E[x x^T] - E[x] E[x]^T in float32; and one in half precision."""
    x, wide = normal(3, 8).float(), (3 + normal(20, 4) @ normal(4, 200)).float()
    apart = wide.T @ wide / len(wide) - torch.outer(wide.mean(0), wide.mean(0))
    half = wide.T.cov().half()
    for cov in (x.T.cov(), apart, half, half.numpy()):
        var = Gaussian(torch.zeros(len(cov)), cov).spectrum[1]
        assert float(var.min()) == 0
        close(var.sum(), torch.as_tensor(cov).double().trace(), rtol=1e-3)


def test_weights_may_be_learned() -> None:
    weights = torch.ones(2, requires_grad=True)
    x = torch.zeros(1, 1).double()
    Mixture([[0.0], [1.0]], [1.0, 1.0], weights).log_prob(x).backward()  # type: ignore[arg-type]
    close(weights.grad.sum(), 0.0)  # type: ignore[union-attr]


def test_a_point_is_a_law() -> None:
    law = Gaussian([0.3, 1.0], torch.zeros(2, 2))
    close(law.sample(2), [[0.3, 1.0]] * 2)


def test_weights_are_shares() -> None:
    """Densities of weights of any sum are that of their shares: they integrate to one."""
    x = torch.linspace(-9, 9, 4001).double()[:, None]
    one = Mixture([[-1.0], [2.0]], [0.5, 1.0], [1.0, 3.0])
    means, var = torch.tensor([[-1.0], [2.0]]), torch.tensor([[0.25], [1.0]])
    weights = torch.tensor([1.0, 3.0])
    full = GaussianMixture(means, var[..., None], weights)
    wide = LowRankMixture(means, torch.ones(2, 1, 1), var - 0.01, weights, 0.1)
    for law in (one, full, wide):
        density = law.log_prob(x).exp()  # type: ignore[attr-defined]
        close(torch.trapezoid(density, x[:, 0]), 1.0, rtol=1e-6)
        close(density, one.log_prob(x).exp(), rtol=1e-5)
    level = sg.VPSDE()(torch.tensor(0.3).double())
    points = Empirical(torch.tensor([[-1.0], [2.0]]).double(), weights=torch.tensor([1.0, 3.0]))
    close(torch.trapezoid(points.log_prob(x, level).exp(), x[:, 0]), 1.0, rtol=1e-6)
    assert math.isfinite(float(one.denoise(x, level).sum()))

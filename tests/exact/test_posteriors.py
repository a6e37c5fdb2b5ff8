"""Posteriors in closed form, against quadrature, finite differences and their own samples."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import (
    Empirical,
    Gaussian,
    GaussianMixture,
    LowRankMixture,
    Mixture,
    exact_model,
    posterior,
)
from sdegen.guidance import Average, Blur, Mask, Radon
from tests.cases import MIXTURE, SDES, close, normal, refused, refused_with

COVS = torch.tensor([[[0.5, 0.3], [0.3, 0.4]], [[0.2, -0.1], [-0.1, 0.3]]]).double()
TWO = GaussianMixture(torch.tensor([[-1.0, 0.2], [0.8, 0.5]]).double(), COVS, [0.3, 0.7])
PLANE = {
    "gaussian": Gaussian([0.3, -0.5], COVS[0]),
    "mixture": MIXTURE,
    "full": TWO,
}
A = torch.tensor([[1.0, 0.4]]).double()
Y, STD = torch.tensor([0.7]).double(), 0.3

AXIS = torch.linspace(-6, 6, 241, dtype=torch.float64)
GRID = torch.cartesian_prod(AXIS, AXIS)
CELL = float(AXIS[1] - AXIS[0]) ** 2


def by_quadrature(problem: Any, level: sg.Level, x: Tensor) -> tuple[Tensor, Tensor]:
    """p(y, x_t) and E[x0 | x_t, y] at x (2,), summed over a grid of x0."""
    off = (x - level.alpha * GRID).square().sum(1) / (2 * level.sigma**2)
    misfit = ((GRID @ A.T - Y).square().sum(1)) / (2 * STD**2)
    w = (problem.log_prob(GRID) - misfit - off).exp() * CELL
    w = w / (2 * torch.pi * level.sigma**2) / (2 * torch.pi * STD**2) ** 0.5
    return w.sum(), (w[:, None] * GRID).sum(0) / w.sum()


@pytest.mark.parametrize("name", PLANE)
def test_a_posterior_is_bayes_rule(name: str) -> None:
    """Denoiser and noisy density are those of the prior times the likelihood, by quadrature."""
    problem, level = PLANE[name], SDES["vp"](0.4)
    known = posterior(problem, A, Y, STD)
    far = problem.sample(1, torch.Generator().manual_seed(1))[0]
    evidence = by_quadrature(problem, sg.EDMSDE()(1e3), torch.zeros(2).double())
    # With no information in x_t, p(y, x_t) / p(x_t | y) is p(y).
    y = evidence[0] / known.log_prob(torch.zeros(1, 2).double(), sg.EDMSDE()(1e3))[0].exp()
    for x in (torch.tensor([0.2, 0.4]).double(), far):
        joint, mean = by_quadrature(problem, level, x)
        close(known.denoise(x[None], level)[0], mean, rtol=1e-6, atol=1e-8)
        close(known.log_prob(x[None], level)[0], (joint / y).log(), atol=1e-5, rtol=0)


def test_the_weights_of_a_mixture_are_those_of_the_evidence() -> None:
    """In one dimension: of components far apart the share of each is seen in the density."""
    problem = Mixture([[-3.0], [0.0], [3.0]], [0.3, 0.2, 0.4], [0.2, 0.3, 0.5])
    y = torch.tensor([1.4], dtype=torch.float64)
    known = posterior(problem, torch.ones(1, 1), y, 0.9)
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
    w = (problem.log_prob(x) - (x[:, 0] - y) ** 2 / (2 * 0.81)).exp()
    w = w / w.sum()
    shares = torch.stack([w[abs(x[:, 0] - m) < 1.5].sum() for m in (-3.0, 0.0, 3.0)])
    close(known.weights, shares, atol=2e-3, rtol=0)
    close(known.log_prob(x).exp() * (x[1, 0] - x[0, 0]), w, atol=1e-8)


def posteriors() -> dict[str, Any]:
    images = Empirical(normal(7, 1, 4, 4), chunk=3, weights=torch.arange(7.0))
    return {
        **{name: posterior(each, A, Y, STD) for name, each in PLANE.items()},
        "images": posterior(images, Average(2), 0.3 * normal(1, 1, 2, 2), 0.5),
    }


@pytest.mark.parametrize("name", posteriors())
def test_the_denoiser_is_the_slope_of_the_density(name: str) -> None:
    """Tweedie: sigma^2 grad log p_t = alpha E[x0 | x_t] - x."""
    known, level = posteriors()[name], SDES["vp"](0.3)
    x = level.alpha * known.sample(5, torch.Generator().manual_seed(0))
    x = x + level.sigma * normal(*x.shape)
    score = (level.alpha * known.denoise(x, level) - x) / level.sigma**2
    direction = normal(*x.shape, seed=3)
    up, down = (known.log_prob(x + k * direction, level) for k in (1e-5, -1e-5))
    close((score * direction).flatten(1).sum(1), (up - down) / 2e-5, rtol=1e-5, atol=1e-5)
    alone = torch.cat([known.denoise(each[None], level) for each in x])
    close(known.denoise(x, level), alone, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", PLANE)
def test_draws_have_the_moments_of_the_denoiser(name: str) -> None:
    """E[x0 | x_t, y] is the mean where x_t says nothing."""
    known, n = posterior(PLANE[name], A, Y, STD), 40_000
    x = known.sample(n, torch.Generator().manual_seed(2))
    mean = known.denoise(torch.zeros(1, 2).double(), sg.EDMSDE()(1e4))[0]
    assert bool(((x.mean(0) - mean).abs() < 4 * x.std(0) / n**0.5).all())
    assert float((x @ A.T - Y).square().mean()) < float((PLANE[name].sample(n) @ A.T - Y).var())


def test_a_gaussian_posterior_is_the_joint_gaussian() -> None:
    prior = Gaussian([0.5, -0.3, 0.2], torch.tensor([0.5, 1.0, 0.2]))
    H, y = torch.tensor([[1.0, 0.5, 0], [0, 1, -1]]).double(), torch.tensor([0.2, -0.4]).double()
    got = posterior(prior, H, y, 0.2)
    S = torch.diag(torch.tensor([0.5, 1.0, 0.2])).double()
    P = torch.linalg.inv(torch.linalg.inv(S) + H.T @ H / 0.04)  # the precisions' sum
    mean = P @ (torch.linalg.solve(S, torch.tensor([0.5, -0.3, 0.2]).double()) + H.T @ y / 0.04)
    close(got.cov, P, rtol=1e-10, atol=1e-12)
    close(got.mean, mean, rtol=1e-7)
    again = posterior(posterior(prior, H[:1], y[:1], 0.2), H[1:], y[1:], 0.2)  # one by one
    close(again.cov, P, rtol=1e-9, atol=1e-12)
    close(again.mean, mean, rtol=1e-7)


def test_without_noise_a_value_is_fixed() -> None:
    """Of correlation 0.9, one 1.5: the other N(1.35, 0.19)."""
    pair = Gaussian([0.0, 0.0], [[1.0, 0.9], [0.9, 1.0]])
    known = posterior(pair, torch.tensor([[1.0, 0.0]]), torch.tensor([1.5]), 0.0)
    close(known.mean, [1.5, 1.35], atol=1e-12)
    close(known.cov, [[0.0, 0.0], [0.0, 0.19]], atol=1e-12)


def test_points_are_weighted_by_their_likelihood() -> None:
    """Of any function of them; a weight is a point that is there as often."""
    x, y = normal(6, 3), torch.tensor([0.4, 0.1]).double()

    def square(x: Tensor) -> Tensor:
        return x[:, :2] ** 2

    known = posterior(Empirical(x), square, y, 0.7)
    want = (-(square(x) - y).square().sum(1) / (2 * 0.49)).softmax(0)
    close(known.weights, want)
    counts = torch.tensor([1, 0, 3, 2, 1, 0])
    one = Empirical(x, weights=counts)
    many = Empirical(x.repeat_interleave(counts, 0), chunk=2)
    level, at = SDES["edm"](0.5), normal(4, 3, seed=1)
    close(one.denoise(at, level), many.denoise(at, level), rtol=1e-11)
    close(one.log_prob(at, level), many.log_prob(at, level), rtol=1e-11)
    drawn = one.sample(4000, torch.Generator().manual_seed(0))
    share = torch.stack([(drawn == each).all(1).double().mean() for each in x])
    close(share, counts / 7, atol=0.03, rtol=0)


def test_operators_and_matrices_are_one() -> None:
    mask = torch.tensor([[True, False]])
    y = torch.tensor([[0.4, 0.0]]).double()
    by_operator = posterior(TWO, Mask(mask), y, STD)
    by_matrix = posterior(TWO, torch.tensor([[1.0, 0.0]]), y[0, :1], STD)
    close(by_operator.means, by_matrix.means, rtol=1e-12)
    close(by_operator.weights, by_matrix.weights, rtol=1e-12)


def test_solvers_draw_from_a_posterior() -> None:
    """It is a problem as any other: the flow's end has the posterior's covariance."""
    known = posterior(PLANE["gaussian"], A, Y, STD)
    n = 20_000
    x = sg.sample(exact_model(known, sg.EDMSDE()), (n, 2), nfe=20, seed=0).double()
    close(x.T.cov(), known.cov, rtol=0.05, atol=0.005)


@pytest.mark.parametrize("d", [2, 7])
def test_what_is_fixed_has_no_density(d: int) -> None:
    """Without noise, on the support or off it; a level gives it one, its noise's there."""
    root, H = normal(d, d, seed=5), normal(1, d, seed=6)
    prior = Gaussian(torch.zeros(d), root @ root.T)
    for problem in (
        posterior(prior, H, torch.ones(1), 0.0),
        posterior(Mixture(normal(2, d), [0.4, 0.3], [0.5, 0.5]), H, torch.ones(1), 0.0),
        Mixture(normal(2, d), [0.4, 0.0], [0.5, 0.5]),
        Gaussian(torch.zeros(d), torch.tensor([1.0] * (d - 1) + [0.0])),
    ):
        on = problem.sample(1, torch.Generator().manual_seed(0))
        for level in (None, sg.FlowSDE()(0.0)):
            with refused("There is no density without noise of what has a variance of 0"):
                problem.log_prob(torch.cat([on, on + 1]), level)
        near, far = problem.log_prob(torch.cat([on, on + 1]), sg.EDMSDE()(0.01)).tolist()
        assert -1e7 < far < near
    known = posterior(prior, H, torch.ones(1), 0.0)
    close(known.sample(5) @ H[0], torch.ones(5).double(), atol=1e-6)
    free = torch.linalg.svd(H).Vh[1:]  # beside what is fixed it is a Gaussian of d - 1 numbers
    level, x = sg.EDMSDE()(1e-3), known.sample(3, torch.Generator().manual_seed(1))
    flat = Gaussian(free @ known.mean, free @ known.cov @ free.T)
    want = (
        flat.log_prob(x @ free.T, level) - float(level.sigma.log()) - 0.5 * math.log(2 * math.pi)
    )
    close(known.log_prob(x, level), want, atol=1e-6, rtol=0)


def test_images_are_shown_as_images() -> None:
    """An operator of images takes a Gaussian's states in their own shape; without it the error
    names that, and not linearity."""
    prior = Gaussian(torch.zeros(16), torch.ones(16))
    for operator in (Average(2), Average(4), Blur(torch.ones(3, 3) / 9), Radon((0.0, 45.0))):
        y = operator(normal(1, 1, 4, 4))
        for asked in (operator, lambda x, A=operator: A(x)):
            with refused("does not measure each of .* by itself.*reshape: lambda x: A.x.reshape"):
                posterior(prior, asked, y, 0.1)
        known = posterior(prior, lambda x, A=operator: A(x.reshape(-1, 1, 4, 4)), y, 0.1)
        H = operator(torch.eye(16).double().reshape(16, 1, 4, 4)).flatten(1).T
        close(known.cov, posterior(prior, H, y, 0.1).cov, rtol=1e-9, atol=1e-12)


def test_what_has_no_posterior_is_refused() -> None:
    with refused("A is a matrix .m, 2. of states of 2 numbers, but it is .1, 3."):
        posterior(MIXTURE, torch.ones(1, 3), Y, STD)
    with refused("A makes 1 numbers of a state, but y has 2"):
        posterior(MIXTURE, A, torch.zeros(2), STD)
    with refused("A makes 2 numbers of a state, but y has 1"):
        posterior(Empirical(normal(4, 2)), torch.eye(2), Y, STD)
    for curve in (torch.abs, lambda x: x + 1, torch.sin):
        with refused("of a linear measurement"):
            posterior(TWO, curve, torch.zeros(2), STD)
    with refused("std must be a number >= 0, but it is -1"):
        posterior(TWO, A, Y, -1.0)
    with refused("Points are weighted by .* give a std > 0"):
        posterior(Empirical(normal(4, 2)), A, Y, 0.0)
    with refused_with("is not positive definite with std = 0.0"):
        posterior(TWO, torch.ones(2, 2), torch.zeros(2), 0.0)
    with refused("y is one measurement, a tensor, but it is 0.7"):
        posterior(TWO, A, 0.7, STD)  # type: ignore[arg-type]
    part = torch.ones(1, 2).double()
    low = LowRankMixture(part, part[..., None], part[:, :1], torch.ones(1).double(), 0.1)
    with refused("Gaussian, Mixture, GaussianMixture and Empirical, not of LowRankMixture"):
        posterior(low, A, Y, STD)
    with refused_with(
        "means (k, d), covs (k, d, d) and weights (k,), but they are (1, 2), (2, 2)"
    ):
        GaussianMixture(part, COVS[0], [1.0]).sample(1)
    for weights in (torch.ones(3), -torch.ones(4), torch.zeros(4), torch.full((4,), torch.nan)):
        with refused("Weights of 4 points are"):
            Empirical(normal(4, 2), weights=weights)


@pytest.mark.parametrize("kind", PLANE)
def test_where_nothing_is_seen_it_is_the_prior(kind: str) -> None:
    prior, level, x = PLANE[kind], sg.VPSDE()(torch.tensor(0.4).double()), normal(5, 2)
    nothing = torch.zeros(2, dtype=torch.bool)
    for seen in (torch.zeros(0, 2).double(), lambda x: x[:, nothing]):
        for std in (0.0, 0.3):
            found = posterior(prior, seen, torch.zeros(0), std)
            close(found.denoise(x, level), prior.denoise(x, level), rtol=1e-9)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", PLANE)
@pytest.mark.parametrize("std", [0.0, 1e-12, 1e-9])
def test_where_all_is_seen_it_is_what_is_seen(kind: str, std: float) -> None:
    """A point, of whose covariance nothing but rounding is left."""
    level, x, H = sg.VPSDE()(torch.tensor(0.4).double()), normal(5, 2), normal(2, 2, seed=7)
    x0 = torch.tensor([0.4, -0.2]).double()
    found = posterior(PLANE[kind], H, H @ x0, std)
    close(found.denoise(x, level), x0.expand(5, 2), atol=1e-6)  # type: ignore[attr-defined]

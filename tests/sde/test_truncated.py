"""Processes that end early, with a prior fitted to the data: exact for Gaussians."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import exact_model
from sdegen.exact.distributions import Gaussian, Mixture
from sdegen.likelihood import discrete_elbo, log_prob
from sdegen.model import truncated_model
from sdegen.sde import GaussianPrior, Prior, TruncatedSDE, truncated
from tests.cases import MIXTURE, close, normal, refused

VP = sg.VPSDE()
COV = torch.tensor([[0.9, 0.3, 0.0], [0.3, 0.5, -0.2], [0.0, -0.2, 0.4]], dtype=torch.float64)
MEAN = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
NORMAL = Gaussian(MEAN, COV)
POINTS = torch.cat([s * math.sqrt(3) * torch.linalg.cholesky(COV).T for s in (1, -1)]) + MEAN
"""Six points whose moments are NORMAL's."""
SDES = [VP, sg.EDMSDE(), sg.FlowSDE(), sg.CosineSDE()]


@pytest.mark.parametrize("sde", SDES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("part", [0.1, 0.5, 1.0])
def test_the_prior_of_gaussian_data_is_their_law(sde: Any, part: float) -> None:
    """At any T: KL 0, the density itself, and draws from it."""
    T = sde.t_min + part * (sde.T - sde.t_min)
    short = truncated(sde, POINTS, T)
    x = normal(5, 3) * 2
    close(short.prior.log_prob(x), NORMAL.log_prob(x, sde(T)), rtol=1e-7)
    z = torch.cat([torch.eye(3).double(), torch.zeros(1, 3).double()])
    drawn = short.prior.sample(z)
    at = sde(T)
    root = drawn[:3] - drawn[3]
    close(root.T @ root, at.alpha**2 * COV + at.sigma**2 * torch.eye(3).double(), atol=1e-9)
    close(drawn[3], at.alpha * MEAN, atol=1e-9)
    _, std = short.prior.like(x)
    close(std[0], (at.alpha**2 * COV.diagonal() + at.sigma**2).sqrt(), rtol=1e-8)


def test_a_likelihood_does_not_depend_on_where_it_ends() -> None:
    """Of Gaussian data: the flow from T* with its prior is the flow from T with its own."""
    model = exact_model(NORMAL, VP)
    short = truncated_model(model, POINTS, 0.4)
    x = NORMAL.sample(3, torch.Generator().manual_seed(0))
    how: dict[str, Any] = {"divergence": "exact", "solver": sg.RK4(), "steps": 25}
    want = NORMAL.log_prob(x, VP(VP.t_min))
    close(log_prob(short, x, scaled=False, **how).value, want, atol=2e-4)


@pytest.mark.parametrize("rank", [None, 2])
def test_a_bounds_prior_term_is_the_kl(rank: int | None) -> None:
    """Of N(alpha x, sigma^2) from the prior, as torch.distributions has it."""
    short = truncated_model(exact_model(NORMAL, VP), POINTS, 0.4, rank)
    x = NORMAL.sample(4, torch.Generator().manual_seed(0))
    prior, at = short.sde.prior, VP(0.4)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    root = prior.sample(torch.eye(3).double()) - prior.sample(zero)
    law = torch.distributions.MultivariateNormal(prior.sample(zero)[0], root.T @ root)
    one = torch.distributions.MultivariateNormal(
        at.alpha * x, (at.sigma**2 * torch.eye(3).double()).expand(4, 3, 3)
    )
    want = torch.distributions.kl_divergence(one, law)
    close(discrete_elbo(short, x, steps=3, seed=0).prior, want, rtol=1e-6)
    close(prior.log_prob(x), law.log_prob(x), rtol=1e-6)


def test_fewer_directions_have_the_mean_variance_of_the_others() -> None:
    var, axes = torch.linalg.eigh(COV)
    prior = truncated(VP, POINTS, 0.3, rank=1).prior
    at = VP(0.3)
    close(prior.std, math.sqrt(at.alpha**2 * float(var[:2].mean()) + at.sigma**2), rtol=1e-9)
    close((prior.axes[:, 0] @ axes[:, 2]).abs(), torch.ones(()), rtol=1e-9)


def kl_of(problem: Any, T: float, prior: Any) -> float:
    """KL(p_T || prior) in the plane, by quadrature."""
    line = torch.linspace(-6, 6, 121, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    logs = problem.log_prob(x, VP(T))
    return float((logs.exp() * (logs - prior.log_prob(x))).sum()) * (12 / 120) ** 2


def moments_of(problem: Any) -> Tensor:
    """Four points with a mixture's mean and covariance."""
    m, s, w = problem.constants
    mean = (w[:, None] * m).sum(0)
    off = m - mean
    cov = torch.einsum("k,ki,kj->ij", w, off, off) + (w * s**2).sum() * torch.eye(2).double()
    root = torch.linalg.cholesky(cov).T * math.sqrt(2)
    return torch.cat([root, -root]) + mean


FAR = Mixture([[-2.0, -1.0], [2.0, 1.0]], [0.3, 0.4], [0.4, 0.6])


@pytest.mark.parametrize("problem", [MIXTURE, FAR], ids=["near", "far"])
def test_the_price_falls_with_the_time(problem: Any) -> None:
    """KL(p_T* || prior): below that of N(0, I) at every T*, by an order of magnitude at 0.5, and
    no Gaussian is nearer."""
    x0, before = moments_of(problem), math.inf
    for T in (0.2, 0.3, 0.4, 0.5):
        fitted = truncated(VP, x0, T).prior
        price, usual = kl_of(problem, T, fitted), kl_of(problem, T, Prior())
        assert 0 < price < 0.6 * before and price < 0.5 * usual
        wider = GaussianPrior(fitted.std, fitted.mean, fitted.axes, 1.05 * fitted.along)
        assert price < kl_of(problem, T, wider)
        before = price
    assert price < 0.1 * usual


def test_samples_of_gaussian_data_have_their_law() -> None:
    """From a tenth of the way on, and each is its own: alone as in a batch."""
    short = truncated_model(exact_model(NORMAL, VP), POINTS, 0.1)
    how: dict[str, Any] = {"solver": sg.RK4(), "steps": 10}
    x = sg.sample(short, (20_000, 3), seed=0, **how)
    at = VP(VP.t_min)
    close(x.double().T.cov(), at.alpha**2 * COV + at.sigma**2 * torch.eye(3).double(), atol=0.03)
    one = sg.sample(short, (1, 3), noise=sg.Seeded(0, 2), **how)
    close(one, sg.sample(short, (4, 3), noise=sg.Seeded(0), **how)[2:3], rtol=1e-5)
    ancestral = sg.sample(short, (2, 3), solver=sg.Ancestral(), steps=3, seed=0)
    assert bool(ancestral.isfinite().all())


def test_the_network_is_told_the_times_that_it_knows() -> None:
    """Its label is of the whole SDE, t_min to T*; the model that was given is as it was."""
    seen: list[Tensor] = []
    sde = sg.DiscreteVPSDE()

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(t)
        return x

    model = sg.ScoreModel(net, sde, time="1000t-1")
    short = truncated_model(model, POINTS.float(), 0.5)
    short(normal(2, 3).float(), 0.5), model(normal(2, 3).float(), 0.5)
    assert torch.equal(seen[0], seen[1]) and model.sde is sde
    assert isinstance(short.sde, TruncatedSDE) and short.sde.t_min == sde.t_min


def test_training_draws_times_below_the_end() -> None:
    short = truncated(VP, POINTS, 0.25)
    t, _ = sg.losses.uniform_time(short, torch.tensor([0.0, 0.5, 1.0]).double())
    close(t, torch.tensor([1e-3, 0.1255, 0.25], dtype=torch.float64))
    loss = sg.dsm_loss(sg.ScoreModel(lambda x, t: x, short), POINTS)
    assert loss.shape == (6,)


@pytest.mark.parametrize(("n", "d"), [(2, 5), (3, 1), (40, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_data_in_any_dimension(n: int, d: int, dtype: torch.dtype) -> None:
    """Where they do not reach, the noise is all there is; images keep their shape."""
    x0 = normal(n, d).to(dtype).reshape(n, 1, d)
    prior = truncated(VP, x0, 0.3).prior
    x = prior.sample(normal(3, d).to(dtype).reshape(3, 1, d))
    assert x.shape == (3, 1, d) and x.dtype == dtype
    flat, at = x0.double().flatten(1), VP(0.3)
    cov = (flat - flat.mean(0)).T @ (flat - flat.mean(0)) / n
    law = torch.distributions.MultivariateNormal(
        at.alpha * flat.mean(0), at.alpha**2 * cov + at.sigma**2 * torch.eye(d).double()
    )
    close(prior.log_prob(x.double()), law.log_prob(x.double().flatten(1)), rtol=1e-5)


@pytest.mark.parametrize(("n", "d"), [(6, 90), (90, 6), (6, 6)])
@pytest.mark.parametrize("rank", [None, 1, 3, 6])
def test_no_more_is_decomposed_than_the_smaller_side(
    n: int, d: int, rank: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the prior is that of the singular values, over twelve orders of magnitude, with
    orthonormal axes; data whose mean is far away too."""
    u, _ = torch.linalg.qr(normal(n, min(n, d)))
    v, _ = torch.linalg.qr(normal(d, min(n, d), seed=1))
    spread = torch.logspace(0, -6, min(n, d), dtype=torch.float64)
    x0 = (u * spread) @ v.T * 3 + 5
    _, s, vh = torch.linalg.svd((x0 - x0.mean(0)) / math.sqrt(n), full_matrices=False)
    sizes: list[int] = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda a: (sizes.append(len(a)), eigh(a))[1])
    monkeypatch.setattr(torch.linalg, "svd", None)
    prior, at = truncated(VP, x0, 0.3, rank).prior, VP(0.3)
    assert sizes == [min(n, d)]
    r = len(prior.along)
    assert r == min(n, d, 90 if rank is None else rank)
    close(prior.axes.T @ prior.axes, torch.eye(r).double(), atol=1e-12)
    rest = s[r:].square().sum() / max(d - r, 1)
    want = (vh[:r].T * (s[:r].square() - rest)) @ vh[:r] + rest * torch.eye(d).double()
    found = (prior.axes * (prior.along**2 - prior.std**2)) @ prior.axes.T
    found = found + prior.std**2 * torch.eye(d).double()
    close(found, at.alpha**2 * want + at.sigma**2 * torch.eye(d).double(), atol=1e-12)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: truncated(VP, POINTS, 1.5), "ends within"),
        (lambda: truncated(VP, POINTS, 1e-3), "ends within"),
        (lambda: truncated(VP, POINTS[:1], 0.5), "n >= 2"),
        (lambda: truncated(VP, POINTS.long(), 0.5), "floating-point"),
        (lambda: truncated(VP, POINTS * math.nan, 0.5), "finite"),
        (lambda: truncated(VP, POINTS, 0.5, rank=4), "at most as many"),
        (
            lambda: truncated(sg.sde.AnisotropicVPSDE((1.0, 2.0, 3.0)), POINTS, 0.5),
            "not truncated",
        ),
        (
            lambda: truncated(VP, POINTS, 0.5).prior.sample(normal(2, 2)),
            "fitted to samples of shape",
        ),
        (lambda: truncated_model(lambda x, t: x, POINTS, 0.5), "is a ScoreModel"),
    ],
)
def test_refusals(use: Any, words: str) -> None:
    with refused(words):
        use()

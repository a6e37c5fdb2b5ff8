"""The benchmark's problems and references: exact, and told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.bench import problems
from sdegen.bench.reference import dop853, reference
from sdegen.exact.distributions import Empirical, LowRankMixture
from sdegen.exact.ground import Constant
from sdegen.sde.level import expand
from tests.cases import close, closed_form, normal, refused, sdes

# --------------------------------------------------------------------------------------- problems


def low_rank() -> tuple[LowRankMixture, torch.distributions.Distribution]:
    """Two components in five dimensions, and the same with their covariances written out."""
    axes = torch.linalg.qr(normal(2, 5, 2)).Q
    var, weights = torch.tensor([[0.8, 0.1], [0.3, 0.5]]), torch.tensor([0.3, 0.7])
    means = normal(2, 5, seed=1)
    var, weights = var.double(), weights.double()
    cov = axes @ torch.diag_embed(var) @ axes.mT + 0.2**2 * torch.eye(5, dtype=torch.float64)
    whole = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights),
        torch.distributions.MultivariateNormal(means, cov),
    )
    return LowRankMixture(means, axes, var, weights, 0.2), whole


def test_a_low_rank_mixture_is_one_of_full_covariances() -> None:
    data, whole = low_rank()
    x = data.sample(4000, torch.Generator().manual_seed(0))
    close(data.log_prob(x), whole.log_prob(x), rtol=1e-10)
    for moment in (1, 2):
        far = (x**moment).mean(0) - (whole.sample((40000,)) ** moment).mean(0)
        assert far.abs().max() < 0.1


EXACT = {
    "gaussian": lambda: problems.gaussian(5),
    "mixture": problems.mixture,
    "stiff": problems.stiff,
    "low_rank": lambda: problems.Problem(low_rank()[0], (5,)),
    "empirical": lambda: problems.Problem(Empirical(normal(50, 3, 2), chunk=7), (3, 2)),
}


@sdes
@pytest.mark.parametrize("name", EXACT)
def test_denoisers_are_tweedies_at_a_level_for_each_sample(sde: sg.LinearSDE, name: str) -> None:
    """E[x0 | x] = (x + sigma^2 grad log p(x)) / alpha, and a sample alone has the same density."""
    problem = EXACT[name]()
    exact: Any = problem.exact
    times = sde.T * torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    level = sde(times)
    alpha, sigma = (expand(c, normal(3, *problem.shape)) for c in (level.alpha, level.sigma))
    x = (2 * sigma * normal(3, *problem.shape, seed=2)).requires_grad_()
    density = exact.log_prob(x, level)
    (score,) = torch.autograd.grad(density.sum(), x)
    found = exact.denoise(x.detach(), level)
    close(found, ((x + sigma**2 * score) / alpha).detach(), rtol=1e-6, atol=1e-7)
    each = [exact.log_prob(x[i : i + 1], sde(t)) for i, t in enumerate(times)]
    close(torch.cat(each), density, rtol=1e-10)


def test_constants_are_kept_for_each_dtype() -> None:
    class Nothing(Constant):
        """Without any."""

    with pytest.raises(TypeError, match="constants"):
        Nothing()  # type: ignore[abstract]
    data = problems.mixture().exact
    assert isinstance(data, sg.exact.Mixture)
    first = data.like(normal(1, 2, dtype=torch.float32))
    assert data.like(normal(4, 2, dtype=torch.float32)) is first
    assert {part.dtype for part in first} == {torch.float32}
    assert data.like(normal(1, 2))[0].dtype == torch.float64


def test_problems_are_told_apart_and_are_always_the_same() -> None:
    made = [problems.gaussian, problems.mixture, problems.stiff, problems.digits]
    prints = [make().fingerprint() for make in made]
    assert len(set(prints)) == 4 and prints == [make().fingerprint() for make in made]
    assert problems.gaussian(condition=10.0).fingerprint() != prints[0]


def test_starts_have_the_variance_of_their_level() -> None:
    problem, sde = problems.gaussian(d=3, condition=4.0), sg.VPSDE()
    level = sde(torch.tensor(0.3, dtype=torch.float64))
    x = problem.noised(level, 40000, 0)
    var = torch.linalg.eigvalsh(torch.cov(x.T))
    exact = level.alpha**2 * torch.tensor([0.25, 0.5, 1.0]) + level.sigma**2
    close(var, exact, rtol=0.05)


# ------------------------------------------------------------------------------------- references


def test_references_agree_are_kept_and_are_refused(tmp_path: Path) -> None:
    problem, sde = problems.gaussian(), sg.EDMSDE()
    first = reference(problem, sde, 4, 0, tmp_path)
    assert first.agreement < 1e-9
    top, bottom = (sde(torch.tensor(t, dtype=torch.float64)) for t in (sde.T, sde.t_min))
    exact: Any = problem.exact
    close(first.ends, exact.flow(first.starts, top, bottom), rtol=0, atol=1e-9)
    kept = list(tmp_path.iterdir())
    again = reference(problem, sde, 4, 0, tmp_path)
    assert list(tmp_path.iterdir()) == kept and again.ends.equal(first.ends)
    reference(problem, sde, 4, 1, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with refused("disagree by"):
        reference(problem, sde, 4, 2, tmp_path, limit=1e-20)


def test_references_of_other_betas_are_others(tmp_path: Path) -> None:
    """Though the first, the last and their number are the same."""
    problem, betas = problems.gaussian(), torch.linspace(1e-2, 0.3, 12).tolist()
    first = reference(problem, sg.DiscreteVPSDE(betas), 4, 0, tmp_path, limit=1e-3)
    betas[6] *= 1.5
    other = reference(problem, sg.DiscreteVPSDE(betas), 4, 0, tmp_path, limit=1e-3)
    assert len(list(tmp_path.iterdir())) == 2 and not torch.equal(first.ends, other.ends)


@closed_form
def test_scipys_reference_is_the_gaussians_flow(sde: sg.LinearSDE) -> None:
    problem = problems.gaussian(d=4)
    top, bottom = (sde(torch.tensor(t, dtype=torch.float64)) for t in (sde.T, sde.t_min))
    x, exact = problem.noised(top, 3, 0), problem.exact
    assert isinstance(exact, sg.exact.Gaussian)
    close(dop853(problem.model(sde), x), exact.flow(x, top, bottom), rtol=0, atol=1e-8)

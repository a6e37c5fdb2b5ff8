"""Processes that depend on something of each sample, as a mean that they return to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import sdegen as sg
from tests.cases import close, normal, refused


@dataclass(frozen=True)
class MeanReverting(sg.SDE):
    """dx = 2 (mu - x) dt + dw."""

    mu: Tensor | None = None
    T: float = 3.0
    t_min: float = 1e-3
    conditions: ClassVar = ("mu",)

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return 2.0 * (self.mu - x)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.ones((), dtype=t.dtype)

    @property
    def prior(self) -> sg.Prior:
        assert self.mu is not None
        return sg.Prior(0.5, self.mu)

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor | None = None) -> tuple[Tensor, Tensor]:
        keep, std = torch.exp(-2 * t)[:, None], noise(t)[:, None].sqrt()
        assert z is not None and self.mu is not None
        return self.mu + keep * (x0 - self.mu) + std * z, -z / std


def noise(t: Tensor) -> Tensor:
    return -torch.expm1(-4 * t) / 4


OFF, SPREAD = 1.0, 0.3
"""The data are mu + OFF + SPREAD z."""


def score(x: Tensor, t: Tensor, mu: Tensor) -> Tensor:
    keep = torch.exp(-2 * t.double())[:, None]
    return -(x - mu - keep * OFF) / ((SPREAD * keep) ** 2 + noise(t.double())[:, None])


def model_of(mu: Tensor) -> sg.ScoreModel:
    return sg.ScoreModel(score, MeanReverting(), "score").given(mu=mu)


def test_each_sample_begins_and_ends_at_its_own() -> None:
    mu = 5 * normal(4000, 1)
    for how in ({"solver": sg.EulerMaruyama()}, {"solver": sg.Heun()}):
        x = sg.sample(model_of(mu), (4000, 1), steps=100, walk="quadratic", seed=0, **how)
        # the prior keeps e^-2T of the offset: 0.0025
        close((x - mu).mean(), OFF, atol=0.03), close((x - mu).std(), SPREAD, atol=0.02)


@pytest.mark.parametrize(
    "solver", [sg.AdaptiveRK(clock="t", per_sample=True), sg.solvers.SciPy(), sg.Heun()]
)
def test_a_batch_is_cut_with_its_process(solver: sg.Solver) -> None:
    mu = 5 * normal(5, 2)
    how: dict[str, Any] = {"solver": solver, "walk": torch.linspace(3.0, 1e-3, 30)}
    x = normal(5, 2) / 2 + mu
    whole = sg.sample(model_of(mu), x, **how)
    for i in (0, 3):
        alone = sg.sample(model_of(mu[i : i + 1]), x[i : i + 1], **how)
        close(whole[i : i + 1], alone, rtol=1e-6)


def test_a_copy_leaves_the_original_alone() -> None:
    plain = sg.ScoreModel(score, MeanReverting(), "score")
    first, second = normal(3, 2), normal(3, 2, seed=1)
    one = plain.given(mu=first)
    other = one.given(mu=second)
    assert plain.sde.mu is None and one.sde.mu is first and other.sde.mu is second  # type: ignore[attr-defined]
    part = one.take(torch.tensor([2, 0]))
    assert torch.equal(part.sde.mu, first[[2, 0]]) and one.sde.mu is first  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Checked(MeanReverting):
    """One that looks at what it is given."""

    def __post_init__(self) -> None:
        assert self.mu is None or torch.as_tensor(self.mu).shape[-1:] in ((), (2,))


@pytest.mark.parametrize("solver", [sg.AdaptiveRK(clock="t", per_sample=True), sg.Heun()])
def test_what_all_samples_share_is_not_cut(solver: sg.Solver) -> None:
    """A number, a value of one sample's shape, and an array of NumPy's, by whatever door."""
    model, mu, x = sg.ScoreModel(score, Checked(), "score"), torch.tensor([0.4, 0.4]), normal(2, 2)
    how: dict[str, Any] = {"solver": solver, "walk": torch.linspace(3.0, 1e-3, 6)}
    whole = sg.sample(model.given(mu=mu.double().expand(2, 2)), x, **how)
    for given in (
        model.given({"mu": mu.double()}),
        model.given({"mu": mu.double().numpy()}),
        model.given(mu=mu.double().expand(2, 2).numpy()),
        model.given(mu=mu.double()[0]),
    ):
        close(sg.sample(given, x, **how), whole, rtol=1e-6)
        part = given.take(torch.tensor([1]))
        close(sg.sample(part, x[1:], **how), whole[1:], rtol=1e-6)
        assert torch.equal(part.sde.mu, part.conditions["mu"])  # type: ignore[attr-defined]


def test_a_prior_of_another_shape_is_refused() -> None:
    for prior, name in ((sg.Prior(0.5, normal(3)), "mean"), (sg.Prior(normal(3).abs()), "std")):
        with refused(rf"prior's {name} is of shape \(3,\), .* each sample is of shape \(3, 1\)"):
            prior.log_prob(normal(3, 2))


def test_a_process_is_cut_whatever_its_arrays_are() -> None:
    mu, index = normal(3, 2), torch.tensor([2, 0])
    for given in (mu, mu.numpy()):
        cut = MeanReverting(mu=given).take(index).mu  # type: ignore[arg-type]
        assert cut is not None and torch.equal(cut, mu[index])
    for alike in (0.3, mu[0, 0], None):
        assert MeanReverting(mu=alike).take(index).mu is alike  # type: ignore[arg-type]


def test_its_loss_is_least_at_the_score() -> None:
    """|g (score - target)|^2 less the least that any network of x_t and mu has is the error."""
    mu = normal(4000, 1) * 3
    x0 = mu + OFF + SPREAD * normal(4000, 1, seed=1)

    def loss(wrong: float) -> Tensor:
        model = sg.ScoreModel(lambda x, t, mu: score(x, t, mu) + wrong, MeanReverting(), "score")
        draw = torch.Generator().manual_seed(0)
        return sg.dsm_loss(model.given(mu=mu), x0, generator=draw).mean()

    assert loss(0.0) < min(loss(0.3), loss(-0.3))
    # One seed for all three, so that what is linear in the error cancels in the mean of two.
    close((loss(0.3) + loss(-0.3)) / 2 - loss(0.0), 0.09, rtol=1e-6)


def test_a_diffusion_of_another_shape_is_refused() -> None:
    """A number for each sample, (b,), would fall on the last axis: (b, b) of a state (b, 1)."""

    class Flat(MeanReverting):
        def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.ones(len(x), dtype=t.dtype)

    model = sg.ScoreModel(score, Flat(), "score").given(mu=normal(3, 1))
    for run in (
        lambda: sg.sample(model, (3, 1), solver=sg.Heun(), steps=3),
        lambda: sg.sample(model, (3, 1), solver=sg.EulerMaruyama(), steps=3),
        lambda: sg.dsm_loss(model, normal(3, 1)),
    ):
        with refused(r"broadcast against states \(3, 1\), but its shape is \(3,\)"):
            run()


def test_what_nobody_gave_is_asked_for() -> None:
    model = sg.ScoreModel(score, MeanReverting(), "score")
    for run in (
        lambda: sg.sample(model, (3, 2), solver=sg.Heun(), steps=3),
        lambda: sg.dsm_loss(model, normal(3, 2)),
    ):
        with refused("depends on mu of each sample.*use model.given\\(mu=...\\)"):
            run()
    with refused("The condition mu has 3 values, but the batch has 2 samples"):
        sg.sample(model.given(mu=normal(3, 2)), normal(2, 2), solver=sg.Heun(), steps=3)

"""Cascades of Gaussians, whose law is known: means of pairs first, then the pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.guidance import Average
from sdegen.losses import Superresolve, paired
from sdegen.networks import UNet
from sdegen.sampling import Stage, cascade
from sdegen.sde.level import expand
from sdegen.solvers import GottaGoFast
from tests.cases import refused

SDE = sg.VPSDE()
COV = torch.tensor([[1.0, 0.4], [0.4, 0.6]], dtype=torch.float64)
A = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
VAR = A @ COV @ A.T


def posterior(x: Tensor, level: Any, prior: Tensor, mean: Tensor) -> Tensor:
    """E[x0 | x_t] of N(mean, prior)."""
    a2, s2 = float(level.alpha**2), float(level.sigma**2)
    gain = prior @ torch.linalg.inv(a2 * prior + s2 * torch.eye(len(prior)).double())
    alpha = float(level.alpha)
    return (mean + alpha * (x.double() - alpha * mean) @ gain.T).to(x)


def low(x: Tensor, t: Tensor) -> Tensor:
    """The denoiser of the means."""
    return posterior(x, SDE(t[0]), VAR, torch.zeros(1).double())


def high(x: Tensor, t: Tensor, c: Tensor, augment: Tensor | float = 0.0) -> Tensor:
    """The denoiser of pairs whose mean, with noise, is c."""
    s = float(torch.as_tensor(augment).reshape(-1)[0])
    a = (1 - s * s) ** 0.5
    gain = a * COV @ A.T / (a * a * VAR + s * s + 1e-12)
    return posterior(x, SDE(t[0]), COV - gain @ (a * A @ COV), c.double() @ gain.T)


def models() -> tuple[sg.ScoreModel, sg.ScoreModel]:
    return sg.ScoreModel(low, SDE, "x0"), sg.ScoreModel(high, SDE, "x0")


HOW = {"solver": sg.UniPC(3), "steps": 20}


def stages(augment: float | None) -> list[Stage]:
    first, second = models()
    return [Stage(first, (1,), HOW), Stage(second, (2,), HOW, lambda x: x, augment)]


@pytest.mark.parametrize("augment", [None, 0.0, 0.3, 0.9])
def test_a_cascade_has_the_law_of_its_models(augment: float | None) -> None:
    """Pairs have the data's own covariance whatever the noise between; with the means that they
    were made of, a Cov A^T times what the noise has left of these."""
    n = 4000
    both = torch.cat([made.x for made in cascade(stages(augment), n, seed=0)], 1).double()
    s = augment or 0.0
    a2 = 1 - s * s
    cross = a2 * COV @ A.T / (a2 * VAR + s * s) * VAR
    wanted = torch.zeros(3, 3).double()
    wanted[0, 0], wanted[1:, 1:] = VAR, COV
    wanted[1:, :1], wanted[:1, 1:] = cross, cross.T
    found = both.T @ both / n
    d = wanted.diagonal()
    error = ((wanted**2 + d[:, None] * d) / n).sqrt()  # of a covariance's entries
    assert ((found - wanted).abs() < 4 * error).all()
    assert (both.mean(0).abs() < 4 * (d / n).sqrt()).all()
    if not s:  # the mean of a pair is what it was told, but for the noise of t_min
        torch.testing.assert_close(both[:, 1:] @ A.T, both[:, :1], atol=5e-2, rtol=0)


def test_a_stage_more_and_a_sample_more_move_no_other() -> None:
    alone = cascade(stages(0.2)[:1], 5, seed=3)[0].x
    five, nine = (cascade(stages(0.2), n, seed=3) for n in (5, 9))
    assert torch.equal(five[0].x, alone)
    assert torch.equal(nine[1].x[:5], five[1].x)
    assert not torch.equal(cascade(stages(0.2), 5, seed=4)[1].x, five[1].x)
    assert (five[1].nfe == 20).all()


def test_a_sample_that_failed_fails_alone() -> None:
    def broken(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x))[:, None] == 1, torch.nan, low(x, t))

    found = stages(0.2)
    one, two = cascade([Stage(sg.ScoreModel(broken, SDE, "x0"), (1,), HOW), found[1]], 3)
    assert one.x.isfinite().all(1).tolist() == [True, False, True]
    assert two.x.isfinite().all(1).tolist() == [True, False, True]
    assert torch.equal(two.x[0], cascade(found, 3)[1].x[0])


class Telling(torch.nn.Module):
    """A network that is told how much noise is in c, and says it."""

    def forward(self, x: Tensor, t: Tensor, c: Tensor, augment: Tensor) -> Tensor:
        self.told = c, augment
        return torch.zeros_like(x) + 0 * expand(augment, x)


def test_training_is_told_the_noise_of_each_sample() -> None:
    torch.manual_seed(0)
    x0, net = torch.randn(4000, 1, 2, 2), Telling()
    model = sg.ScoreModel(net, SDE)
    paired(model, x0, degrade=Superresolve(2, augment=0.5))
    c, s = net.told
    clean = Average(2).pinv(Average(2)(x0))
    left = c - expand((1 - s * s).sqrt(), c) * clean
    share = left.square().mean((1, 2, 3)) / s**2
    assert s.min() >= 0 and s.max() < 0.5 and abs(float(s.mean()) - 0.25) < 0.01
    assert abs(float(share.mean()) - 1) < 0.05
    paired(model, x0[:3], degrade=Superresolve(2, augment=0.5, level=0.2))
    assert net.told[1].tolist() == pytest.approx([0.2] * 3)


def test_a_network_of_ours_is_a_stage() -> None:
    torch.manual_seed(0)
    small = sg.ScoreModel(UNet(1, width=8, heads=2), SDE)
    large = sg.ScoreModel(UNet(1, width=8, heads=2, beside=1, numbers=["augment"]), SDE)
    how = {"nfe": 3}
    made = cascade(
        [Stage(small, (1, 4, 4), how), Stage(large, (1, 8, 8), how, Average(2).pinv, 0.1)], 2
    )
    assert [each.x.shape for each in made] == [(2, 1, 4, 4), (2, 1, 8, 8)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda one, two: cascade([two], 2), "begins with one stage without lift"),
        (lambda one, two: cascade([one, one], 2), "every stage after it has one"),
        (lambda one, two: cascade([], 2), "A cascade begins"),
        (lambda one, two: cascade([one, replace(two, shape=(2, 4))], 2), "must be the same"),
        (lambda one, two: replace(two, augment=1.5), "augment lies in"),
        (lambda one, two: replace(one, augment=0.1), "give lift too"),
        (lambda one, two: Superresolve(2, 0.3, 0.4), "level lies in"),
        (lambda one, two: Superresolve(2, -0.1), "augment lies in"),
    ],
)
def test_what_cannot_be_is_refused(call: Any, words: str) -> None:
    with refused(words):
        call(*stages(None))


def test_stages_take_what_solve_takes_but_a_seed() -> None:
    with pytest.raises(TypeError, match="seed"):
        replace(stages(None)[0], how={"seed": 1})


class Counting(torch.nn.Module):
    """A network that counts its calls, of batches of more than one."""

    calls = 0

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += len(x) > 1
        return 0 * x


@pytest.mark.parametrize(
    ("net", "shape", "how"),
    [
        (UNet(1, width=8, heads=2), (1, 4, 4), {"nfe": 2}),  # sees nothing beside
        (UNet(1, width=8, heads=2, beside=1), (1, 4, 4), {"nfe": 2}),  # is not told the noise
        (UNet(1, width=8, heads=2, beside=1, numbers=["augment"]), (2, 4, 4), {"nfe": 2}),
        (UNet(1, width=8, heads=2, beside=1, numbers=["augment"]), (1, 4, 4), {"nfe": 0}),
        (
            UNet(1, width=8, heads=2, beside=1, numbers=["augment"]),
            (1, 4, 4),
            {"solver": sg.DDIM(), "walk": [0.2, 0.1, 0.01]},  # starts where data is seen
        ),
        (
            UNet(1, width=8, heads=2, beside=1, numbers=["augment"]),
            (1, 4, 4),
            {"solver": GottaGoFast(), "walk": [1.0, 0.1, 0.5, 0.01]},  # climbs along one path
        ),
    ],
)
def test_a_misfit_is_refused_before_the_first_stage_is_sampled(
    net: UNet, shape: tuple[int, ...], how: dict[str, Any]
) -> None:
    counting = Counting()
    first = Stage(sg.ScoreModel(counting, SDE, module=counting), (1, 2, 2), {"nfe": 2})
    second = Stage(sg.ScoreModel(net, SDE), shape, how, Average(2).pinv, 0.1)
    with pytest.raises(ValueError):
        cascade([first, second], 3)
    assert not counting.calls


def test_a_stage_whose_solver_needs_a_path_has_one_of_its_own() -> None:
    """Of the seed, whoever is sampled with it, and torch's own generator knows nothing of it."""
    model = sg.ScoreModel(lambda x, t, c=None: 0.3 * x, SDE, "v")
    first = Stage(model, (1,), {"solver": GottaGoFast(rtol=2.0, atol=2.0)})
    both = [first, replace(first, lift=lambda x: x)]
    before = torch.get_rng_state()
    made = cascade(both, 3, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    for one, two in zip(made, cascade(both, 2, seed=1), strict=True):
        assert torch.equal(one.x[:2], two.x)
    for other in (made[1], cascade([first], 3, seed=2)[0]):
        assert not (made[0].x == other.x).any()


def test_stages_may_be_of_float64() -> None:
    """What lifts them too."""

    def net(beside: int) -> UNet:
        return UNet(1, dims=1, width=8, heads=2, beside=beside).double()

    lift, how = torch.nn.Conv1d(1, 1, 1).double(), {"nfe": 2}
    first = Stage(sg.ScoreModel(net(0), SDE), (1, 2), how)
    second = Stage(sg.ScoreModel(net(1), SDE), (1, 2), how, lift)
    assert [each.x.dtype for each in cascade([first, second], 2)] == [torch.float64] * 2

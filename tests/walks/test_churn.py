"""Churn: EDM's stochastic sampler is a walk, on every SDE."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen import walks
from sdegen.exact.distributions import exact_model
from sdegen.noise.source import Inflated, Noise
from sdegen.sampling import recipes
from tests.cases import MIXTURE, SDES, Replay, Smooth, at_rho, close, normal, refused
from tests.solutions import edm_heun

NET = Smooth()


@pytest.mark.parametrize(
    "S",
    [
        {"S_churn": 40.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003},
        {"S_churn": 2.0, "S_noise": 1.01},
        {"S_churn": 2.0, "S_max": 1.0},
        {},
    ],
)
def test_edm_is_algorithm_2(S: dict[str, float]) -> None:
    """Every step by hand, the one to zero too; above T there is nowhere to climb to."""
    n = 12
    i = torch.arange(n, dtype=torch.float64)
    t = (80 ** (1 / 7) + i / (n - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    t = torch.cat([t, torch.zeros(1).double()])
    start, z = 80 * normal(4, 2), normal(n, 4, 2, seed=1)
    x, draws = start, iter(z)
    for t_i, t_next in pairwise(t):
        inside = S.get("S_min", 0) <= t_i <= S.get("S_max", math.inf)
        gamma = min(S.get("S_churn", 0) / n, math.sqrt(2) - 1) if inside else 0.0
        t_hat = (t_i + gamma * t_i).clamp(max=80.0)
        if t_hat > t_i:
            x = x + (t_hat**2 - t_i**2).sqrt() * S.get("S_noise", 1.0) * next(draws)
        x = edm_heun(x, t_hat, t_next)
    noise = Replay(list(z))
    out = sg.solve(
        sg.ScoreModel(NET, sg.EDMSDE(), "edm"), start, **recipes.edm(n, noise=noise, **S)
    )
    close(out.x, x, 1e-12)
    assert len(list(noise.draws)) == len(list(draws))
    assert out.nfe.tolist() == [2 * n - 1] * 4


def test_edm_is_one_sampler_on_every_sde() -> None:
    """In rho all are one equation: the denoised ends agree where the range of rho does."""
    x, z, S = normal(4, 2), normal(8, 4, 2, seed=1), {"S_churn": 2.0, "S_max": 10.0}
    ends = []
    for sde in SDES.values():
        t_min, T = at_rho(sde, 0.05), at_rho(sde, 20.0)
        grid = partial(sg.walks.karras, start=T, stop=t_min)
        how = recipes.edm(8, noise=Replay(list(z)), **S)
        how["walk"] = partial(how["walk"], grid=grid)
        level = sde(T)
        model = exact_model(MIXTURE, sde)
        ends.append(sg.sample(model, level.alpha * 20 * x, **how))
    for end in ends[1:]:
        close(end, ends[0], 1e-7, 1e-8)


def test_churn_counts_its_steps() -> None:
    """gamma is S_churn over the steps taken, the hop among them."""
    sde, grid = sg.EDMSDE(), sg.walks.karras(sg.EDMSDE(), 10)
    for hop, n in ((False, 10), (True, 11)):
        walk = walks.churn(sde, grid, S_churn=1.1, hop=hop)
        gained = torch.tensor([float(s / t) for t, s in pairwise(walk) if s > t])
        close(gained, torch.full((n - 1,), 1 + 1.1 / n), 1e-6)
        assert float(walk[0]) == 80 and float(walk[1]) < 80
    much = walks.churn(sde, grid, S_churn=100.0, S_max=50.0)
    close(max(s / t for t, s in pairwise(much)), math.sqrt(2))
    assert torch.equal(walks.churn(sde, grid, S_churn=0.0), grid)


class Labelled(Noise):
    """Says what it was asked for: 1 a draw, 2 an area, plus 10 for some of the samples only."""

    path = True

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def __call__(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
        return torch.full_like(x, 1 + self.offset)

    def area(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
        return torch.full_like(x, 2 + self.offset)

    def take(self, index: Tensor) -> Labelled:
        return Labelled(10.0)


def test_inflated_noise_is_its_source_in_everything_else() -> None:
    level, x = sg.VPSDE()(0.5), torch.zeros(1)
    loud = Inflated(1.5, Labelled())
    assert loud.path and not Inflated(1.5).path
    some = loud.take(torch.tensor([0]))
    for noise, want in (
        (loud, (1.0, 2.0)),
        (some, (11.0, 12.0)),
        (some.stream("climb"), (16.5, 12.0)),
    ):
        assert (float(noise(x, level, level)), float(noise.area(x, level, level))) == want


def test_inflated_noise_is_that_of_climbs() -> None:
    level, x = sg.VPSDE()(0.5), normal(5, 3)
    plain, loud = sg.Seeded(7), Inflated(1.5, sg.Seeded(7))
    for name in ("prior", "corrector", "climb"):
        factor = 1.5 if name == "climb" else 1.0
        for _ in range(2):
            z = plain.stream(name)(x, level, level)
            close(loud.stream(name)(x, level, level), factor * z, 0)
    close(loud(x, level, level), plain(x, level, level), 0)
    with refused("S_noise is a factor >= 0, but it is -1.0"):
        Inflated(-1.0)

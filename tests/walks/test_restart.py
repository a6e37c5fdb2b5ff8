"""Restart, RePaint, and sampling on from a partly noised state."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen import walks
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.sampling import recipes
from sdegen.solvers.classical import RK4
from sdegen.walks import grids
from tests.cases import SDES, Replay, Smooth, at_rho, close, normal, seen
from tests.solutions import edm_heun

NET = Smooth()
DDPM = sg.DiscreteVPSDE()


# --------------------------------------------------------------------------- restart and RePaint


def test_restart_visits_what_its_algorithm_does() -> None:
    """Xu et al. (2023), alg. 1, written out: which sigma the network sees, one Heun step's two."""

    def edm(high: float, low: float, n: int) -> np.ndarray:
        roots = np.linspace(high ** (1 / 7), low ** (1 / 7), n)
        return np.asarray(roots**7)

    n, intervals = 18, [(4, 1, 19.35, 40.79), (3, 2, 0.095, 0.30)]
    main = edm(80, 0.002, n)
    nearest = {int(abs(main - low).argmin()): (N, K, high) for N, K, low, high in intervals}
    want: list[float] = []
    for i in range(1, n):
        want += [main[i - 1], main[i]]
        if i in nearest:
            N, K, high = nearest[i]
            for t, s in list(pairwise(edm(high, main[i], N))) * K:
                want += [t, s]
    at, out = seen(recipes.restart(n, intervals), sg.EDMSDE())
    close(at, [*want, 0.002], 1e-9)
    assert out.nfe.tolist() == [len(want) + 1] * 2


@pytest.mark.parametrize(
    ("n", "intervals", "calls"),
    [
        (18, [(3, 2, 0.06, 0.30)], 43),
        (
            36,
            [
                (4, 1, 19.35, 40.79),
                (4, 1, 1.09, 1.92),
                (4, 5, 0.59, 1.09),
                (4, 5, 0.30, 0.59),
                (6, 6, 0.06, 0.30),
            ],
            203,
        ),
    ],
)
def test_restart_takes_the_calls_that_were_published(
    n: int, intervals: list[tuple[int, int, float, float]], calls: int
) -> None:
    """CIFAR-10's shortest and ImageNet 64's longest configuration."""
    _, out = seen(recipes.restart(n, intervals), sg.EDMSDE())
    assert out.nfe.tolist() == [calls] * 2


def test_restart_is_the_same_heun() -> None:
    """One interval by hand, S_noise included."""
    n, z = 8, normal(2, 4, 2, seed=1)
    sigma = sg.walks.karras(sg.EDMSDE(), n - 1)
    x = start = 80 * normal(4, 2)
    i = int((sigma - 0.06).abs().argmin())
    for t, s in pairwise(sigma[: i + 1]):
        x = edm_heun(x, t, s)
    for k in range(2):
        again = sg.walks.karras(sg.EDMSDE(), 3, start=1.5, stop=float(sigma[i]))
        x = x + 1.1 * (again[0] ** 2 - again[-1] ** 2).sqrt() * z[k]
        for t, s in pairwise(again):
            x = edm_heun(x, t, s)
    for t, s in pairwise([*sigma[i:], torch.zeros(()).double()]):
        x = edm_heun(x, t, s)
    how = recipes.restart(n, [(4, 2, 0.06, 1.5)], S_noise=1.1, noise=Replay(list(z)))
    close(sg.sample(sg.ScoreModel(NET, sg.EDMSDE(), "edm"), start, **how), x, 1e-11)


@pytest.mark.parametrize(
    ("n", "j", "r"), [(250, 10, 10), (20, 3, 2), (25, 5, 4), (9, 8, 3), (7, 1, 2)]
)
def test_repaint_is_diffusers(n: int, j: int, r: int) -> None:
    from diffusers import RePaintScheduler

    published = RePaintScheduler()
    published.set_timesteps(n, jump_length=j, jump_n_sample=r)
    walk = walks.repaint(DDPM, grids.leading(DDPM, n - 1), j, r)
    unit, visited = 1000 // n, [round(float(walk[0]) * 1000) - 1]
    for t in (walk[1:] * 1000).round().long() - 1:
        # One climb here is j steps up there.
        here = visited[-1]
        visited += list(range(here + unit, int(t) + 1, unit)) if t > here else [int(t)]
    assert visited == published.timesteps.tolist()


def test_repaint_is_the_published_number_of_steps() -> None:
    at, out = seen(recipes.repaint(), DDPM)
    # 23 places to jump from, 9 times 10 steps each.
    assert out.nfe.tolist() == [250 + 9 * 10 * 24] * 2
    assert set(at) == set(grids.linspace(DDPM, 249).tolist())


# --------------------------------------------------------------------- from a partly noised image


@pytest.mark.parametrize("name", ["vp", "subvp", "cosine", "flow", "edm"])
def test_sampling_goes_on_from_a_partly_noised_image(name: str) -> None:
    """SDEdit, Meng et al. (2022): on Gaussian data x is an affine function of x0 and z, known."""
    sde, m, v = SDES[name], 0.4, 0.49
    model = exact_model(Gaussian([m], [v]), sde)
    x0, z = (
        torch.tensor([[1.5], [0.0], [1.5]]).double(),
        torch.tensor([[0.0], [0.0], [1.0]]).double(),
    )
    end = sde(sde.t_min)
    kept, spread = [], []
    for t in (at_rho(sde, 0.1), at_rho(sde, 0.7), at_rho(sde, 3.0), sde.T):
        level = sde(t)
        x_t, _ = sde.perturb(x0, torch.full((3,), t, dtype=torch.float64), z)
        x = sg.sample(model, x_t, solver=RK4("lam"), walk=sg.walks.log_snr(sde, 100, start=t))
        ratio = ((end.alpha**2 * v + end.sigma**2) / (level.alpha**2 * v + level.sigma**2)).sqrt()
        close(x, end.alpha * m + ratio * (x_t - level.alpha * m), 1e-6)
        kept.append(float(x[0] - x[1]) / 1.5)
        spread.append(float(x[2] - x[0]))
    assert all(a > b for a, b in pairwise(kept)) and kept[0] > 0.5 > 0.1 > kept[-1]
    distance = [(1 - k) ** 2 * v + s**2 for k, s in zip(kept, spread, strict=True)]
    assert all(a < b for a, b in pairwise(distance))

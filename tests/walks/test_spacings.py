"""DDPM's own time steps as grids: diffusers' spacings, step for step."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.sampling import recipes
from sdegen.walks import grids
from sdegen.walks.grids import GRIDS
from tests.cases import SDES, Smooth, close, normal, refused, seen

NET = Smooth()
DDPM = sg.DiscreteVPSDE()


@pytest.mark.parametrize("n", [50, 1000])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("leading", {}),
        ("leading", {"steps_offset": 1}),
        ("trailing", {}),
        ("linspace", {}),
    ],
)
def test_the_network_is_asked_at_diffusers_time_steps(
    name: str, how: dict[str, int], n: int
) -> None:
    from diffusers import DDIMScheduler, DDPMScheduler

    sde = sg.DiscreteVPSDE(np.linspace(1e-4, 2e-2, n).tolist())
    grid = partial(GRIDS[name], offset=how["steps_offset"]) if how else name
    for K in (2, 3, 7, 10, 24, 48, 49):
        for scheduler in (DDIMScheduler, DDPMScheduler):
            published = scheduler(num_train_timesteps=n, timestep_spacing=name, **how)
            published.set_timesteps(K)
            at, out = seen({"solver": sg.DDIM(), "denoise": True}, sde, nfe=K, walk=grid)
            close(at, (published.timesteps + 1) / n, 1e-6)
            assert [round(n * t - 1) for t in at] == published.timesteps.tolist()
            assert out.nfe.tolist() == [K, K]


def test_every_number_of_time_steps_is_diffusers() -> None:
    from diffusers import DDIMScheduler

    for name in ("leading", "trailing", "linspace"):
        published = DDIMScheduler(timestep_spacing=name)
        for K in range(2, 1001, 13):
            published.set_timesteps(K)
            # Its own trailing spacing has a step too many, number -1, where arange overshoots.
            want = published.timesteps[:K]
            assert torch.equal((GRIDS[name](DDPM, K - 1) * 1000).round().long() - 1, want), K


def test_ddims_quadratic_steps() -> None:
    for K in (2, 5, 10, 20, 21, 50, 54, 80, 100, 1000):
        published = (np.linspace(0, np.sqrt(1000 * 0.8), K) ** 2).astype(int)
        got = (grids.ddim_quadratic(DDPM, K - 1) * 1000).round().long() - 1
        assert got.tolist() == sorted(set(published.tolist()), reverse=True)
    assert len(grids.ddim_quadratic(DDPM, 19)) == 20


@pytest.mark.parametrize("name", ["leading", "trailing", "linspace", "ddim_quadratic"])
def test_ddpm_grids_are_for_its_steps(name: str) -> None:
    for sde in SDES.values():
        with refused(
            f"{name} grid picks from the steps of a DiscreteVPSDE, and {type(sde).__name__}"
        ):
            GRIDS[name](sde, 5)
    assert GRIDS[name](DDPM, 999)[-1] == 1e-3
    with refused("picks 1001 times for 1000 steps.*at most 999 steps"):
        GRIDS[name](DDPM, 1000)
    with refused("steps >= 1, but steps = 0"):
        GRIDS[name](DDPM, 0)
    with refused(r"stays within \[t_min, T\]"):
        grids.leading(DDPM, 999, offset=1)


def test_ddim_is_diffusers() -> None:
    from diffusers import DDIMScheduler

    n, x = 10, normal(4, 2)
    for spacing in ("leading", "trailing"):
        scheduler = DDIMScheduler(
            beta_start=1e-4, beta_end=2e-2, clip_sample=False, timestep_spacing=spacing
        )
        beta = torch.tensor(DDPM.betas, dtype=torch.float64)
        scheduler.alphas_cumprod = (1 - beta).cumprod(0)
        scheduler.set_timesteps(n)
        y = x
        for i in scheduler.timesteps:
            eps = NET(y, (i / 100).double().expand(4))
            y = scheduler.step(eps, i, y).prev_sample
        model = sg.ScoreModel(
            lambda x, i: NET(x, i / 100), DDPM, "eps", time="1000t-1", module=NET
        )
        out = sg.solve(model, x, **recipes.ddim(n, walk=spacing))
        close(out.x, y, 1e-5)
        assert out.nfe.tolist() == [n] * 4

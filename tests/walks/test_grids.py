"""Grids: equal steps of what they say, between ends that no rounding moves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import sdegen as sg
from sdegen.walks.grids import GRIDS
from sdegen.walks.walk import check_walk
from tests.cases import EVERY, SDES, close, every_sde, refused, sdes

ANYWHERE = ("eased", "focused", "karras", "log_snr", "quadratic", "uniform")
"""The grids that are not picked from DDPM's own steps."""

N = (1, 2, 7, 50)


def equal_steps(values: Tensor, rtol: float = 1e-9) -> None:
    """An arithmetic progression."""
    line = torch.linspace(float(values[0]), float(values[-1]), len(values), dtype=torch.float64)
    close(values, line, 0, rtol * float(values.abs().max()))


@every_sde
@pytest.mark.parametrize("n", N)
def test_steps_are_equal_in_the_grids_own_clock(sde: sg.LinearSDE, n: int) -> None:
    equal_steps(sg.walks.uniform(sde, n))
    equal_steps(sg.walks.quadratic(sde, n).sqrt())
    equal_steps(sde(sg.walks.log_snr(sde, n)).lam)
    equal_steps(sde(sg.walks.karras(sde, n)).rho ** (1 / 7))
    equal_steps(sde(sg.walks.karras(sde, n, power=3.0)).rho ** (1 / 3))
    lam = sde(sg.walks.focused(sde, n)).lam
    equal_steps(lam + 4 * 4 * torch.tanh((lam - 1) / 4))
    lam = sde(sg.walks.focused(sde, n, center=2.0, width=2.5, strength=2.0)).lam
    equal_steps(lam + 2 * 2.5 * torch.tanh((lam - 2) / 2.5))
    close(
        sde(sg.walks.focused(sde, n, strength=0.0)).lam, sde(sg.walks.log_snr(sde, n)).lam, 0, 1e-8
    )


@every_sde
def test_few_steps_are_eased(sde: sg.LinearSDE) -> None:
    """Between equal steps of tau and focused ones, in tau; from ten steps on focused."""
    walks = sg.walks
    for n, share in ((2, 0.5), (4, 0.5), (5, 0.75), (9, 0.75), (10, 1.0), (40, 1.0)):
        one, two = (sde(made(sde, n)).tau for made in (walks.straight, walks.focused))
        close(sde(walks.eased(sde, n)).tau, one + share * (two - one), 0, 1e-9)
    assert torch.equal(walks.eased(sde, 10), walks.focused(sde, 10))
    for share, grid in ((0.0, walks.straight), (1.0, walks.focused)):
        close(walks.eased(sde, 7, share=share), grid(sde, 7), 0, 1e-9)
    assert walks.eased(sde, 1).tolist() == [sde.T, sde.t_min]
    with refused("within"):
        walks.eased(sde, 5, share=1.1)


@pytest.mark.parametrize("n", N)
def test_karras_is_the_papers_eq_5(n: int) -> None:
    i = np.arange(n + 1)
    sigma = (80 ** (1 / 7) + i / n * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    close(sg.walks.karras(sg.EDMSDE(), n), sigma)


def test_textbook_grids() -> None:
    close(sg.walks.uniform(sg.VPSDE(), 4), np.linspace(1, 1e-3, 5))
    close(sg.walks.quadratic(sg.VPSDE(), 4), np.linspace(1, math.sqrt(1e-3), 5) ** 2)
    close(sg.walks.log_snr(sg.EDMSDE(), 4), np.geomspace(80, 0.002, 5))
    close(sg.walks.log_snr(sg.VESDE(), 4), sg.walks.uniform(sg.VESDE(), 4))


@given(
    st.sampled_from(sorted(EVERY)),
    st.sampled_from(sorted(ANYWHERE)),
    st.integers(1, 300),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
)
def test_every_grid_falls_from_start_to_stop(
    name: str, grid: str, n: int, a: float, b: float
) -> None:
    sde = EVERY[name]
    low, high = sorted(sde.t_min + part * (sde.T - sde.t_min) for part in (a, b))
    # Bisection resolves time(lam) to 2^-52 T: a grid of 300 steps needs more room than that.
    if high - low < 1e-3 * sde.T:
        low, high = sde.t_min, sde.T
    walk = GRIDS[grid](sde, n, start=high, stop=low)
    assert walk.shape == (n + 1,) and walk.dtype == torch.float64
    assert float(walk[0]) == high and float(walk[-1]) == low
    assert bool((walk.diff() < 0).all())


@every_sde
@pytest.mark.parametrize("grid", ANYWHERE)
def test_ends_are_the_sdes_own(sde: sg.LinearSDE, grid: str) -> None:
    for n in N:
        walk = GRIDS[grid](sde, n)
        assert float(walk[0]) == sde.T and float(walk[-1]) == sde.t_min
        close(GRIDS[grid](sde, n, start=sde.T, stop=sde.t_min), walk)


@sdes
def test_a_part_of_a_grid_starts_and_stops_where_it_is_told(sde: sg.LinearSDE) -> None:
    start, stop = 0.7 * sde.T, 0.2 * sde.T
    for grid in (GRIDS[name] for name in ANYWHERE):
        assert float(grid(sde, 5, start=start)[0]) == start
        assert float(grid(sde, 5, stop=stop)[-1]) == stop
    equal_steps(sde(sg.walks.log_snr(sde, 5, start=start, stop=stop)).lam)


# ------------------------------------------------------------------------------ walks by hand


def test_float32_ends_are_moved_onto_the_interval() -> None:
    for sde in SDES.values():
        rough = sg.walks.log_snr(sde, 9).float()
        walk = check_walk(sde, rough)
        assert walk.dtype == torch.float64
        assert sde.t_min <= float(walk[-1]) and float(walk[0]) <= sde.T
        close(walk, rough, rtol=2e-7)
    nudged = torch.tensor([1 + 5e-7, 0.5, 1e-3 * (1 - 5e-7)], dtype=torch.float64)
    assert check_walk(sg.VPSDE(), nudged).tolist() == [1.0, 0.5, 1e-3]


@every_sde
def test_only_a_rounding_is_forgiven(sde: sg.LinearSDE) -> None:
    for first, last in ((sde.T * (1 + 1e-4), sde.t_min), (sde.T, sde.t_min * (1 - 1e-4))):
        with refused(r"stays within \[t_min, T\]"):
            check_walk(sde, torch.tensor([first, last], dtype=torch.float64))


def test_a_walk_is_cut_off_from_its_graph() -> None:
    t = torch.tensor([0.9, 0.5], requires_grad=True)
    assert not check_walk(sg.VPSDE(), t).requires_grad


@every_sde
def test_levels_are_the_sdes_at_each_time(sde: sg.LinearSDE) -> None:
    walk = sg.walks.uniform(sde, 6)
    for t, level in zip(walk, sg.walks.levels(sde, walk), strict=True):
        assert torch.equal(level.t, t) and level.t.shape == () and level.t.device.type == "cpu"
        assert isinstance(level, sg.Level) and level.alpha.dtype == torch.float64
        close(level.alpha, sde(t).alpha, rtol=1e-14)
        close(level.sigma, sde(t).sigma, rtol=1e-14)

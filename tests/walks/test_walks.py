"""Walks in use: as grids, from settings, and refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen import walks
from sdegen.exact.distributions import exact_model
from sdegen.sampling import recipes
from sdegen.solvers.classical import Heun
from sdegen.walks.grids import GRIDS, Grid
from tests.cases import MIXTURE, climbing, climbs, close, refused

pytestmark = pytest.mark.filterwarnings("ignore:ancestral turns at t_min")  # eta = 2 does

DDPM = sg.DiscreteVPSDE()


@climbing
@pytest.mark.parametrize(
    "solver", [sg.DDIM(), Heun(), sg.DPMSolverPP(2)], ids=lambda s: type(s).__name__
)
def test_every_solver_takes_them_as_a_grid(solver: sg.Solver, by: walks.Climb) -> None:
    sde = sg.VPSDE()
    model, grid = exact_model(MIXTURE, sde), partial(walks.zigzag, grid=sg.walks.karras, by=by)
    how: dict[str, Any] = {"solver": solver, "seed": 3}
    x = sg.sample(model, (5, 2), steps=12, walk=grid, **how)
    close(x, sg.sample(model, (5, 2), walk=by(sde, sg.walks.karras(sde, 12)), **how), 0)
    close(x[:2], sg.sample(model, (2, 2), steps=12, walk=grid, **how), 1e-12)
    plain = sg.sample(model, (5, 2), steps=12, walk="karras", **how)
    assert float((x - plain).abs().min()) > 1e-6


@pytest.mark.parametrize("name", ["ancestral", "churn", "restart", "repaint"])
def test_settings_build_a_climbing_grid(name: str) -> None:
    from hydra import compose, initialize_config_module

    from sdegen.cli.main import store_groups
    from sdegen.runs.build import build

    store_groups()
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        for grid in ("uniform", "karras", "log_snr"):
            arguments = [f"walk={name}", f"walk@walk.grid={grid}", "run=x", "name=x"]
            for sde in (sg.VPSDE(), DDPM):
                walk = build(compose("sample", arguments).walk)(sde, 30)
                assert climbs(walk) > 1 and climbs(GRIDS[grid](sde, 30)) == 0
                assert set(GRIDS[grid](sde, 30).tolist()) <= set(walk.tolist())


@pytest.mark.parametrize("name", ["leading", "trailing", "linspace", "ddim_quadratic"])
def test_settings_build_ddpms_grids(name: str) -> None:
    from hydra import compose, initialize_config_module

    from sdegen.cli.main import store_groups
    from sdegen.runs.build import build

    store_groups()
    with initialize_config_module("sdegen.conf", version_base="1.3"):
        grid: Grid = build(compose("sample", [f"walk={name}", "run=x", "name=x"]).walk)
    close(grid(DDPM, 9), GRIDS[name](DDPM, 9), 0)


class Drifting(sg.SDE):
    """No marginals: dx = dw."""

    T, t_min = 1.0, 1e-3

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.ones((), dtype=x.dtype)

    @property
    def prior(self) -> sg.Prior:
        return sg.Prior(1.0)


@climbing
def test_only_linear_sdes_climb(by: walks.Climb) -> None:
    with refused("needs alpha and sigma, but Drifting gives only drift and diffusion: leave"):
        by(Drifting(), sg.walks.uniform(Drifting(), 5))
    with refused("whose times fall; these climb already"):
        by(sg.VPSDE(), torch.tensor([1.0, 0.5, 0.6, 0.1]))


def restarting(*interval: float) -> Callable[[], Tensor]:
    given: Sequence[Any] = [interval]
    return lambda: walks.restart(sg.EDMSDE(), sg.walks.karras(sg.EDMSDE(), 17), given)


GRID = sg.walks.karras(sg.EDMSDE(), 17)
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "eta": (lambda: walks.ancestral(sg.EDMSDE(), GRID, -0.1), "eta >= 0, but eta = -0.1"),
    "eta is nan": (
        lambda: walks.ancestral(sg.EDMSDE(), GRID, math.nan),
        "eta must be a number",
    ),
    "S_churn": (lambda: walks.churn(sg.EDMSDE(), GRID, -1.0), "S_churn >= 0, but S_churn = -1.0"),
    "above T": (restarting(0.06, 81.0, 1, 2), r"at most 80 = rho\(T\), but rho_max = 81"),
    "not up": (restarting(0.3, 0.06, 1, 2), "to a rho above it .* but rho_max = 0.06"),
    "nearest is above": (
        restarting(0.05, 0.059, 1, 2),
        "from rho = 0.0599.*, the walk's nearest to 0.05",
    ),
    "no K": (restarting(0.06, 0.3, 0, 2), "restart's K must be a whole number >= 1, but it is 0"),
    "no n": (restarting(0.06, 0.3, 1, 0), "steps >= 1, but steps = 0"),
    "three": (restarting(0.06, 0.3, 1), r"An interval is \(rho_min, rho_max, K, n\), but"),
    "jump": (
        lambda: walks.repaint(sg.EDMSDE(), GRID, 0),
        "jump_length must be a whole number >= 1",
    ),
    "resamplings": (lambda: walks.repaint(sg.EDMSDE(), GRID, 2, 0), "resamplings must be a whole"),
    "edm of one": (lambda: recipes.edm(1), "n >= 2 times, but n = 1"),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_walked_is_refused(wrong: Callable[[], Any], message: str) -> None:
    with refused(message):
        wrong()


@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.EDMSDE(), sg.FlowSDE(T=1.0)], ids=str)
def test_multistep_goes_down_to_the_end_and_up_again(sde: sg.LinearSDE) -> None:
    """As many calls as steps, each to t_min, from the grid's own times."""
    times = walks.straight(sde, 3)
    walk = walks.multistep(sde, times)
    assert walk.tolist() == [x for t in times[:-1].tolist() for x in (t, float(times[-1]))]
    assert walks.Walk(sde, walk).descents == 3


@pytest.mark.parametrize(
    "sde", [sg.VPSDE(), sg.EDMSDE(), sg.VESDE(), sg.FlowSDE(T=1.0, t_min=0.0)], ids=str
)
def test_straight_is_even_in_tau(sde: sg.LinearSDE) -> None:
    """Also where lam is infinite at both ends; on FlowSDE it is the uniform grid."""
    tau = sde(walks.straight(sde, 7)).tau
    close(tau.diff(), (tau.diff()).mean().expand(7), rtol=1e-9)
    if isinstance(sde, sg.FlowSDE):
        close(walks.straight(sde, 7), walks.uniform(sde, 7), rtol=1e-12)

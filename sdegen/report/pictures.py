"""Pictures of the report, of solves made for them: orders, paths in the plane, and digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen.solvers as our
from sdegen.bench import problems
from sdegen.exact.distributions import exact_model
from sdegen.exact.orders import mixture, rms, starts
from sdegen.model.denoiser import Denoiser
from sdegen.report.figures import DEFAULT, OURS, curve, panel, scaled, styles, svg
from sdegen.sampling.march import solve
from sdegen.sde.level import expand
from sdegen.sde.process import LinearSDE
from sdegen.sde.song import VPSDE
from sdegen.solvers import RK4, RK5
from sdegen.solvers.solver import Solver
from sdegen.walks.grids import focused

Methods = Mapping[str, tuple[Solver, Any]]
"""Solver and walk, by name."""
WIDE = our.Multistep(4, 4, clock="wide")
SHOWN: Methods = {
    "DDIM": (our.DDIM(), "log_snr"),
    "DPM-Solver++(2M)": (our.DPMSolverPP(2), "log_snr"),
    "Multistep(4, 4), wide": (WIDE, focused),
}
"""Whose paths are drawn: solver and walk."""
DIGITS: Methods = {
    "DDIM": (our.DDIM(), "log_snr"),
    "Heun": (our.Heun("rho"), "karras"),
    "DPM-Solver++(2M)": (our.DPMSolverPP(2), "log_snr"),
    "UniPC-3": (our.UniPC(3), "log_snr"),
    "Multistep(4, 4), wide": (WIDE, focused),
    "the same, Euler at the end": (
        our.Multistep(4, 4, clock="wide", euler_at_final=True),
        focused,
    ),
    "DDPM": (our.Ancestral(), "log_snr"),
    "Euler-Maruyama": (our.EulerMaruyama(), "log_snr"),
}
"""Whose digits are shown."""
LINES: dict[str, Solver] = {
    "DDIM": our.DDIM(),
    "Heun": our.Heun(),
    "DPM-Solver++(2M)": our.DPMSolverPP(2),
    "DPM-Solver++(3M), as published": our.DPMSolverPP(3, published=True),
    "DPM-Solver++(3M), exact": our.DPMSolverPP(3),
    "UniPC-3": our.UniPC(3),
    "Multistep(3, corrector 4)": our.Multistep(3, 4),
    "Multistep(4, corrector 5)": our.Multistep(4, 5),
}
"""Whose orders are drawn."""


def orders(solvers: Mapping[str, Solver], steps: Sequence[int] = (8, 16, 32, 64)) -> str:
    """Error over steps on a mixture's flow, with lines of slopes 1 to 4."""
    sde = VPSDE()
    model, x = exact_model(mixture(), sde), starts(sde, 16)
    exact = solve(model, x, solver=RK5("lam"), steps=256).x
    figure, axis = panel("mixture of three, vp")
    known = []
    for style, solver in zip(styles(len(solvers)), solvers.values(), strict=True):
        ends = [solve(model, x, solver=solver, steps=n, eta=0.0, seed=0).x for n in steps]
        errors = [rms(end - exact) for end in ends]
        axis.plot(steps, errors, **style)
        known += errors
    for order in (1, 2, 3, 4):
        fall = [(n, max(known) * (steps[0] / n) ** order) for n in steps]
        axis.plot(*curve(fall), color="#aaaaaa", lw=0.8, ls=(0, (4, 3)), zorder=0)
    scaled(axis, steps, min(known), max(known))
    axis.set(xlabel="steps", ylabel="root mean square error")
    return svg(figure, "Error over steps")


def trajectories(problem: str, methods: Methods, steps: int = 10) -> list[str]:
    """Paths in the plane, x / sqrt(alpha^2 + sigma^2), with the points a solver stops at."""
    spread = {"mixture": problems.mixture, "stiff": problems.stiff}[problem]()
    sde = VPSDE()
    model = spread.model(sde)
    top, bottom = (sde(torch.tensor(t, dtype=torch.float64)) for t in (sde.T, sde.t_min))
    start, cloud = spread.noised(top, 24, 3), spread.noised(bottom, 1500, 4)
    fine = path_of(model, start, RK4("lam"), "log_snr", 100)
    drawn = []
    for name, (solver, walk) in methods.items():
        stops = path_of(model, start, solver, walk, steps)
        figure, axis = panel(name, 3.12, left=0.02, right=0.98, bottom=0.02)
        axis.scatter(*cloud.T, s=1, color="#dcdcdc", rasterized=True)
        axis.plot(*fine.permute(2, 0, 1), color="#a8a8a8", lw=0.6)
        axis.plot(*stops.permute(2, 0, 1), ".-", color=OURS, lw=0.7, ms=2, mew=0)
        axis.scatter(*stops[-1].T, s=8, color=DEFAULT, zorder=4, lw=0)
        axis.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xticks=[], yticks=[])
        axis.spines[:].set(visible=True, color="#cccccc")
        drawn.append(svg(figure, f"{problem}: paths of {name}, {steps} steps"))
    return drawn


def path_of(model: Denoiser, x: Tensor, solver: Solver, walk: Any, steps: int) -> Tensor:
    """All the states of a solve, each of variance about one, (steps + 1, b, 2)."""
    path = solve(model, x, solver=solver, walk=walk, steps=steps, seed=0, path=True).path
    assert path is not None and isinstance(model.sde, LinearSDE)
    level = model.sde(path.t.double())
    return path.x / expand((level.alpha**2 + level.sigma**2).sqrt(), path.x)


def digit_grids(
    methods: Methods, budgets: Sequence[int], run: Path | None, n: int = 6
) -> list[str]:
    """Of every method the same n starts, a row for each number of network calls.

    ValueError for a run whose samples are no grey images."""
    problem = problems.digits() if run is None else problems.run(str(run))
    if len(problem.shape) != 3 or problem.shape[0] != 1:
        raise ValueError(
            f"The page shows grey images, as the digits are, but samples of run={run} are "
            f"{problem.shape}: give a run of images of one channel, or leave run out."
        )
    sde: Any = VPSDE() if problem.network is None else problem.network.sde
    model = problem.model(sde)
    start = problem.noised(sde(torch.tensor(sde.T, dtype=torch.float64)), n, 0)
    drawn = []
    for name, (solver, walk) in methods.items():
        ends = [solve(model, start, solver=solver, nfe=b, walk=walk, seed=0).x for b in budgets]
        tiles = [torch.nn.functional.pad(x[:, 0], (1, 1, 1, 1), value=-1.0) for x in ends]
        picture = torch.cat([torch.cat(list(tile), 1) for tile in tiles])
        height = 0.3 + 2.7 * len(budgets) / n
        figure, axis = panel(name, height, left=0.11, right=0.99, bottom=0.02)
        axis.imshow(picture.clamp(-1, 1), cmap="gray_r", interpolation="none", aspect="auto")
        size = len(picture) / len(budgets)
        axis.set_yticks([(i + 0.5) * size - 0.5 for i in range(len(budgets))], budgets)
        axis.tick_params(length=0)
        axis.set(xticks=[])
        axis.spines[:].set_visible(False)
        drawn.append(svg(figure, f"digits of {name} at {', '.join(map(str, budgets))} calls"))
    return drawn

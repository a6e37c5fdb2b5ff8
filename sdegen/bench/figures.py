"""Figures of the report as SVG: each a pure function of the points, or of a problem."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.analytic import exact_model
from sdegen.bench import problems
from sdegen.bench.results import Cell, Choice, Results, best
from sdegen.march import solve
from sdegen.orders import mixture, rms, starts
from sdegen.score import ScoreModel
from sdegen.sde import VPSDE, LinearSDE, expand
from sdegen.solvers import RK4, RK5
from sdegen.solvers.solver import Solver

OURS, DEFAULT, OTHERS, FAINT = "#0b62a4", "#d1495b", "#333333", "#b8b8b8"


def svg(figure: Any) -> str:
    """A figure as an SVG element, without the file's head and what it says about itself."""
    import matplotlib.pyplot as plt

    out = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "sdegen", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)
    text = re.sub(r"<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    return text[text.index("<svg") :]


def panels(n: int, width: float = 3.1, height: float = 2.5) -> tuple[Any, list[Any]]:
    """n axes, three in a row."""
    import matplotlib.pyplot as plt

    columns = min(n, 3)
    rows = -(-n // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * width, rows * height), squeeze=False
    )
    flat = list(axes.flat)
    for axis in flat[n:]:
        axis.set_visible(False)
    figure.subplots_adjust(hspace=0.34, wspace=0.28)
    return figure, flat[:n]


def label(axes: Sequence[Any], x: str, y: str) -> None:
    """Below the lowest axes and left of the first ones."""
    for axis in axes[-3:]:
        axis.set_xlabel(x)
    for axis in axes[::3]:
        axis.set_ylabel(y)


def work_precision(
    errors: Mapping[Choice, Mapping[Cell, float]],
    problem: str,
    sdes: Sequence[str],
    budgets: Sequence[int],
    default: Choice | None,
) -> str:
    """Error over network calls, a panel for each SDE: every method, and who is best at each."""
    figure, axes = panels(len(sdes))
    for axis, sde in zip(axes, sdes, strict=True):
        cells = [Cell(problem, sde, nfe) for nfe in budgets]
        for choice, row in errors.items():
            known = [(c.nfe, row[c]) for c in cells if c in row]
            if known:
                color = OURS if choice.ours else FAINT
                alpha, order = (0.18, 2) if choice.ours else (0.8, 1)
                axis.plot(
                    *zip(*known, strict=True), color=color, lw=0.7, alpha=alpha, zorder=order
                )
        for ours, color, style, name in (
            (False, OTHERS, "--", "best of the others"),
            (True, OURS, "-", "best of sdegen"),
        ):
            line = [(c.nfe, b.error) for c in cells if (b := best(errors, c, ours)) is not None]
            if line:
                axis.plot(
                    *zip(*line, strict=True), style, color=color, lw=1.8, label=name, zorder=4
                )
        if default is not None and default in errors:
            line = [(c.nfe, errors[default][c]) for c in cells if c in errors[default]]
            axis.plot(*zip(*line, strict=True), color=DEFAULT, lw=1.6, label="fixed", zorder=3)
        axis.set(xscale="log", yscale="log", title=sde)
        axis.set_xticks(budgets, [str(b) if b in (5, 10, 20, 50, 100) else "" for b in budgets])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    label(axes, "network calls", "median error per coordinate")
    return svg(figure)


def orders(solvers: Mapping[str, Solver], steps: Sequence[int] = (8, 16, 32, 64, 128)) -> str:
    """Error over steps on a mixture's flow, with lines of slopes 1 to 4."""
    sde = VPSDE()
    model, x = exact_model(mixture(), sde), starts(sde, 16)
    exact = solve(model, x, solver=RK5("lam"), steps=1024).x
    figure, (axis,) = panels(1, 6.4, 4.2)
    for power in (1, 2, 3, 4):
        fall = [(steps[0] / n) ** power for n in steps]
        axis.plot(steps, fall, "--", color=FAINT, lw=0.8)
    for name, solver in solvers.items():
        ends = [solve(model, x, solver=solver, steps=n, eta=0.0, seed=0).x for n in steps]
        axis.plot(steps, [rms(end - exact) for end in ends], "o-", ms=3, lw=1.3, label=name)
    axis.set(xscale="log", yscale="log", xlabel="steps", ylabel="root mean square error")
    axis.set_xticks(steps, list(map(str, steps)))
    axis.minorticks_off()
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return svg(figure)


def laws(results: Results, problem: str, sdes: Sequence[str]) -> str:
    """Sliced Wasserstein distance of samplers with noise, with the floor of exact draws."""
    figure, axes = panels(len(sdes))
    names = sorted({p["settings"]["solver"] for p in results.of("law")})
    colors = {name: f"C{i % 10}" for i, name in enumerate(names)}
    for axis, sde in zip(axes, sdes, strict=True):
        here = [
            p
            for p in results.of("law")
            if (p["settings"]["problem"], p["settings"]["sde"]) == (problem, sde)
        ]
        for name in names:
            line = sorted(
                (p["nfe"], p["errors"]["sliced"]) for p in here if p["settings"]["solver"] == name
            )
            if line:
                ours = any(
                    p["library"] == "sdegen" for p in here if p["settings"]["solver"] == name
                )
                axis.plot(
                    *zip(*line, strict=True),
                    "-" if ours else ":",
                    color=colors[name],
                    lw=1.3,
                    label=name,
                )
        if here:
            axis.axhline(here[0]["floor"]["sliced"], color="k", lw=0.8, ls="--")
        axis.set(xscale="log", yscale="log", title=sde)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    label(axes, "network calls", "sliced Wasserstein distance")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, frameon=False, fontsize=8, loc="upper center", ncol=4,
        bbox_to_anchor=(0.5, 0.0),
    )  # fmt: skip
    return svg(figure)


def trajectories(problem: str, solvers: Mapping[str, tuple[Solver, Any]], steps: int = 10) -> str:
    """Paths in the plane, x / sqrt(alpha^2 + sigma^2), with the points a solver stops at."""
    spread = {"mixture": problems.mixture, "stiff": problems.stiff}[problem]()
    sde = VPSDE()
    model = spread.model(sde)
    top, bottom = (sde(torch.tensor(t, dtype=torch.float64)) for t in (sde.T, sde.t_min))
    start, cloud = spread.noised(top, 24, 3), spread.noised(bottom, 1500, 4)
    figure, axes = panels(len(solvers), height=3.0)
    fine = path_of(model, start, RK4("lam"), "log_snr", 100)
    for axis, (name, (solver, walk)) in zip(axes, solvers.items(), strict=True):
        stops = path_of(model, start, solver, walk, steps)
        axis.scatter(*cloud.T, s=1, color="#dddddd", rasterized=True)
        axis.plot(*fine.permute(2, 0, 1), color=FAINT, lw=0.6)
        axis.plot(*stops.permute(2, 0, 1), color=OURS, lw=0.8)
        axis.scatter(*stops[-1].T, s=8, color=DEFAULT, zorder=4)
        axis.set(
            title=f"{name}, {steps} steps", xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal"
        )
        axis.set_xticks([])
        axis.set_yticks([])
    return svg(figure)


def path_of(model: ScoreModel, x: Tensor, solver: Solver, walk: Any, steps: int) -> Tensor:
    """All the states of a solve, each of variance about one, (steps + 1, b, 2)."""
    path = solve(model, x, solver=solver, walk=walk, steps=steps, seed=0, path=True).path
    assert path is not None and isinstance(model.sde, LinearSDE)
    level = model.sde(path.t.double())
    return path.x / expand((level.alpha**2 + level.sigma**2).sqrt(), path.x)


def digit_grids(
    solvers: Mapping[str, tuple[Solver, Any]], budgets: Sequence[int], run: Path | None
) -> str:
    """Digits by solver (rows) and budget (columns) from the same starts."""
    problem = problems.digits() if run is None else problems.run(str(run))
    sde: Any = VPSDE() if problem.network is None else problem.network.sde
    model = problem.model(sde)
    start = problem.noised(sde(torch.tensor(sde.T, dtype=torch.float64)), 6, 0)
    figure, axes = panels(1)
    rows = []
    for solver, walk in solvers.values():
        ends = [solve(model, start, solver=solver, nfe=b, walk=walk, seed=0).x for b in budgets]
        tiles = [torch.nn.functional.pad(x[:, 0], (0, 1, 0, 1), value=1.0) for x in ends]
        rows.append(torch.cat([torch.cat(list(tile), 1) for tile in tiles], 1))
    picture = torch.cat(rows)
    figure.set_size_inches(9.3, 9.3 * len(picture) / picture.shape[1] + 0.3)
    axis = axes[0]
    axis.imshow(picture.clamp(-1, 1), cmap="gray_r", interpolation="nearest")
    width, height = picture.shape[1] / len(budgets), len(picture) / len(rows)
    axis.set_xticks(
        [(i + 0.5) * width for i in range(len(budgets))], [f"{b} calls" for b in budgets]
    )
    axis.set_yticks([(i + 0.5) * height for i in range(len(rows))], list(solvers))
    axis.tick_params(length=0, labelsize=8)
    axis.spines[:].set_visible(False)
    return svg(figure)

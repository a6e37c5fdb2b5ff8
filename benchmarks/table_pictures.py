"""What tables alone say of solvers, drawn: docs/stability.svg and docs/local_error.svg.

    python benchmarks/table_pictures.py
    python benchmarks/table_pictures.py --quick --out d   a look, in seconds, into the folder d

Stability. In y = x / alpha the probability flow is dy/dlam = x0 - y. Where the network answers a
disturbance of y by m times it, the exact flow shrinks it by exp((m - 1) h) a step if m < 1. Exact
denoisers have m >= 0; guidance, a difference of networks, makes m < 0 as well. The picture shows
the most negative m that steps of size h survive: 40 of them, alpha = 1, after which a disturbance
must not have grown.

Local error. On data N(0.3, 0.25) the flow is known. What a state is off, less what the flow makes
of the state before being off, is the error of that step; along ten steps on VP.
"""

from __future__ import annotations

import argparse
import math
from itertools import pairwise
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import torch
from matplotlib import pyplot as plt

import sdegen as sg
from sdegen.exact.distributions import Gaussian
from sdegen.exact.orders import ends
from sdegen.programs.table import tabulate

DOCS = Path(__file__).parents[1] / "docs"
SOLVERS: dict[str, sg.Solver] = {
    "DDIM": sg.DDIM(),
    "DPM-Solver++(2M)": sg.DPMSolverPP(2),
    "UniPC-3": sg.UniPC(3),
    "Multistep(3), eps": sg.Multistep(3, prediction="eps"),
    "Singlestep(2)": sg.solvers.Singlestep(2),
    "Heun in lam": sg.Heun("lam"),
}
STEPS, MOST = 40, 60.0


def survived(solver: sg.Solver, h: float) -> float:
    """The largest -m that steps of size h survive."""
    sde = sg.EDMSDE(T=1.0, t_min=math.exp(-h * STEPS))
    table = tabulate(solver, STEPS, sde)
    m = -torch.linspace(0.0, MOST, 2401, dtype=torch.float64)
    lasting = table.follow(lambda x, t: m * x, torch.ones_like(m))[-1].abs() <= 1.0
    # Up to the first that grows.
    return float(-m[int(lasting.long().cumprod(0).sum()) - 1]) if bool(lasting[0]) else math.nan


def local_errors(solver: sg.Solver, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """lam at the end of each step, and each step's own error, (n,) both; rms over 64 starts."""
    sde, data = sg.VPSDE(), Gaussian([0.3], [0.25])
    walk = sg.walks.levels(sde, sg.walks.log_snr(sde, n))
    top = ends(sde)[0]
    generator = torch.Generator().manual_seed(0)
    x = top.sigma * torch.randn(64, 1, dtype=torch.float64, generator=generator)
    states = [x, *tabulate(solver, walk, sde).follow(data.denoise, x)]
    errors = []
    for (t, s), (before, after) in zip(pairwise(walk), pairwise(states), strict=True):
        assert isinstance(t, sg.Level) and isinstance(s, sg.Level)
        errors.append((after - data.flow(before, t, s)).square().mean().sqrt())
    return torch.stack([level.lam for level in walk[1:]]), torch.stack(errors)  # type: ignore[attr-defined]


def main() -> None:
    """Draw both."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--out", type=Path, default=DOCS)
    parse.add_argument("--quick", action="store_true")
    args = parse.parse_args()
    out: Path = args.out
    plt.rcParams["svg.hashsalt"] = "sdegen"
    h = torch.linspace(0.05, 3.0, 6 if args.quick else 60).tolist()
    for name, draw in (("stability", draw_stability), ("local_error", draw_errors)):
        fig, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
        draw(ax, h)
        ax.legend(frameon=False, fontsize=9)
        ax.spines[["top", "right"]].set_visible(False)
        fig.savefig(out / f"{name}.svg", metadata={"Date": None})
        plt.close(fig)


def draw_stability(ax: plt.Axes, h: list[float]) -> None:
    """Limits over step sizes."""
    for name, solver in SOLVERS.items():
        ax.plot(h, [survived(solver, each) for each in h], label=name)
    ax.set(yscale="log", ylim=(0.3, MOST), xlabel="step in lam", ylabel="survives m down to minus")
    ax.set_title("Stability, from tables: higher is better", fontsize=10)


def draw_errors(ax: plt.Axes, h: list[float]) -> None:
    """Errors along ten steps."""
    for name, solver in SOLVERS.items():
        lam, error = local_errors(solver, 10)
        ax.plot(lam, error, marker="o", markersize=3, label=name)
    ax.set(yscale="log", xlabel="lam at the end of the step", ylabel="error of the step, rms")
    ax.set_title("Where the error is made: ten steps on VP, Gaussian data", fontsize=10)


if __name__ == "__main__":
    main()

"""What Euler-Maruyama's times do: the deviation of its samples on Gaussian data, exactly.

    python benchmarks/euler_grid.py                     writes benchmarks/euler_grid.json
    python benchmarks/euler_grid.py --quick --out f     a look, in seconds, into the file f

Data N(0, s^2) under VP: Euler-Maruyama is affine, so the variance of its samples follows from the
variance before by one multiplication and one addition. Shown is the standard deviation of samples
over that of x at t_min, sqrt(alpha^2 s^2 + sigma^2). "score_sde" is the loop of Song et al.
(2021)'s code: N steps of length 1/N at the times linspace(1, eps, N), one more than there is way.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

import sdegen as sg
from sdegen.exact.orders import law
from sdegen.solvers.budget import walk_for

OUT = Path(__file__).with_suffix(".json")
SDE, SOLVER = sg.VPSDE(), sg.EulerMaruyama()
WALKS = ("uniform", "quadratic", "log_snr")


def published(s: float, n: int) -> float:
    """Variance at the end of score_sde's loop, over what it should be."""
    times = torch.linspace(SDE.T, SDE.t_min, n, dtype=torch.float64)
    at = SDE(times)
    v, dt = 1.0, 1 / n
    spread = (at.alpha**2 * s**2 + at.sigma**2).tolist()
    for beta, here in zip(SDE.beta(times).tolist(), spread, strict=True):
        v = v * (1 + (beta / 2 - beta / here) * dt) ** 2 + beta * dt
    return v / spread[-1]


def rows(s: float, n: int) -> list[tuple[str, float]]:
    """Walk, deviation over what it should be."""
    found = [("score_sde", published(s, n))]
    for walk in WALKS:
        times = walk_for(SOLVER, SDE, steps=n, walk=walk).times
        _, off = law(SOLVER, SDE, times, None, [0.0], [s**2])
        found.append((walk, 1 + float(off)))
    return [(walk, v**0.5) for walk, v in found]


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--out", type=Path, default=OUT)
    parse.add_argument("--quick", action="store_true")
    args = parse.parse_args()
    every = [(s, n) for s in (0.5, 0.05, 0.001) for n in (20, 50, 100, 500, 1000)]
    found: list[dict[str, Any]] = []
    print(f"{'s':>6s} {'steps':>6s}  {'times':10s}{'deviation':>12s}")
    for s, n in ((0.5, 1000), (0.001, 20)) if args.quick else every:
        for walk, deviation in rows(s, n):
            found.append({"s": s, "steps": n, "walk": walk, "deviation": deviation})
            print(f"{s:6g} {n:6d}  {walk:10s}{deviation:12.4g}")
    about = {"torch": torch.__version__, "python": platform.python_version()}
    args.out.write_text(json.dumps({"about": about, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

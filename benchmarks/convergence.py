"""Bounds of convergence theory on Gaussians, beside what they bound: exact, nothing is sampled.

    python benchmarks/convergence.py             writes benchmarks/convergence.json, a minute
    python benchmarks/convergence.py --quick --out x.json a look, in seconds
    python benchmarks/convergence.py --table     the record as docs/convergence.md shows it

Four SDEs, three problems, five numbers of equal steps in lam, Euler-Maruyama and the exponential
integrator (DDPM's step). Of each cell KL(p || p_hat) at t_min: of the exact reverse process from
the prior; of small steps with a wrong eps; of the steps with the exact score; of all three
together; and the bound of each (sdegen/exact/convergence.py).
"""

from __future__ import annotations

import argparse
import math
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import (
    Gaussian,
    Normal,
    affine,
    chain_of,
    end_of,
    exact_model,
    girsanov,
    marginal,
    path_kl,
    prior_of,
    reverse_of,
)
from sdegen.files import read_json, write_json
from sdegen.noise.source import Noise
from sdegen.sde.level import expand

OUT = Path(__file__).with_suffix(".json")
SDES = {"VP": sg.VPSDE(), "sub-VP": sg.SubVPSDE(), "EDM": sg.EDMSDE(), "flow": sg.FlowSDE(T=0.999)}
PROBLEMS = {
    "0.5": Gaussian([0.0], [0.25]),
    "2": Gaussian([0.0], [4.0]),
    "0.5, 0.1": Gaussian([0.3, -0.2], [0.25, 1e-2]),
}
"""By the standard deviations; the last of mean (0.3, -0.2)."""
BUDGETS = (20, 40, 80, 160, 320)
SOLVERS = {"euler_maruyama": sg.EulerMaruyama(), "exponential": sg.DDIM(eta=1.0)}
OFF = 0.05
Row = dict[str, Any]


def wrong(data: Gaussian, sde: sg.LinearSDE) -> sg.ScoreModel:
    """A model whose eps is off by OFF in each coordinate."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        level = sde(t)
        return data.denoise(x, level) - expand(level.rho * OFF, x)

    return sg.ScoreModel(net, sde, "x0")


def cell(sde: sg.LinearSDE, data: Gaussian, budgets: tuple[int, ...]) -> Row:
    """All laws of an SDE and a problem."""
    d = len(data.mean)
    prior = prior_of(sde, d)

    def walk(n: int) -> sg.walks.Walk:
        return sg.walks.Walk(sde, sg.walks.log_snr(sde, n))

    ends = walk(1)
    top, bottom = marginal(data, ends[0]), marginal(data, ends[-1])
    begun = bottom.kl(reverse_of(data, ends[0], ends[-1]).of(prior))
    fine = walk(max(budgets))
    heun = chain_of(sg.solvers.StochasticHeun(), wrong(data, sde), fine, d)
    row: Row = {
        "start": [begun, top.kl(prior)],
        "score": [
            bottom.kl(end_of(heun, top)),
            girsanov(sde, lambda level: d * OFF**2 * torch.ones_like(level.lam)),
        ],
    }
    for name, solver in SOLVERS.items():
        steps, every = [], []
        for n in budgets:
            chain = chain_of(solver, exact_model(data, sde), walk(n), d)
            steps.append([n, bottom.kl(end_of(chain, top)), path_kl(chain, data, walk(n))])
            both = chain_of(solver, wrong(data, sde), walk(n), d)
            bound = top.kl(prior) + path_kl(both, data, walk(n))
            every.append([n, bottom.kl(end_of(both, prior)), bound])
        (_, a, b), (_, finer_a, finer_b) = steps[-2:]
        slopes = [math.log2(a / finer_a), math.log2(b / finer_b)]
        row[name] = {"steps": steps, "all": every, "slopes": slopes}
    return row


def holds(row: Row) -> bool:
    """Whether every bound of a cell does; a KL below 1e-13 is rounding."""
    pairs = [row["start"], row["score"]]
    for name in SOLVERS:
        pairs += [each[1:] for key in ("steps", "all") for each in row[name][key]]
    return all(kl <= bound + 1e-13 for kl, bound in pairs)


def corrected(snr: float, n: int = 50) -> Row:
    """Langevin's corrector on data of std 0.5 under VP at t = 0.3, from thrice the variance."""
    sde, data = SDES["VP"], PROBLEMS["0.5"]
    at, model, corrector = sde(0.3), exact_model(data, sde), sg.Langevin(snr)
    target = marginal(data, at)
    e, v = float(2 * (snr * at.sigma) ** 2), float(target.var)

    def move(x: Tensor, noise: Noise) -> Tensor:
        return corrector.stay(sg.Reverse(model, 1.0, noise), x, at)

    step, start = affine(move, 1), Normal(target.mean, 3 * target.var)
    end = end_of([step] * n, start)
    long = end_of([step] * 20_000, start)
    return {
        "snr": snr,
        "e / v": e / v,
        "KL after a time of v / 2": end_of([step] * round(v / (2 * e)), start).kl(target)
        / start.kl(target),
        "theory": math.exp(-1),
        "variance in the end": float(long.var) / v,
        "v / (1 - e / 2 v)": 1 / (1 - e / (2 * v)),
        f"KL after {n} steps": end.kl(target),
        "KL in the end": long.kl(target),
    }


def table(record: Row) -> str:
    """As the page shows it."""
    lines = [
        "| | std | start, bound | score, bound | EM at 40, bound | slopes | exponential at 40, "
        "bound | slopes | all three at 40, bound |",
        "|---" * 9 + "|",
    ]
    for name, row in record["cells"].items():
        sde, std = name.split(": ")
        em, ex = row["euler_maruyama"], row["exponential"]
        at = next(i for i, (n, *_) in enumerate(em["steps"]) if n == 40)
        cells = [
            pair(row["start"]),
            pair(row["score"]),
            pair(em["steps"][at][1:]),
            pair(em["slopes"], "{:.2f}"),
            pair(ex["steps"][at][1:]),
            pair(ex["slopes"], "{:.2f}"),
            pair(ex["all"][at][1:]),
        ]
        lines.append(f"| {sde} | {std} | {' | '.join(cells)} |")
    rows = record["correctors"]
    lines += ["", f"| {' | '.join(rows[0])} |", "|---" * len(rows[0]) + "|"]
    lines += [f"| {' | '.join(f'{v:.3g}' for v in row.values())} |" for row in rows]
    return "\n".join(lines)


def pair(values: Any, how: str = "{:.2g}") -> str:
    """Two numbers of a cell."""
    return ", ".join(how.format(v) for v in values)


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=OUT)
    parse.add_argument("--table", action="store_true")
    args = parse.parse_args()
    if args.table:
        print(table(read_json(args.out)))
        return
    budgets = BUDGETS[:2] if args.quick else BUDGETS
    cells = {
        f"{name}: {std}": cell(sde, data, budgets)
        for name, sde in SDES.items()
        for std, data in PROBLEMS.items()
    }
    record = {
        "what": "KL of samplers' laws on Gaussians beside the bounds on it, nats",
        "off": OFF,
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "cells": cells,
        "every bound holds": all(map(holds, cells.values())),
        "correctors": [corrected(snr) for snr in (0.05, 0.16, 0.3)],
    }
    write_json(args.out, record)
    print(table(record), record["every bound holds"], sep="\n\n")


if __name__ == "__main__":
    main()

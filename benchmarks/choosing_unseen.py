"""The choices of benchmarks/choosing.py on problems made after them, beside the libraries' own.

    OMP_NUM_THREADS=1 python benchmarks/choosing_unseen.py            all methods, all problems
    OMP_NUM_THREADS=1 python benchmarks/choosing_unseen.py --tables   the tables alone, anew
    ... --only recommended blended                                    these alone, the rest kept

The settings of ours were chosen before these problems: the default and the blend, and those that
were picked on the held-out problems of choosing.py, with their cells at hand. One thing was chosen
after: of two rules that ease the default's walk below ten calls the milder was taken with a view
of these cells. Peers are the published methods as sdegen has them, of choosing.py, and every
sampler with fixed steps and without noise of k-diffusion, diffusers and azula that sdegen's
benchmarks know, on four walks each: ``WALKS``. Errors are of ``N`` paths, float64, exact scores,
the reference Dormand and Prince's to 1e-8. The points go into benchmarks/choosing_unseen.csv.gz,
a row for each problem, SDE and number of calls; the tables into benchmarks/choosing_unseen.json.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from choosing import BUDGETS, HINDSIGHT, OWN, SDES, Made, N, dice, mean, power_law, start
from choosing import PEERS as PUBLISHED
from torch import Tensor

import sdegen as sg
from sdegen.bench.errors import pathwise
from sdegen.bench.peers import PEERS as LIBRARIES
from sdegen.bench.peers import Peer
from sdegen.bench.point import walk_of
from sdegen.data import photo_patches
from sdegen.exact.distributions import (
    Empirical,
    Gaussian,
    GaussianMixture,
    LowRankMixture,
    Mixture,
    Problem,
    exact_model,
)
from sdegen.files import atomic, write_json
from sdegen.solvers import AdaptiveRK

WALKS = ("log_snr", "karras", "focused", "straight")
OURS = {**OWN, **HINDSIGHT}
LOST = 1e3
"""The error of what is no number."""
OUT = Path(__file__).with_suffix(".json")
POINTS = Path(__file__).with_suffix(".csv.gz")


def unseen() -> dict[str, Problem]:
    """Eight: two Gaussians, three mixtures, three empirical sets; 2 to 96 dimensions."""
    normal, uniform = dice(77)
    axes = torch.linalg.qr(normal(24, 24)).Q
    halves = torch.tensor([1.2] * 12 + [0.003] * 12, dtype=torch.float64)
    parts = [power_law(32, 1.2 + 0.3 * k, 70 + k, 0.6).spectrum for k in range(4)]
    covs = torch.stack([(axes * var) @ axes.T for _, var, axes in parts])
    flat = torch.linalg.qr(normal(3, 64, 6)).Q
    spread = (3.0 * torch.logspace(0, -2, 6, dtype=torch.float64)).repeat(3, 1)
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    angle = 2 * math.pi * torch.arange(240, dtype=torch.float64) / 240
    ring = torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * normal(240, 2)
    grid = torch.arange(40, dtype=torch.float64) / 40
    tones = (1 + 4 * uniform(400, 3, 1)) * 2 * math.pi * grid + 6.3 * uniform(400, 3, 1)
    return {
        "power law, 96": power_law(96, 2.5, 31, 1.5),
        "two scales, 24": Gaussian(0.3 * normal(24), (axes * halves) @ axes.T),
        "eight modes in 8": Mixture(
            0.9 * normal(8, 8), 0.03 + 0.25 * uniform(8), normal(8).softmax(0)
        ),
        "four clouds, 32": GaussianMixture(0.4 * normal(4, 32), covs, [0.4, 0.3, 0.2, 0.1]),
        "low rank, 64": LowRankMixture(0.5 * normal(3, 64), flat, spread, third, 0.02),
        "ring of atoms, 2": Empirical(ring),
        "waves of atoms, 40": Empirical(0.4 * tones.sin().sum(1)),
        "patches of 7 x 7": Empirical(photo_patches(size=7).x[800:1200].double()),
    }


# --------------------------------------------------------------------------------- methods

Run = Callable[[Any, Tensor, int], Tensor]


def of(make: Made) -> Run:
    """A setting of sdegen's."""
    return lambda model, x, nfe: sg.sample(model, x, nfe=nfe, **make(nfe))


def library(peer: Peer, walk: str) -> Run:
    """Another library's loop on one of our walks."""

    def run(model: Any, x: Tensor, nfe: int) -> Tensor:
        return peer.solve(model, x, walk_of(peer, model.sde, nfe=nfe, walk=walk).times, None)

    return run


def methods() -> dict[str, Run]:
    """All by name."""
    found = {name: of(make) for name, make in {**OURS, **PUBLISHED}.items()}
    for name, peer in LIBRARIES.items():
        if not peer.adaptive and peer.eta == 0:
            found |= {f"{name}, {walk}": library(peer, walk) for walk in WALKS}
    return found


def points(runs: dict[str, Run]) -> dict[tuple[str, str, int], dict[str, tuple[float, float]]]:
    """The rms and the median of each method, by problem, SDE and calls."""
    begun, found = time.perf_counter(), {}
    for name, problem in unseen().items():
        for key, sde in SDES.items():
            model, x = exact_model(problem, sde), start(problem, sde)
            truth = sg.sample(model, x, solver=AdaptiveRK(clock="lam", rtol=1e-8, atol=1e-8))
            for nfe in BUDGETS:
                cell = {method: errors(run, model, x, nfe, truth) for method, run in runs.items()}
                found[name, key, nfe] = cell
        print(name, f"{time.perf_counter() - begun:.0f} s", flush=True)
    return found


def errors(run: Run, model: Any, x: Tensor, nfe: int, truth: Tensor) -> tuple[float, float]:
    """The rms and the median of one method; ``LOST`` for what is no number."""
    before = model.nfe
    off = pathwise(run(model, x, nfe).double(), truth)
    if model.nfe - before > nfe:
        raise ValueError(f"{model.nfe - before} calls were made of {nfe}.")
    rms, median = (off[k] if math.isfinite(off[k]) else LOST for k in ("rms", "median"))
    return rms, median


# --------------------------------------------------------------------------------- tables


def tables(rows: list[dict[str, str]]) -> dict[str, Any]:
    """What was asked of a choice, of these points."""
    names = [name[4:] for name in rows[0] if name.startswith("rms ")]
    peers = [name for name in names if name not in OURS]
    said: dict[str, Any] = {
        "on": f"{platform.machine()}, torch {torch.__version__}, {N} paths, float64",
        "calls": list(BUDGETS),
        "peers": len(peers),
        "cells at each number of calls": sum(row["calls"] == str(BUDGETS[0]) for row in rows),
    }
    groups = {
        "recommended": ["recommended"],
        "recommended or blended": ["recommended", "blended"],
        "seven": [*OWN],
        "nineteen": [*OURS],
    }
    for what in ("rms", "median"):
        fixed, behind, cells = [], [], {key: [] for key in groups}
        names_of_best, ahead = [], dict[str, int]()
        for n in BUDGETS:
            here = [row for row in rows if row["calls"] == str(n)]
            error = {m: [float(row[f"{what} {m}"]) for row in here] for m in names}
            least = [min(each) for each in zip(*(error[m] for m in peers), strict=True)]
            ratios = {m: ratio(error["recommended"], error[m]) for m in peers}
            best = max(ratios, key=lambda m: ratios[m])
            names_of_best.append(best)
            fixed.append([round(ratios[best], 3), round(ratio(error["blended"], error[best]), 3)])
            behind.append([round(ratio(error[m], least), 3) for m in ("recommended", "blended")])
            for key, some in groups.items():
                own = [min(each) for each in zip(*(error[m] for m in some), strict=True)]
                cells[key].append(sum(a <= b for a, b in zip(own, least, strict=True)))
                if key == "nineteen":
                    for i, (a, b) in enumerate(zip(own, least, strict=True)):
                        if a > b:
                            who = min(peers, key=lambda m: error[m][i])
                            cell = f"{here[i]['problem']}; {here[i]['sde']}; {n}: {who}"
                            ahead[cell] = round(a / b, 2)
        said[what] = {
            "the best fixed peer at each": names_of_best,
            "recommended, blended beside it": fixed,
            "recommended, blended beside the best peer of each cell": behind,
            "cells at or below the best peer of each": cells,
            "cells where a peer is ahead of nineteen, and by how much": ahead,
        }
    return said


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The geometric mean of the quotients."""
    return mean(a / b for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    """Measure, keep the points, print and keep the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--only", nargs="*", choices=[*methods()], metavar="METHOD")
    asked = parser.parse_args()
    if not asked.tables:
        kept = {}
        if asked.only:
            with gzip.open(POINTS, "rt") as file:
                rows = [*csv.DictReader(file)]
            kept = {(row["problem"], row["sde"], int(row["calls"])): row for row in rows}
        text, table = io.StringIO(), None
        for key, cell in points(
            {m: r for m, r in methods().items() if m in (asked.only or [m])}
        ).items():
            new = {
                f"{what} {m}": f"{v:.4g}"
                for m in cell
                for what, v in zip(("rms", "median"), cell[m], strict=True)
            }
            row = {"problem": key[0], "sde": key[1], "calls": key[2], **kept.get(key, {}), **new}
            if table is None:
                table = csv.DictWriter(text, [*row], lineterminator="\n")
                table.writeheader()
            table.writerow(row)
        with atomic(POINTS) as path:
            path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    with gzip.open(POINTS, "rt") as file:
        said = tables([*csv.DictReader(file)])
    write_json(OUT, said)
    for key, value in said.items():
        print(key, value)


if __name__ == "__main__":
    main()

"""The blend that chooses by itself beside what is recommended, on problems kept apart.

    OMP_NUM_THREADS=1 python benchmarks/choosing.py                        held-out problems
    OMP_NUM_THREADS=1 python benchmarks/choosing.py --only "STORK-2, focused"   these methods alone
    OMP_NUM_THREADS=1 python benchmarks/choosing.py --development          those it was made on
    OMP_NUM_THREADS=1 python benchmarks/choosing.py --noise                eta = 1, exact laws
    OMP_NUM_THREADS=1 python benchmarks/choosing.py --run outputs/digits   a trained network

Each goes into its own part of benchmarks/choosing.json. Geometric means over problems and SDEs of
the errors beside those of ``recommended``; float64, exact scores, ``N`` starts, the reference is
Dormand and Prince's to 1e-8. Peers are published methods as sdegen has them, each a fixed setting
on a fixed walk; of them the best is taken at each budget, by the mean over all.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench import problems
from sdegen.bench.errors import pathwise
from sdegen.exact.distributions import (
    Empirical,
    Gaussian,
    GaussianMixture,
    LowRankMixture,
    Mixture,
    Problem,
    exact_model,
)
from sdegen.exact.orders import law
from sdegen.files import write_json
from sdegen.solvers import STORK, AdaptiveRK, Blended, SASolver

N = 24
BUDGETS = (5, 8, 10, 15, 20, 30, 50)
NOISY_BUDGETS = (5, 8, 10, 20, 50)
OUT = Path(__file__).with_suffix(".json")
SDES = {
    "vp": sg.VPSDE(),
    "subvp": sg.SubVPSDE(),
    "cosine": sg.CosineSDE(),
    "ve": sg.VESDE(),
    "edm": sg.EDMSDE(),
    "flow": sg.FlowSDE(),
}
Made = Callable[[int], dict[str, Any]]
STORK4 = sg.Multistep(3, prediction="straight", clock="tau")


def fixed(solver: sg.Solver, walk: str) -> Made:
    """One setting for every budget."""
    return lambda nfe: {"solver": solver, "walk": walk}


PEERS: dict[str, Made] = {
    "UniPC-3 as shipped, log_snr": fixed(sg.UniPC(3, lower_order_final=1), "log_snr"),
    "UniPC-3 as shipped, focused": fixed(sg.UniPC(3, lower_order_final=1), "focused"),
    "UniPC-2 as shipped, focused": fixed(sg.UniPC(2, lower_order_final=1), "focused"),
    "UniPC-3, focused": fixed(sg.UniPC(3), "focused"),
    "DPM-Solver++(2M), karras": fixed(sg.DPMSolverPP(2), "karras"),
    "DPM-Solver++(2M), focused": fixed(sg.DPMSolverPP(2), "focused"),
    "iPNDM, log_snr": fixed(sg.solvers.IPNDM(), "log_snr"),
    "iPNDM, focused": fixed(sg.solvers.IPNDM(), "focused"),
    "eps of order 3 in lam, log_snr": fixed(sg.Multistep(3, prediction="eps"), "log_snr"),
    "STORK-2, focused": fixed(STORK(), "focused"),
    "STORK-2, straight": fixed(STORK(), "straight"),
    # Its stages, whatever their table, are the exact integral (tests/solvers/test_stabilised.py).
    "STORK-4, focused": fixed(STORK4, "focused"),
    "STORK-4, straight": fixed(STORK4, "straight"),
}
OWN: dict[str, Made] = {
    "recommended": lambda nfe: {},
    "blended": lambda nfe: {"solver": "blended"},
    "two values, focused": fixed(sg.Multistep(2, corrector=3, clock="wide"), "focused"),
    "five values, focused": fixed(sg.Multistep(5, corrector=5, clock="wide"), "focused"),
    "four values, log_snr": fixed(sg.Multistep(4, corrector=4, clock="wide"), "log_snr"),
    "straight, focused": fixed(
        sg.Multistep(3, corrector=3, prediction="straight", clock="wide"), "focused"
    ),
    "F of four values, log_snr": fixed(sg.Multistep(4, corrector=5, prediction="F"), "log_snr"),
}
wide = partial(sg.Multistep, clock="wide")
falling = partial(wide, lower_order_final=1)
tau = sg.Multistep(3, corrector=3, prediction="straight", clock="tau", lower_order_final=1)
# Picked with a view of the cells, of 122 settings of ours: what the best after the fact is among.
HINDSIGHT: dict[str, Made] = {
    "two values by two, focused": fixed(wide(2, corrector=2), "focused"),
    "the same, Euler last": fixed(wide(2, corrector=2, euler_at_final=True), "focused"),
    "three values, order falls, focused": fixed(falling(3, corrector=3), "focused"),
    "four values, order falls, focused": fixed(falling(4, corrector=4), "focused"),
    "four values, order falls, straight": fixed(falling(4, corrector=4), "straight"),
    "four values, order falls, log_snr": fixed(falling(4, corrector=4), "log_snr"),
    "three values in lam, focused": fixed(sg.Multistep(3, corrector=3), "focused"),
    "F of three values, focused": fixed(sg.Multistep(3, corrector=4, prediction="F"), "focused"),
    "straight in tau, order falls, focused": fixed(tau, "focused"),
    "straight in tau, order falls, straight": fixed(tau, "straight"),
    "blend of two values, focused": fixed(Blended(2, corrector=2), "focused"),
    "blend of three values, Euler last, straight": fixed(
        Blended(3, corrector=3, euler_at_final=True), "straight"
    ),
}
METHODS: dict[str, Made] = {**OWN, **HINDSIGHT, **PEERS}


# --------------------------------------------------------------------------------- problems


def power_law(d: int, power: float, seed: int, top: float = 1.0) -> Gaussian:
    """A Gaussian whose variances fall as k^-power along random axes."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q
    var = top * torch.arange(1, d + 1, dtype=torch.float64) ** -power
    mean = 0.3 * torch.randn(d, generator=g, dtype=torch.float64)
    return Gaussian(mean, (axes * var) @ axes.T)


def dice(seed: int) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """Draws of N(0, 1) and of [0, 1] in float64, from one generator."""
    how: Any = {"generator": torch.Generator().manual_seed(seed), "dtype": torch.float64}
    return partial(torch.randn, **how), partial(torch.rand, **how)


def development() -> dict[str, Problem]:
    """The page's six, the larger ones made smaller, and a power-law Gaussian."""
    return {
        "gaussian": problems.gaussian().exact,
        "mixture": problems.mixture().exact,
        "stiff": problems.stiff().exact,
        "low_rank": problems.low_rank(d=192).exact,
        "digits": problems.digits().exact,
        "photo_patches": problems.photo_patches(n=512).exact,
        "power law, 128": power_law(128, 2.0, 5),
    }


def held_out() -> dict[str, Problem]:
    """Seven that nothing was chosen on but which of two rules eases a walk below ten calls."""
    from sdegen.data import photo_patches

    normal, uniform = dice(12)
    three = Mixture(0.7 * normal(5, 3), 0.05 + 0.3 * uniform(5), normal(5).softmax(0))
    sheet = 0.5 * torch.sin(uniform(300, 2) @ (2 * normal(2, 32)) + 6 * uniform(32))
    parts = [power_law(48, 1.7, 20 + k, 0.5).spectrum for k in range(3)]
    covs = torch.stack([(axes * var) @ axes.T for _, var, axes in parts])
    clouds = GaussianMixture(0.4 * normal(3, 48), covs, [0.5, 0.3, 0.2])
    flat = torch.linalg.qr(normal(5, 96, 8)).Q
    wide = (3.6 * torch.logspace(0, -3, 8, dtype=torch.float64)).repeat(5, 1)
    low = LowRankMixture(
        0.4 * normal(5, 96), flat, wide, torch.full((5,), 0.2, dtype=torch.float64), 0.03
    )
    return {
        "power law, 256": power_law(256, 1.5, 11, 2.0),
        "gaussian, 64": problems.gaussian(64, 100, 1).exact,
        "three dimensions": three,
        "sheet of atoms, 32": Empirical(sheet),
        "power-law clouds, 48": clouds,
        "low rank, 96": low,
        "patches of 5 x 5": Empirical(photo_patches(size=5).x[1500:1900].double()),
    }


# --------------------------------------------------------------------------------- measuring


def mean(values: Iterable[float]) -> float:
    """Geometric."""
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs))


def start(problem: Problem, sde: sg.LinearSDE) -> Tensor:
    """Exact draws at T."""
    g, top = torch.Generator().manual_seed(0), sde(sde.T)
    x0 = problem.sample(N, g)
    return top.alpha * x0 + top.sigma * torch.randn(x0.shape, generator=g, dtype=x0.dtype)


def measured(model: Any, x: Tensor, exact: Tensor, make: Made, nfe: int) -> dict[str, float]:
    """rms and median of one method at one budget; 1e3 for what is no number."""
    found = pathwise(sg.sample(model, x, nfe=nfe, **make(nfe)).double(), exact)
    kept = {k: found[k] for k in ("rms", "median")}
    return {k: float(f"{v:.4g}") if math.isfinite(v) else 1e3 for k, v in kept.items()}


def exactly(
    chosen: dict[str, Problem], methods: dict[str, Made], before: dict[str, Any]
) -> dict[str, Any]:
    """These methods on every problem and SDE, and the means of all, with the points before."""
    begun = time.perf_counter()
    rows: dict[str, dict[str, dict[str, float]]] = {name: {} for name in methods}
    for key, sde in SDES.items():
        cases = {}
        for name, problem in chosen.items():
            model, x = exact_model(problem, sde), start(problem, sde)
            truth = AdaptiveRK(clock="lam", rtol=1e-8, atol=1e-8)
            cases[name] = model, x, sg.sample(model, x, solver=truth)
        for method, make in methods.items():
            for nfe in BUDGETS:
                for name, (model, x, exact) in cases.items():
                    cell = measured(model, x, exact, make, nfe)
                    rows[method][f"{name}; {key}; {nfe}"] = cell
        print(key, f"{time.perf_counter() - begun:.0f} s", flush=True)
    rows = {**before, **rows}
    return {"beside recommended": table(rows, [*chosen]), "points": rows}


def table(rows: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Ratios to ``recommended`` by budget, the best peer, and the blend by problem."""
    said: dict[str, Any] = {}
    for what in ("rms", "median"):

        def ratio(method: str, nfe: int, of: Callable[[str], bool], what: str = what) -> float:
            keys = [k for k in rows[method] if k.endswith(f"; {nfe}") and of(k)]
            return round(
                mean(rows[method][k][what] / rows["recommended"][k][what] for k in keys), 3
            )

        every = {m: [ratio(m, n, lambda k: True) for n in BUDGETS] for m in rows}
        every_own = {**OWN, **HINDSIGHT}
        peers, own, more = ([m for m in kind if m in rows] for kind in (PEERS, OWN, every_own))
        best = [min(every[m][i] for m in peers) for i in range(len(BUDGETS))]
        after, level = [], []
        for n in BUDGETS:
            keys = [k for k in rows["recommended"] if k.endswith(f"; {n}")]
            least = {k: min(rows[m][k][what] for m in peers) for k in keys}
            after.append(
                [
                    round(mean(rows[m][k][what] / least[k] for k in keys), 3)
                    for m in ("recommended", "blended")
                ]
            )
            level.append(
                [
                    sum(min(rows[m][k][what] for m in some) <= least[k] for k in keys)
                    for some in (["recommended"], ["recommended", "blended"], own, more)
                ]
            )
        said[what] = {
            "methods": every,
            "blended beside the best fixed peer": [
                round(own / peer, 3) for own, peer in zip(every["blended"], best, strict=True)
            ],
            "recommended beside the best fixed peer": [round(1 / peer, 3) for peer in best],
            "recommended, blended beside the best peer of each cell": after,
            "cells at or below the best peer: recommended, or blended, of seven, of all": level,
            "of so many": len(SDES) * len(names),
            "blended by problem": {
                name: [ratio("blended", n, lambda k, m=name: k.startswith(m)) for n in BUDGETS]
                for name in names
            },
        }
    return said


def network(path: Path) -> dict[str, Any]:
    """A trained network along its own SDE: errors against 200 steps of order 5."""
    from sdegen.runs.folder import load_run

    run = load_run(path, [], "cpu")
    model, shape = run.model.double().requires_grad_(False), tuple(run.shape)
    g = torch.Generator().manual_seed(0)
    x = model.sde.prior.sample(torch.randn(16, *shape, generator=g, dtype=torch.float64))
    fine = sg.Multistep(5, corrector=5, clock="wide")
    exact = sg.sample(model, x, solver=fine, walk="focused", steps=200)
    return {
        name: {str(nfe): measured(model, x, exact, make, nfe) for nfe in (*BUDGETS[:5], 35)}
        for name, make in METHODS.items()
    }


def noisy() -> dict[str, Any]:
    """eta = 1, equal steps of lam: exact relative errors of a Gaussian's variances."""
    solvers = {
        "DPMSolverPP(2)": sg.DPMSolverPP(2),
        "SASolver()": SASolver(),
        "SASolver(2, 2)": SASolver(2, 2),
        'Multistep(2, clock="wide")': wide(2),
        'Multistep(2, corrector=2, clock="wide")': wide(2, corrector=2),
        'Multistep(3, corrector=4, clock="wide")': wide(3, corrector=4),
        "DPMSolverPP(1)": sg.DPMSolverPP(1),
    }
    var = [1.0, 0.3, 0.1, 0.03, 0.01]
    said: dict[str, Any] = {}
    for name, solver in solvers.items():
        said[name] = []
        for nfe in NOISY_BUDGETS:
            each = []
            for sde in SDES.values():
                _, off = law(solver, sde, nfe, 1.0, [0.0] * len(var), var)
                each.append(float(off.abs().max()))
            said[name].append(round(mean(each), 5))
        print(name, said[name], flush=True)
    return said


def main() -> None:
    """Measure what was asked for, print the means, keep everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(METHODS), metavar="METHOD")
    asked = parser.parse_args()
    kept = json.loads(OUT.read_text()) if OUT.is_file() else {}
    methods = {name: METHODS[name] for name in asked.only or METHODS}
    if asked.run is not None:
        part, found = f"network {asked.run.name}", network(asked.run)
    elif asked.noise:
        part, found = "eta = 1", noisy()
    elif asked.development:
        part = "development"
        found = exactly(development(), methods, kept.get(part, {}).get("points", {}))
    else:
        part = "held out"
        found = exactly(held_out(), methods, kept.get(part, {}).get("points", {}))
    print(json.dumps(found.get("beside recommended", found), indent=1))
    write_json(OUT, {**kept, part: found})


if __name__ == "__main__":
    main()

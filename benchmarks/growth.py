"""How a sample's cost grows: time and memory against the state's size, the batch and the steps.

    python benchmarks/growth.py                  writes benchmarks/growth.json and prints it
    python benchmarks/growth.py --quick --out d  a look, in seconds, into the folder d

``sg.sample`` with a network of no cost, float32, one CPU thread. Seconds are the processor's own,
which a busy machine does not lengthen, the fastest of the repeats. Peak memory is counted at the
dispatcher in a run of its own, in states: what was made and lived at once, the start and the
network's output not counted.

A cost  a + b n  of n numbers is a straight line of slope 1 on a log-log plot once b n exceeds a:
slopes are those from each n to the next, and what bends them is said beside them. At last what
tracing a walk of 1,000 steps costs, which is done once, beside running it.
"""

from __future__ import annotations

import argparse
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench.watch import Memory
from sdegen.files import write_json
from sdegen.networks import UNet
from sdegen.programs.remembered import traced

SDE = sg.VPSDE()
IMAGES = (64, 3, 32, 32)
STEPS = 10
"""Of each run that measures size or batch."""
SOLVERS: dict[str, dict[str, Any]] = {
    "DDIM": {"solver": sg.DDIM()},
    "DPM-Solver++(2M)": {"solver": sg.DPMSolverPP(2)},
    "default": {},
    "SDE-DPM-Solver++(2M), seeded": {"solver": sg.DPMSolverPP(2), "eta": 1.0, "seed": 0},
}
WHY = {
    "numbers": (
        "Up to about 10^4 numbers a step costs what its Python and its kernels' starts cost. "
        "Above, it is a straight line in each memory that holds the states; where they leave the "
        "processor's caches it bends up, to the next line."
    ),
    "batch": "As with the numbers, of which each sample here has 192.",
    "steps": "A straight line, but for what is done once: the plan and the first pages of memory.",
}


@dataclass(frozen=True)
class Axis:
    """What grows: its values, and the shape and steps of a run at each."""

    name: str
    values: tuple[int, ...]
    at: Callable[[int], tuple[tuple[int, ...], int]]


AXES = (
    Axis("numbers", tuple(10**k for k in range(2, 9)), lambda n: ((10, n // 10), STEPS)),
    Axis("batch", (1, 10, 100, 1_000, 10_000), lambda b: ((b, 3, 8, 8), STEPS)),
    Axis("steps", (10, 30, 100, 300, 1_000), lambda n: ((64, 3, 8, 8), n)),
)


def fastest(run: Callable[[], Any], budget: float) -> float:
    """The processor's seconds of a run: the least, of at most 50 and as many as a budget lets."""
    run()
    best, begun = math.inf, time.process_time()
    for _ in range(50):
        before = time.process_time()
        run()
        best = min(best, time.process_time() - before)
        if time.process_time() - begun > budget:
            break
    return best


def sampler(how: dict[str, Any], shape: tuple[int, ...], steps: int) -> Callable[[], Tensor]:
    """A run of a solver at a size, on a network that hands out what it has."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    output = torch.full_like(x, 0.1)
    model = sg.ScoreModel(lambda x, t: output, SDE)
    how = {**how, "steps" if "solver" in how else "nfe": steps}
    return partial(sg.sample, model, x, **how)


def measured(how: dict[str, Any], axis: Axis, budget: float) -> dict[str, Any]:
    """Seconds, slopes and states of one solver along an axis."""
    seconds, states = list[float](), list[float]()
    for value in axis.values:
        shape, steps = axis.at(value)
        run = sampler(how, shape, steps)
        seconds.append(fastest(run, budget))
        with Memory() as memory:
            run()
        states.append(memory.peak / (4 * math.prod(shape)))
    return {
        "milliseconds": [round(1e3 * s, 4) for s in seconds],
        "slopes": [
            round(math.log(t / s) / math.log(n / m), 2)
            for (s, t), (m, n) in zip(pairwise(seconds), pairwise(axis.values), strict=True)
        ],
        "states": [round(each, 2) for each in states],
    }


def tracing(steps: int, budget: float, shape: tuple[int, ...]) -> dict[str, Any]:
    """Milliseconds of tracing a walk's program anew, and of running it, by solver.

    Beside the network of no cost stands the U-Net, whose calls are measured on one of them.
    """
    times, rows = sg.walks.log_snr(SDE, steps), dict[str, Any]()
    net, x, label = UNet(channels=3).eval(), torch.randn(shape), torch.full((shape[0],), 0.5)
    with torch.no_grad():
        call = fastest(lambda: net(x, label), 0.0)
    for name, how in SOLVERS.items():
        if "solver" not in how:
            continue
        solver, eta = how["solver"], how.get("eta")
        made = fastest(lambda s=solver, e=eta: traced(s, SDE, times, e), budget)  # type: ignore[misc]
        run = fastest(sampler(how, shape, steps), 0.0)
        rows[name] = {
            "traced": round(1e3 * made, 1),
            "run, network of no cost": round(1e3 * run, 1),
            "run, U-Net": round(1e3 * (run + steps * call)),
            "share of it": round(made / (run + steps * call), 6),
        }
    return rows


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parse.parse_args()
    torch.set_num_threads(1)
    budget = 0.0 if args.quick else 1.0
    axes = [Axis(a.name, a.values[: 3 if args.quick else None], a.at) for a in AXES]
    record: dict[str, Any] = {
        "what": f"sg.sample, float32, a network of no cost, {STEPS} steps where they do not grow",
        "on": "one thread of a 2-core x86-64 virtual machine, its processor's own time",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
    }
    for axis in axes:
        record[axis.name] = {"values": axis.values, "why": WHY[axis.name]}
        for name, how in SOLVERS.items():
            record[axis.name][name] = row = measured(how, axis, budget)
            print(f"\n{axis.name}, {name}")
            for value, ms, n in zip(axis.values, row["milliseconds"], row["states"], strict=True):
                print(f"{value:12d}{ms:14.3f} ms{n:8.2f} states")
            print(f"    slopes {row['slopes']}", flush=True)
    steps, shape = (20, (2, 3, 32, 32)) if args.quick else (1_000, IMAGES)
    record[f"tracing {steps} steps, milliseconds"] = found = tracing(steps, budget, shape)
    for name, numbers in found.items():
        print(f"\n{name}: {numbers}")
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "growth.json", record)


if __name__ == "__main__":
    main()

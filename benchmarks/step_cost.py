"""What a step costs beside the network, and what per-sample noise costs beside randn.

    python benchmarks/step_cost.py            writes benchmarks/step_cost.json and prints it

A model that costs nothing, 64 x 3 x 32 x 32 in float32, 50 steps, one CPU thread. Two solvers are
measured beside a loop written by hand with coefficients known beforehand, in one run, interleaved;
figures are medians over the repeats. Then every solver of the catalogue with fixed steps, on
64 x 2, where what is measured is the solver's own bookkeeping.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg

SHAPE, STEPS, REPEATS = (64, 3, 32, 32), 50, 15
SMALL, FEW = (64, 2), 5
OUTPUT = torch.full(SHAPE, 0.1)


def free(x: Tensor, t: Tensor) -> Tensor:
    """A network that costs nothing."""
    return OUTPUT


def by_hand(order: int) -> Callable[[Tensor], Tensor]:
    """DDIM (order 1) or DPM-Solver++(2M) on an eps network: in-place, coefficients precomputed."""
    sde = sg.VPSDE()
    levels = sde(sg.log_snr(sde, STEPS))
    a, s, lam = levels.alpha.tolist(), levels.sigma.tolist(), levels.lam.tolist()

    def loop(x: Tensor) -> Tensor:
        x, last = x.clone(), None
        for i in range(STEPS):
            x0 = (x - s[i] * OUTPUT).div_(a[i])
            h = lam[i + 1] - lam[i]
            c = h / (lam[i] - lam[i - 1]) / 2 if order == 2 and i else 0.0
            guess = x0 if last is None or not c else torch.lerp(last, x0, 1 + c)
            gain = a[i + 1] - s[i + 1] / s[i] * a[i]
            x.mul_(s[i + 1] / s[i]).add_(guess, alpha=gain)
            last = x0
        return x

    return loop


def cases() -> dict[str, Callable[[Tensor], Any]]:
    """Everything measured, by name: a function of the starting state."""
    model = sg.ScoreModel(free, sg.VPSDE())

    def ours(solver: sg.Solver, **how: Any) -> Callable[[Tensor], Tensor]:
        return lambda x: sg.sample(model, x, solver=solver, steps=STEPS, **how)

    def noise(source: sg.Noise) -> Callable[[Tensor], None]:
        level = model.sde(0.5)
        return lambda x: [source(x, level, level) for _ in range(STEPS)] and None

    return {
        "DDIM, by hand": by_hand(1),
        "DDIM": ours(sg.DDIM()),
        "DPM-Solver++(2M), by hand": by_hand(2),
        "DPM-Solver++(2M)": ours(sg.DPMSolverPP()),
        "Euler-Maruyama, fresh noise": ours(sg.EulerMaruyama()),
        "Euler-Maruyama, seeded noise": ours(sg.EulerMaruyama(), seed=0),
        "noise alone, fresh": noise(sg.Fresh()),
        "noise alone, seeded": noise(sg.Seeded(0)),
    }


def bookkeeping() -> dict[str, float]:
    """Microseconds per step of every solver with fixed steps, on a small state."""
    x, output = torch.randn(SMALL), torch.full(SMALL, 0.1)
    model, micro = sg.ScoreModel(lambda x, t: output, sg.VPSDE()), {}
    for name, entry in sg.catalogue().items():
        solver = entry.build()
        if solver.adaptive:
            continue
        taken = []
        for _ in range(FEW):
            begun = time.perf_counter()
            sg.sample(model, x, solver=solver, steps=STEPS, seed=0)
            taken.append(time.perf_counter() - begun)
        micro[name] = round(1e6 * statistics.median(taken) / STEPS, 1)
    return micro


def main() -> None:
    """Measure, check that both sides agree, write and print."""
    torch.set_num_threads(1)
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    every = cases()
    for name in ("DDIM", "DPM-Solver++(2M)"):
        torch.testing.assert_close(
            every[name](x), every[f"{name}, by hand"](x), rtol=1e-3, atol=1e-3
        )
    seconds: dict[str, list[float]] = {name: [] for name in every}
    for _ in range(REPEATS):
        for name, case in every.items():
            begun = time.perf_counter()
            case(x)
            seconds[name].append(time.perf_counter() - begun)
    micro = {name: 1e6 * statistics.median(taken) / STEPS for name, taken in seconds.items()}
    record: dict[str, Any] = {
        "what": f"microseconds per step, {SHAPE} float32, {STEPS} steps, 1 CPU thread",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "processor": "2-core x86-64 server (virtual machine)",
        "repeats": REPEATS,
        "microseconds": {name: round(value, 1) for name, value in micro.items()},
        "every solver, 64 x 2": bookkeeping(),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")
    for name, value in {**micro, **record["every solver, 64 x 2"]}.items():
        print(f"{name:32s}{value:10.1f}")


if __name__ == "__main__":
    main()

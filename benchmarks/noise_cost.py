"""What noise costs: each source beside plain randn, and torchsde's Brownian motions.

    python benchmarks/noise_cost.py           writes benchmarks/noise_cost.json and prints it

The noise of 20 steps on VP's log-SNR walk, one CPU thread, float32, interleaved; medians over the
repeats, microseconds per step of the processor's own time, which a busy machine does not lengthen.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torchsde

import sdegen as sg

SHAPES, STEPS, REPEATS = ((64, 2), (64, 3, 32, 32)), 20, 7
SDE = sg.VPSDE()
WALK = sg.walks.levels(SDE, sg.walks.log_snr(SDE, STEPS))


def cases(shape: tuple[int, ...]) -> dict[str, Callable[[], None]]:
    """Everything measured, by name: all the noise of a march."""
    x, b = torch.empty(shape), shape[0]

    def march(make: Callable[[], sg.Noise]) -> Callable[[], None]:
        def run() -> None:
            noise = make()
            for t, s in pairwise(WALK):
                noise(x, t, s)

        return run

    def randn() -> None:
        for _ in range(STEPS):
            torch.randn(shape)

    def theirs() -> None:
        # One motion for the whole batch: a sample's path depends on its neighbours.
        motion = torchsde.BrownianInterval(0.0, 1.0, size=(b, x[0].numel()), entropy=0)
        for t, s in pairwise(WALK):
            motion(1 - float(t.t), 1 - float(s.t))

    def tree() -> None:
        start = torch.zeros(b, x[0].numel())
        motion = torchsde.BrownianTree(t0=0.0, w0=start, t1=1.0, entropy=0)
        for t, s in pairwise(WALK):
            motion(1 - float(t.t), 1 - float(s.t))

    return {
        "torch.randn": randn,
        "Fresh": march(sg.noise.Fresh),
        "Seeded, one seed": march(lambda: sg.Seeded(0)),
        "Seeded, a seed each": march(lambda: sg.Seeded(range(b))),
        "Brownian": march(lambda: sg.Brownian(0, SDE.T)),
        "torchsde.BrownianInterval": theirs,
        "torchsde.BrownianTree": tree,
    }


def main() -> None:
    """Measure, write and print."""
    torch.set_num_threads(1)
    record: dict[str, object] = {
        "what": f"microseconds per step, {STEPS} steps, float32, 1 CPU thread",
        "torch": torch.__version__,
        "torchsde": torchsde.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "processor": "2-core x86-64 server (virtual machine)",
        "repeats": REPEATS,
    }
    for shape in SHAPES:
        every = cases(shape)
        seconds: dict[str, list[float]] = {name: [] for name in every}
        for repeat in range(REPEATS + 1):
            for name, case in every.items():
                begun = time.process_time()
                case()
                if repeat:  # the first is to warm up
                    seconds[name].append(time.process_time() - begun)
        micro = {
            name: round(1e6 * statistics.median(taken) / STEPS, 1)
            for name, taken in seconds.items()
        }
        record[" x ".join(map(str, shape))] = micro
        for name, value in micro.items():
            print(f"{shape!s:18s}{name:28s}{value:12.1f}")
    Path(__file__).with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

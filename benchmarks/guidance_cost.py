"""What guidance costs beside the network: CFG beside two plain calls, DPS and MMPS beside one.

    python benchmarks/guidance_cost.py                  writes benchmarks/guidance_cost.json
    python benchmarks/guidance_cost.py --device cuda    the same on a GPU, guidance_cost_cuda.json
    python benchmarks/guidance_cost.py --quick --out x.json    a look, in seconds

A U-Net of width 64 told a class, batch 64, float32: 1 x 8 x 8 on a CPU (one thread), 3 x 32 x 32
on a GPU. All are timed in turn in one process and the order goes round; a ratio is the median over
the rounds of ratios within a round. Peak memory is what is made and lives at once, weights and
states apart, in a run of its own.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench.watch import Memory
from sdegen.files import write_json
from sdegen.guidance import CFG, Average, dps, mmps
from sdegen.networks import UNet

HERE = Path(__file__).parent
NULL = 10
Call = Callable[[], Any]


def clock(run: Call, device: str) -> float:
    """Seconds of a run: the processor's own, or a GPU's that is waited for."""
    if device == "cpu":
        begun = time.process_time()  # which others at work on the machine do not lengthen
        run()
        return time.process_time() - begun
    torch.cuda.synchronize()
    begun = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def memory(run: Call, device: str) -> float:
    """Peak MiB of what a run makes."""
    if device == "cpu":
        with Memory() as watch:
            run()
        return watch.peak / 2**20
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def made(
    width: int, shape: tuple[int, ...], device: str
) -> tuple[dict[str, Call], dict[str, tuple[int, int]]]:
    """What is timed, by name, and what each counts: evaluations and products with the Jacobian."""
    torch.manual_seed(0)
    b, channels = shape[:2]
    net = UNet(channels=channels, classes=10, width=width).to(device).eval().requires_grad_(False)
    y = torch.arange(b, device=device) % 10
    model = sg.ScoreModel(net, sg.VPSDE(), "edm").given(y=y)
    none = model.given(y=torch.full_like(y, NULL))
    level = model.sde(torch.tensor(0.4, dtype=torch.float64))
    x = torch.randn(shape, device=device)
    seen = torch.randn(b, channels, *[n // 2 for n in shape[2:]], device=device)
    apart, both = (CFG(model, 3.0, {"y": NULL}, together=t) for t in (False, True))
    inverse = {
        "dps": dps(model, seen, Average(2), 0.1),
        **{f"mmps, {k}": mmps(model, seen, Average(2), 0.1, iterations=k) for k in (1, 2, 5)},
    }

    def ask(*models: Any) -> Call:
        def run() -> Tensor:
            with torch.no_grad():
                return [each.output(x, level) for each in models][-1]

        return run

    calls = {
        "one call": ask(model),
        "two calls": ask(model, none),
        "cfg": ask(apart),
        "cfg, together": ask(both),
        **{name: ask(each) for name, each in inverse.items()},
    }
    counts = {}
    for name, run in calls.items():
        before = model.nfe, model.vjps
        run()
        counts[name] = (model.nfe - before[0], model.vjps - before[1])
    return calls, counts


def timed(calls: dict[str, Call], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each, round by round."""
    names, found = list(calls), {name: list[float]() for name in calls}
    for k in range(rounds + 1):
        at = k % len(names)
        for name in names[at:] + names[:at]:
            seconds = clock(calls[name], device)
            if k:  # the first is a warm-up
                found[name].append(seconds)
    return found


def ratio(seconds: dict[str, list[float]], one: str, other: str) -> list[float]:
    """Of one beside another within a round: median and quartiles over the rounds."""
    pairs = zip(seconds[one], seconds[other], strict=True)
    low, middle, high = statistics.quantiles((a / b for a, b in pairs), n=4)
    return [round(each, 4) for each in (middle, low, high)]


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--rounds", type=int)
    parse.add_argument("--out", type=Path)
    args = parse.parse_args()
    torch.set_num_threads(1)
    cuda = args.device == "cuda"
    shape, width = ((64, 3, 32, 32) if cuda else (64, 1, 8, 8)), 64
    rounds = args.rounds or (101 if cuda else 31)
    if args.quick:
        shape, width, rounds = (4, 1, 8, 8), 8, 3
    calls, counts = made(width, shape, args.device)
    seconds = timed(calls, rounds, args.device)
    rows = {
        name: {
            "milliseconds": round(1e3 * statistics.median(seconds[name]), 3),
            "beside one call": ratio(seconds, name, "one call")[0],
            "evaluations": counts[name][0],
            "products with the Jacobian": counts[name][1],
            "peak MiB": round(memory(run, args.device), 1),
        }
        for name, run in calls.items()
    }
    record = {
        "what": f"one call of a guided U-Net of width {width}, states {shape}, float32",
        "on": torch.cuda.get_device_name()
        if cuda
        else f"one thread of a 2-core {platform.machine()} virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "rounds": rounds,
        "cfg beside two calls": ratio(seconds, "cfg", "two calls"),
        "together beside apart": ratio(seconds, "cfg, together", "cfg"),
        "rows": rows,
    }
    name = f"guidance_cost{'_cuda' if cuda else ''}.json"
    write_json(args.out or HERE / name, record)
    for name, row in rows.items():
        print(f"{name:16s}" + "  ".join(f"{k} {v}" for k, v in row.items()))
    print(f"cfg beside two calls {record['cfg beside two calls']}")
    print(f"together beside apart {record['together beside apart']}")


if __name__ == "__main__":
    main()

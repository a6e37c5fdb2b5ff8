"""What a step costs beside the network: time, kernels, host reads and memory, ours and others'.

    python benchmarks/step_cost.py                  writes benchmarks/step_cost.json, its figure
    python benchmarks/step_cost.py --device cuda    the same on a GPU, CUDA graphs too
    python benchmarks/step_cost.py --quick --out d  a look, in seconds, into the folder d

The others are an optional installation: diffusers, k-diffusion (tests/peers.txt), azula,
torchdiffeq, torchsde; the run says which were missing.

A network that costs nothing, float32, 50 steps, one CPU thread. Every library's loop of a method
is timed in turn, in one process, and the order goes round; figures are medians over the repeats.
"By hand" is the tightest loop there is, and does no bookkeeping at all. Kernels, host reads
(values for which a GPU would have to be waited for; on a CPU any value read) and states that live
at once are counted at the dispatcher, in a run of their own. At last every solver of the catalogue
with fixed steps on 64 x 2, where what is measured is the solver's own bookkeeping.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loops import METHODS, OURS, SDE, Loop, loops
from torch import Tensor

import sdegen as sg
from sdegen.bench.watch import Watch
from sdegen.networks import UNet

SIZES, STEPS, REPEATS = ((64, 2), (64, 3, 32, 32), (16, 3, 256, 256)), 50, 9
SMALL, AGAIN = (64, 2), 2_560
OTHERS = {"diffusers": 1 / 3, "k-diffusion": 0.4}
WITHIN = {
    "64 x 2": {"DDIM": {"by hand": 1.5}, "DPM-Solver++(2M)": {"by hand": 1.5}},
    "64 x 3 x 32 x 32": {
        "DDIM": {"by hand": 1.2, **OTHERS},
        "DPM-Solver++(2M)": {"by hand": 1.0, **OTHERS},
    },
}
"""What our time is to be within, beside theirs."""


def clock(run: Callable[[], Any], device: str) -> float:
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


def measured(method: str, shape: tuple[int, ...], device: str, repeats: int) -> dict[str, Any]:
    """Rows of one method at one size, a library each."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    output = torch.full_like(x, 0.1)
    every, missing = loops(method, STEPS, output)
    if missing:
        print(f"Not installed, so not measured: {', '.join(missing)}")
    if method != "ancestral":
        ours, plain = every["sdegen"](x), every["by hand"](x)
        assert float((ours - plain).abs().max() / plain.abs().max()) < 1e-4, method
    if device == "cuda" and method != "Heun":
        solver, predicts = OURS[method]
        model = sg.ScoreModel(lambda x, t: output, SDE, predicts)
        graph = sg.sampling.Captured(model, x, solver=solver, steps=STEPS)
        every["sdegen, captured"] = lambda x: graph(x)
    seconds: dict[str, list[float]] = {name: [] for name in every}
    names = list(every)
    # A short run is measured some times on end: alone it would measure what was run before it.
    times = max(1, AGAIN // x.numel())
    for k in range(repeats + 1):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            run = every[name]
            taken = clock(lambda run=run: [run(x) for _ in range(times)], device)  # type: ignore[misc]
            if k:  # the first is a warm-up
                seconds[name].append(taken / times)
    return {
        name: {
            "microseconds": round(1e6 * statistics.median(seconds[name]) / STEPS, 2),
            "fastest": round(1e6 * min(seconds[name]) / STEPS, 2),
            **counted(loop, x, device),
        }
        for name, loop in every.items()
    }


def counted(loop: Loop, x: Tensor, device: str) -> dict[str, float]:
    """What the dispatcher saw, per step, and the states that lived at once."""
    with Watch(x.numel(), device) as watch:
        loop(x)
    return {
        "kernels": round(watch.kernels / STEPS, 2),
        "small kernels": round(watch.small / STEPS, 2),
        "host reads": round(watch.reads / STEPS, 2),
        "states": watch.peak,
    }


def bookkeeping(device: str, repeats: int, each: int) -> dict[str, float]:
    """Microseconds per step of each so many-th solver with fixed steps, on a small state."""
    x, output = torch.randn(SMALL, device=device), torch.full(SMALL, 0.1, device=device)
    model, micro = sg.ScoreModel(lambda x, t: output, SDE), {}
    for name, entry in list(sg.solvers.catalogue().items())[::each]:
        solver = entry.build()
        if solver.traits.adaptive:
            continue

        def run(solver: sg.Solver = solver) -> Tensor:
            return sg.sample(model, x, solver=solver, steps=STEPS, seed=0)

        run()
        taken = statistics.median(clock(run, device) for _ in range(repeats))
        micro[name] = round(1e6 * taken / STEPS, 1)
    return micro


def network_time(repeats: int) -> dict[str, float]:
    """A captured loop on a U-Net beside the captured network alone, on a GPU: the ratio of times.

    Under ``set_sync_debug_mode("error")``: a synchronisation in ``sample`` ends the benchmark.
    """
    found = {}
    for b in (1, 64):
        net = UNet(channels=3).cuda().eval()
        model, x = sg.ScoreModel(net, SDE), torch.randn(b, 3, 32, 32, device="cuda")
        label = torch.full((b,), 0.5, device="cuda")
        solver = sg.DPMSolverPP(2)
        sg.sample(model, x, solver=solver, steps=STEPS)
        torch.cuda.set_sync_debug_mode("error")
        sg.sample(model, x, solver=solver, steps=STEPS)
        torch.cuda.set_sync_debug_mode("default")
        whole, alone = (
            sg.sampling.Captured(model, x, solver=solver, steps=STEPS),
            torch.cuda.CUDAGraph(),
        )
        with torch.no_grad(), torch.cuda.graph(alone):
            net(x, label)
        pairs = []
        for _ in range(repeats):
            ours = clock(lambda whole=whole, x=x: whole(x), "cuda")  # type: ignore[misc]
            its = clock(lambda g=alone: [g.replay() for _ in range(STEPS)], "cuda")  # type: ignore[misc]
            pairs.append(ours / its)
        found[f"captured U-Net loop, times its network, batch {b}"] = statistics.median(pairs)
    return found


def figure(record: dict[str, Any], path: Path) -> None:
    """Time per step of every library, a panel a size."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt

    tables = record["microseconds per step"]
    fig, axes = plt.subplots(1, len(tables), figsize=(4 * len(tables), 4), layout="constrained")
    for ax, (size, methods) in zip(axes, tables.items(), strict=True):
        names = list(dict.fromkeys(name for rows in methods.values() for name in rows))
        wide = 0.8 / len(names)
        for k, name in enumerate(names):
            found = [(i, rows[name]) for i, rows in enumerate(methods.values()) if name in rows]
            color = "black" if name == "by hand" else "tab:orange" if name == "sdegen" else None
            grey = 0.3 + 0.09 * k
            ax.bar(
                [i + (k - len(names) / 2 + 0.5) * wide for i, _ in found],
                [row["microseconds"] for _, row in found],
                wide,
                label=name,
                color=color or (grey, grey, grey),
            )
        ax.set(yscale="log", title=size, xticks=range(len(methods)), ylabel="µs per step")
        ax.set_xticklabels(methods, rotation=20, ha="right", fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    handles, names = axes[-1].get_legend_handles_labels()
    fig.legend(
        handles, names, loc="outside lower center", ncol=len(names), fontsize=8, frameon=False
    )
    fig.suptitle(record["on"], fontsize=9)
    fig.savefig(path, metadata={"Date": None})
    plt.close(fig)


def verdict(tables: dict[str, Any]) -> list[str]:
    """Our time beside theirs where a bound was set, said in words."""
    lines = []
    for size, methods in WITHIN.items():
        for method, bounds in methods.items():
            rows = tables[size][method]
            for name, bound in bounds.items():
                if name in rows:
                    ratio = rows["sdegen"]["microseconds"] / rows[name]["microseconds"]
                    said = "within" if ratio <= bound else "NOT within"
                    lines.append(f"{size}, {method}: {ratio:.2f} of {name}, {said} {bound:.2f}")
    return lines


def main() -> None:
    """Measure, write, draw and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parse.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sizes, repeats = (SIZES[:2], 1) if args.quick else (SIZES, REPEATS)
    tables = {
        " x ".join(map(str, shape)): {
            method: measured(method, shape, args.device, repeats) for method in METHODS
        }
        for shape in sizes
    }
    on = "one thread of a 2-core x86-64 virtual machine"
    if args.device == "cuda":
        on = torch.cuda.get_device_name()
    record: dict[str, Any] = {
        "on": f"{on}, torch {torch.__version__}, {STEPS} steps, float32, a network of no cost",
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "repeats": repeats,
        "microseconds per step": tables,
        "verdict": verdict(tables),
        "every solver, 64 x 2": bookkeeping(args.device, *((1, 12) if args.quick else (5, 1))),
    }
    if args.device == "cuda":
        record["network"] = network_time(repeats)
    args.out.mkdir(parents=True, exist_ok=True)
    stem = "step_cost" if args.device == "cpu" else "step_cost_cuda"
    (args.out / f"{stem}.json").write_text(json.dumps(record, indent=2) + "\n")
    figure(record, args.out / f"{stem}.svg")
    for size, methods in tables.items():
        for method, rows in methods.items():
            print(f"\n{size}, {method}\n{'':18s}{'us':>9s}{'kernels':>9s}{'small':>8s}", end="")
            print(f"{'reads':>8s}{'states':>8s}")
            for name, row in rows.items():
                print(f"{name:18s}{row['microseconds']:9.1f}{row['kernels']:9.1f}", end="")
                print(f"{row['small kernels']:8.1f}{row['host reads']:8.1f}{row['states']:8d}")
    print("\n" + "\n".join(record["verdict"]))


if __name__ == "__main__":
    main()

"""What a likelihood costs: ours beside the scheme of score_sde, same network, same tolerance.

    python benchmarks/likelihood.py --run outputs/digits    writes benchmarks/likelihood.json
    python benchmarks/likelihood.py --device cuda           likelihood_cuda.json: the U-Net alone
    python benchmarks/likelihood.py --quick --out x.json    without a trained run, in seconds

score_sde's scheme, written anew: SciPy's RK45 on the whole batch as one vector in t, tolerances
1e-5, and at every evaluation one network call for the drift and another, with its backward pass,
for the divergence (Hutchinson, one probe of random signs). Ours: ``log_prob`` as it stands, and on
steps fixed beforehand, in whose loop nothing is read back from the device. Times are medians over
interleaved repeats; errors are root mean squares, nats per dimension, against 1e-8 with the same
probes, so that they are the solver's own.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

import sdegen as sg
from sdegen.bench.watch import Watch
from sdegen.data import digits, photo_patches
from sdegen.networks import UNet
from sdegen.runs.folder import load_run

OUT = Path(__file__).with_suffix(".json")


def theirs(model: sg.ScoreModel, x: Tensor, v: Tensor, tol: float) -> tuple[Tensor, int]:
    """log p (b,) of states x (b, *) at t_min with probes v, and the network calls."""
    sde, b, before = model.sde, len(x), model.nfe

    def drift(y: Tensor, t: float) -> Tensor:
        return model(y, torch.full((b,), t, dtype=torch.float64, device=y.device)).drift(0.0)

    def field(t: float, state: Any) -> Any:
        y = torch.from_numpy(state[: x.numel()]).to(x).reshape(x.shape)
        with torch.no_grad():
            velocity = drift(y, t)
        with torch.enable_grad():
            y.requires_grad_()
            (g,) = torch.autograd.grad((drift(y, t) * v).sum(), y)
        div = (g * v).reshape(b, -1).sum(1)
        return np.concatenate([velocity.cpu().numpy().ravel(), div.cpu().numpy()])

    start = np.concatenate([x.cpu().numpy().ravel(), np.zeros(b)])
    end = solve_ivp(field, (sde.t_min, sde.T), start, "RK45", rtol=tol, atol=tol).y[:, -1]
    z = torch.from_numpy(end[: x.numel()]).reshape(x.shape)
    return sde.prior.log_prob(z) + torch.from_numpy(end[x.numel() :]), model.nfe - before


class Signs(sg.Noise):
    """Draws handed over beforehand, whatever they are asked for."""

    def __init__(self, v: Tensor) -> None:
        self.v = v

    def __call__(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
        """The draws."""
        return self.v.to(x)


def compare(model: sg.ScoreModel, x: Tensor, repeats: int, steps: int) -> dict[str, Any]:
    """One row a scheme."""
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    how: dict[str, Any] = {"probes": 1, "noise": Signs(v), "scaled": False}

    def ours(solver: sg.Solver | None, steps: int | None) -> Callable[[], tuple[Tensor, int]]:
        def run() -> tuple[Tensor, int]:
            found = sg.log_prob(model, x, solver=solver, steps=steps, **how)
            return found.value, int(found.nfe[0])

        return run

    cases: dict[str, Callable[[], tuple[Tensor, int]]] = {
        "score_sde's scheme": lambda: theirs(model, x, v.to(x), 1e-5),
        "log_prob": ours(None, None),
        "log_prob, to 3e-5": ours(sg.solvers.AdaptiveMultistep(rtol=3e-5, atol=3e-5), None),
        "log_prob, AdaptiveRK in lam": ours(sg.AdaptiveRK(clock="lam"), None),
        f"log_prob, RK4 in lam, {steps} steps": ours(sg.RK4("lam"), steps),
        f"log_prob, UniPC-3, {4 * steps} steps": ours(sg.UniPC(3), 4 * steps),
    }
    exact = ours(sg.AdaptiveRK(clock="lam", rtol=1e-8, atol=1e-8), None)()[0].cpu()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    results = {}
    for _ in range(repeats):
        for name, run in cases.items():
            begun = time.perf_counter()
            results[name] = run()
            seconds[name].append(time.perf_counter() - begun)
    rows = {}
    for name, (value, nfe) in results.items():
        with Watch(x.numel(), x.device.type) as watch:
            cases[name]()
        rows[name] = {
            "seconds per image": statistics.median(seconds[name]) / len(x),
            "network calls": nfe,
            "error, nats/dim": float((value.cpu() - exact).square().mean().sqrt()) / x[0].numel(),
            "host reads": watch.reads,
        }
    first = rows["score_sde's scheme"]["seconds per image"]
    for row in rows.values():
        row["beside theirs"] = row["seconds per image"] / first
    return rows


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--run", help="the folder of a finished sdegen-train run on the digits")
    parse.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path)
    args = parse.parse_args()
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # its rounding is above the tolerances
    found: dict[str, Any] = {}
    if args.run is not None:
        run = load_run(Path(args.run), [], "cpu")
        test = digits("test")
        x, y = test.x[:32], test.y[:32]
        model = run.model.given(y=y) if run.counts else run.model
        found["digits, trained network"] = compare(model, x, 3, 20)
    torch.manual_seed(0)
    width, b, size = (8, 2, 8) if args.quick else (32, 4, 32)
    if args.device == "cuda":
        width, b = 64, 32
    net = UNet(channels=3, width=width).eval()
    for p in net.parameters():  # a network that is not zero, as it is when it is new
        p.data.add_(0.02 * torch.randn_like(p))
    patches = photo_patches(size=size).x[:b]
    model = sg.ScoreModel(net.to(args.device), sg.VPSDE(), "edm")
    rows = compare(model, patches.to(args.device), 1 if args.quick else 3, 20)
    found[f"U-Net of width {width}, {b} x 3 x {size} x {size}"] = rows
    about = {"torch": torch.__version__, "python": platform.python_version()}
    on = "one thread of a 2-core x86-64 virtual machine"
    about["on"] = on if args.device == "cpu" else torch.cuda.get_device_name()
    out = args.out or OUT.with_stem("likelihood" if args.device == "cpu" else "likelihood_cuda")
    out.write_text(json.dumps({"about": about, "rows": found}, indent=1) + "\n")
    for title, rows in found.items():
        print(f"\n{title}")
        for name, row in rows.items():
            print(
                f"{name:36s}{row['seconds per image']:9.3f} s {row['beside theirs']:6.2f} "
                f"{row['network calls']:5d} calls {row['error, nats/dim']:9.1e} "
                f"{row['host reads']:5d} reads"
            )


if __name__ == "__main__":
    main()

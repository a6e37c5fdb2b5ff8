"""What noise does: the same solver at several eta, in distribution.

    python benchmarks/eta.py --run outputs/plain        writes benchmarks/eta.json
    python benchmarks/eta.py --quick --out x.json       a look, in seconds
    --device cuda                                       the network on a GPU

DPM-Solver++(2M) for every eta, equal steps in lam. On the correlated Gaussian the largest relative
error of a variance, which is exact; on mixtures the sliced Wasserstein distance to exact draws at
t_min, beside that of two sets of exact draws; on a trained network the Frechet distance of a
classifier's features to held-out digits, beside that of the training digits. Means over seeds and
their standard error.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench import problems
from sdegen.bench.point import weak
from sdegen.data import digits
from sdegen.metrics import sliced_wasserstein
from sdegen.metrics.quality import Quality
from sdegen.runs.folder import load_run
from sdegen.solvers.budget import walk_for

OUT = Path(__file__).with_suffix(".json")
ETAS = (0.0, 0.3, 0.6, 1.0, 1.4)
SDES: dict[str, sg.LinearSDE] = {"vp": sg.VPSDE(), "edm": sg.EDMSDE(), "flow": sg.FlowSDE()}
SOLVER = sg.DPMSolverPP(2)
Distance = Callable[[float, int, int], float]
"""Of eta, network calls and a seed."""


def gaussian(sde: sg.LinearSDE) -> Distance:
    """Without samples, the same for every seed."""
    problem = problems.gaussian()

    def distance(eta: float, nfe: int, seed: int) -> float:
        times = walk_for(SOLVER, sde, nfe=nfe, walk="log_snr").times
        return weak(problem.exact, SOLVER, sde, times, eta)["variance"]  # type: ignore[arg-type]

    return distance


def mixture(name: str, sde: sg.LinearSDE, n: int) -> tuple[float, Distance]:
    """The floor, and the distance to it."""
    problem = getattr(problems, name)()
    model = problem.model(sde)
    top, bottom = (sde(torch.tensor(t, dtype=torch.float64)) for t in (sde.T, sde.t_min))

    def distance(eta: float, nfe: int, seed: int) -> float:
        start = problem.noised(top, n, 3 * seed)
        x = sg.sample(model, start, solver=SOLVER, nfe=nfe, eta=eta, seed=seed)
        return sliced_wasserstein(x, problem.noised(bottom, n, 3 * seed + 1))

    floors = [
        sliced_wasserstein(*(problem.noised(bottom, n, 1000 + 2 * k + i) for i in range(2)))
        for k in range(4)
    ]
    return mean(floors), distance


def trained(model: sg.ScoreModel, n: int) -> tuple[float, Distance]:
    """The same of a network, to held-out digits."""
    quality = Quality(digits("train"), digits("test"), n)

    @torch.no_grad()
    def distance(eta: float, nfe: int, seed: int) -> float:
        x: Tensor = sg.sample(model, (n, 1, 8, 8), solver=SOLVER, nfe=nfe, eta=eta, seed=seed)
        return quality.distances(x.float().cpu())[0]

    return quality.floor(n).frechet, distance


def cases(run: str | None, quick: bool, device: str) -> Iterator[tuple[str, int, float, Distance]]:
    """Name, seeds, floor, distance."""
    for name, sde in SDES.items():
        yield f"gaussian, {name}, variance", 1, 0.0, gaussian(sde)
    for problem in ("mixture", "stiff"):
        for name, sde in SDES.items():
            here = mixture(problem, sde, 500 if quick else 20_000)
            yield f"{problem}, {name}, sliced W2", 2 if quick else 4, *here
    if run is not None:
        found = load_run(Path(run), [], device)
        if found.counts:
            raise SystemExit("This comparison takes an unconditional run: conditional=false.")
        yield (
            "trained network, Frechet",
            2 if quick else 4,
            *trained(found.model, 64 if quick else 768),
        )


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--run", help="the folder of a finished unconditional run on the digits")
    parse.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=OUT)
    args = parse.parse_args()
    rows: list[dict[str, Any]] = []
    print(f"{'':30s}{'calls':>6s}" + "".join(f"{f'eta {eta:g}':>17s}" for eta in ETAS))
    for name, seeds, floor, distance in cases(args.run, args.quick, args.device):
        for nfe in (10, 20) if args.quick else (10, 20, 50, 100):
            found = [[distance(eta, nfe, seed) for seed in range(seeds)] for eta in ETAS]
            means = [mean(f) for f in found]
            errors = [stdev(f) / seeds**0.5 if seeds > 1 else 0.0 for f in found]
            row = {"case": name, "floor": floor, "nfe": nfe, "distance": means, "error": errors}
            rows.append({**row, "seeds": seeds})
            cells = (f"{m:10.3g} {e:.1e}" for m, e in zip(means, errors, strict=True))
            print(f"{name:30s}{nfe:6d}" + "".join(cells), flush=True)
        print(f"{name:30s} floor {floor:.3g}")
        about = {"torch": torch.__version__, "python": platform.python_version()}
        on = "2-core x86-64 virtual machine"
        about |= {"machine": on if args.device == "cpu" else torch.cuda.get_device_name()}
        found_so_far = {"about": about, "eta": ETAS, "rows": rows}
        args.out.write_text(json.dumps(found_so_far, indent=1) + "\n")


if __name__ == "__main__":
    main()

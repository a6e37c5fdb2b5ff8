"""Headline claims of papers as rows: on exact scores of digits, and on a trained network.

    python benchmarks/claims.py --run outputs/plain     writes benchmarks/claims.json
    python benchmarks/claims.py --quick --out x.json    a look, in seconds
    --device cuda                                       the same on a GPU

Each row is a sampler at a number of network calls, in float32 from the prior, under VP with equal
steps in t as in the papers: Frechet distance of a classifier's features and sliced Wasserstein
distance to held-out digits; of exact scores, whose samples are the training digits, to those.
Means over seeds, the same for every sampler, with the standard error of the mean.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

import sdegen as sg
from sdegen.data import digits
from sdegen.exact.distributions import Empirical, exact_model
from sdegen.metrics.kernels import energy_distance
from sdegen.metrics.quality import Quality
from sdegen.runs.folder import load_run

OUT = Path(__file__).with_suffix(".json")
PC = sg.PredictorCorrector(corrector=sg.Langevin(norms="sample"))


def rows(model: sg.ScoreModel, x0: torch.Tensor) -> Iterator[tuple[str, str, sg.Solver, int]]:
    """Claim, sampler's name, sampler, network calls."""
    for nfe in (10, 20, 50, 100):
        yield "DDIM at 50, DDPM at 1,000", "DDIM", sg.DDIM(), nfe
    for nfe in (50, 100, 1000):
        yield "DDIM at 50, DDPM at 1,000", "DDPM", sg.Ancestral(), nfe
    for nfe in (10, 15, 20):
        yield "DPM-Solver at 10-20, DDIM at 50-100", "DPM-Solver-3", sg.DPMSolver(3), nfe
        yield "DPM-Solver at 10-20, DDIM at 50-100", "DPM-Solver++(2M)", sg.DPMSolverPP(2), nfe
    best = sg.solvers.analytic_dpm(model, x0)
    for nfe in (10, 25, 50, 100):
        for name, solver in (
            ("Analytic-DDPM", best),
            ("DDPM, small variance", sg.Ancestral("small")),
            ("DDPM, large variance", sg.Ancestral("large")),
        ):
            yield "Analytic-DPM's variance", name, solver, nfe
    for nfe in (100, 400):
        yield "predictor-corrector", "predictor-corrector", PC, nfe
        yield "predictor-corrector", "predictor alone", sg.solvers.ReverseDiffusion(), nfe


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--run", help="the folder of a finished unconditional run on the digits")
    parse.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=OUT)
    args = parse.parse_args()
    train, test = digits("train"), digits("test")
    ends = (sg.VPSDE()(torch.tensor(1.0, dtype=torch.float64)),) * 2
    n, seeds = (64, 2) if args.quick else (768, 4)
    exact = exact_model(Empirical(train.x), sg.VPSDE())
    cases = {"digits, exact denoiser": (exact, train)}
    if args.run is not None:
        run = load_run(Path(args.run), [], args.device)
        if run.counts:
            raise SystemExit("This comparison takes an unconditional run: conditional=false.")
        cases["digits, trained network"] = (run.model, test)
    found: dict[str, Any] = {}
    for title, (model, real) in cases.items():
        quality = Quality(test, train, n) if real is train else Quality(train, test, n)
        floor = quality.floor(n)
        found[title] = {"floor": [floor.frechet, floor.sliced], "rows": []}
        print(f"\n{title}: floor {floor.frechet:.3f} {floor.sliced:.4f}")
        for claim, name, solver, nfe in rows(model, train.x[:256].to(args.device)):
            if args.quick and nfe > 20:
                continue
            each = []
            for seed in range(seeds):
                how: dict[str, Any] = {"solver": solver, "nfe": nfe, "walk": "uniform"}
                start = sg.Seeded(seed).stream("prior")(torch.empty(n, 1, 8, 8), *ends)
                x = sg.sample(model, start.to(args.device), seed=seed, **how).float().cpu()
                each.append((*quality.distances(x), energy_distance(x, real.x)))
            row: dict[str, Any] = {"claim": claim, "sampler": name, "nfe": nfe}
            for measure, values in zip(
                ("frechet", "sliced", "energy"), zip(*each, strict=True), strict=True
            ):
                row[measure] = mean(values)
                row[f"{measure} error"] = stdev(values) / seeds**0.5
            found[title]["rows"].append(row)
            write(args.out, found, n, seeds, args.device)  # a run takes its time
            print(
                f"{claim:38s}{name:24s}{nfe:5d} {row['frechet']:9.3f} {row['frechet error']:.3f}"
                f" {row['sliced']:8.4f} {row['sliced error']:.4f} {row['energy']:8.4f}",
                flush=True,
            )


def write(path: Path, found: dict[str, Any], n: int, seeds: int, device: str) -> None:
    """What there is so far."""
    about = {"torch": torch.__version__, "python": platform.python_version(), "samples": n}
    on = "2-core x86-64 virtual machine" if device == "cpu" else torch.cuda.get_device_name()
    about |= {"seeds": seeds, "machine": on}
    path.write_text(json.dumps({"about": about, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()

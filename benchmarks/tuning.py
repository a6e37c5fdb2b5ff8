"""What tuning gains at 5, 8 and 10 network calls: on a mixture, on digits, on a trained network.

    python benchmarks/tuning.py                             all exact problems
    python benchmarks/tuning.py --run outputs/digits        the trained network too
    python benchmarks/tuning.py --quick --out /tmp/x.json   a look, in seconds

Every row holds the median error of the tuned solver and of the best untuned one (of 14 solvers on
4 walks) on the same fresh starts, against a fine solution. Writes benchmarks/tuning.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import sdegen as sg
from sdegen.data import digits
from sdegen.exact.distributions import Empirical, exact_model
from sdegen.exact.orders import mixture
from sdegen.runs.folder import given_labels, load_run

OUT = Path(__file__).parent / "tuning.json"
BUDGETS = (5, 8, 10)


def problems(run: str | None, quick: bool) -> Iterator[tuple[str, sg.ScoreModel, Any, int, int]]:
    """Name, model, shape, seeds and iterations."""
    for sde in (sg.VPSDE(), sg.EDMSDE(), sg.FlowSDE()):
        yield "mixture", exact_model(mixture(), sde), (2,), *((100, 20) if quick else (384, 240))
    x = digits("train").x
    for sde in (sg.VPSDE(), sg.EDMSDE()):
        size = (16, 20) if quick else (128, 240)
        yield "digits, exact denoiser", exact_model(Empirical(x), sde), x.shape[1:], *size
    if run is not None:
        trained = load_run(Path(run), [], "cpu")
        seeds, iterations = (16, 10) if quick else (64, 160)
        model = given_labels(trained.model, seeds, trained.counts)
        yield "digits, trained network", model, trained.shape, seeds, iterations


def main() -> None:
    """Tune, print a line each, and write the JSON."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--run", help="the folder of a finished sdegen-train run")
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=OUT)
    args = parse.parse_args()
    rows: list[dict[str, Any]] = []
    for name, model, shape, seeds, iterations in problems(args.run, args.quick):
        for nfe in BUDGETS[:1] if args.quick else BUDGETS:
            for coefficients in (False, True):
                start = time.perf_counter()
                tuned = sg.tune(
                    model,
                    nfe=nfe,
                    shape=shape,
                    coefficients=coefficients,
                    seeds=seeds,
                    iterations=iterations,
                )
                assert tuned.gain is not None
                row = {
                    "problem": name,
                    "sde": str(model.sde),
                    "nfe": nfe,
                    "learned": "walk and weights" if coefficients else "walk",
                    "iterations": iterations,
                    "seconds": round(time.perf_counter() - start, 1),
                    "ratio": tuned.gain.ratio,
                    **asdict(tuned.gain),
                }
                rows.append(row)
                print(
                    f"{name:24s} {type(model.sde).__name__:6s} {nfe:3d} {row['learned']:17s}"
                    f"{row['ratio']:6.2f}  ({row['low']:.2f}-{row['high']:.2f})  "
                    f"{row['seconds']:5.0f} s",
                    flush=True,
                )
                write(args.out, rows)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """What there is so far: a run takes its time."""
    about = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "machine": "2-core x86-64 virtual machine",
    }
    path.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

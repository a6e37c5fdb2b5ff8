"""What guidance does to a trained network's digits: right classes, spread, and how far they go.

    python benchmarks/guidance.py --run outputs/digits    writes benchmarks/guidance.json
    python benchmarks/guidance.py --quick --out x.json    without a trained run, in seconds

A run trained with loss=dropped. 500 samples in the shares of its classes, DPM-Solver++(2M) with 20
steps, float32, one seed for all: the share that a classifier of held-out digits puts into the
class that was asked for, the variance within classes over the data's own, the largest value (data
lie in [-1, 1]), the Frechet distance of the classifier's features, and the evaluations.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.data import class_labels, digits
from sdegen.guidance import CFG, Interval, Thresholded
from sdegen.metrics.quality import Quality
from sdegen.networks import UNet
from sdegen.runs.folder import load_run

OUT = Path(__file__).with_suffix(".json")


def kinds(model: sg.ScoreModel, none: int) -> dict[str, Any]:
    """Guided models by name."""

    def cfg(scale: Any) -> CFG:
        return CFG(model, scale, without={"y": none})

    plain = {f"cfg {s:g}": cfg(float(s)) for s in (0, 1, 1.5, 2, 3, 5, 8)}
    clipped = {f"cfg {s:g}, thresholded": Thresholded(cfg(s), 0.9, (-1, 1)) for s in (3.0, 8.0)}
    return {**plain, "cfg 3 on (0.2, 3]": cfg(Interval(3.0, 0.2, 3.0)), **clipped}


def spread(x: Tensor, y: Tensor) -> float:
    """The mean variance within classes."""
    parts = [x[y == k].var(0) * int((y == k).sum()) for k in y.unique()]
    return float(torch.stack(parts).sum(0).mean() / len(x))


def row(model: Any, x: tuple[int, ...], y: Tensor, quality: Quality, own: float) -> dict[str, Any]:
    """One kind's numbers."""
    done = sg.solve(model, x, solver=sg.DPMSolverPP(2), steps=20, seed=0)
    assert quality.classifier is not None
    with torch.no_grad():
        found = quality.classifier(done.x).argmax(1)
    return {
        "right": round(float((found == y).double().mean()), 4),
        "variance": round(spread(done.x, y) / own, 3),
        "largest": round(float(done.x.abs().max()), 2),
        "frechet": round(float(quality.distances(done.x)[0]), 3),
        "nfe": int(done.nfe.max()),
    }


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--run", type=Path, help="a conditional run, trained with loss=dropped")
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=OUT)
    args = parse.parse_args()
    if args.quick == (args.run is not None):
        parse.error("give --run, or --quick")
    torch.set_num_threads(1)
    train, test = digits("train"), digits("test")
    quality = Quality(train, test)
    if args.quick:
        torch.manual_seed(0)
        net = UNet(channels=1, classes=10, width=8)
        model, n = sg.ScoreModel(net.eval(), sg.VPSDE(), "edm"), 20
    else:
        model, n = load_run(args.run, [], "cpu").model, 500
    y = class_labels(n, [1] * 10)
    own = spread(train.x, train.y)
    record: dict[str, Any] = {
        "what": f"{n} guided samples of digits, DPM-Solver++(2M), 20 steps, float32",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "floor": quality.floor(n).frechet,
        "rows": {},
    }
    shape = (n, *train.x.shape[1:])
    for name, guided in kinds(model.given(y=y), 10).items():
        record["rows"][name] = found = row(guided, shape, y, quality, own)
        print(f"{name:24s}" + "  ".join(f"{k} {v}" for k, v in found.items()), flush=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

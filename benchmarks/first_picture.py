"""The picture of the README: work and precision beside others, and samples of the default run.

    python benchmarks/first_picture.py outputs/digits docs/first.png

The curves are made of the points that docs/benchmarks.md is about; the digits are drawn by the
recommended solver in 10 network calls, a column for each class.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure

import sdegen as sg
from sdegen.bench.results import load
from sdegen.files import atomic
from sdegen.report import figures, tables
from sdegen.report.standings import cells_of, fixed

ROOT = Path(__file__).parents[1]
SHOWN = {
    figures.RULE: "sdegen, by default",
    figures.THEIRS: "the others' best solver and walk",
    figures.FREE["the others"]: "the others, chosen anew at every number of calls",
}


def curves(axis: object) -> None:
    """Error beside the best with hindsight, over calls."""
    errors = load(ROOT / "benchmarks" / "points.csv.gz").errors()
    cells = cells_of(errors)
    which = tables.contenders(fixed(errors, cells))
    calls = [n for n in sorted({c.nfe for c in cells}) if n <= 100]
    for told, name in SHOWN.items():
        parts = [[c for c in cells if c.nfe == n] for n in calls]
        ratios = [tables.ratio_of(errors, part, which[told]) for part in parts]
        axis.plot(calls, ratios, label=name, **figures.STANDING[told])
    axis.set(xscale="log", yscale="log", xlabel="network calls")
    axis.set_title("Error beside the best with hindsight,\n36 problems with exact scores", size=9)
    axis.set_xticks(calls, [str(n) for n in calls])
    axis.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axis.minorticks_off()
    axis.grid(True, color="#e6e6e6", linewidth=0.6)
    axis.legend(frameon=False, fontsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def digits(axis: object, run: Path, rows: int = 5) -> None:
    """Samples by class, enlarged smoothly."""
    y = torch.arange(10).repeat(rows)
    x = sg.sample(sg.load(run).given(y=y), (10 * rows, 1, 8, 8), nfe=10, seed=1)
    x = torch.nn.functional.interpolate(x, size=(40, 40), mode="bicubic").clamp(-1, 1)
    x = torch.nn.functional.pad(x, (2, 2, 2, 2), value=-1.0).reshape(rows, 10, 44, 44)
    axis.imshow(x.permute(0, 2, 1, 3).reshape(rows * 44, 440), cmap="gray", vmin=-1, vmax=1)
    axis.set_title("The default run's digits, a class a column, 10 network calls", size=9)
    axis.set_axis_off()


def main(run: Path, out: Path) -> None:
    """Draw and write it."""
    figure = Figure(figsize=(9.6, 2.9), dpi=110, facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    curves(left)
    digits(right, run)
    figure.tight_layout()
    with atomic(out) as part:
        figure.savefig(part, format="png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

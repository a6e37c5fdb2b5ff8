"""Curves of a training: every number of its records, as panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from sdegen.report.figures import LOOK, OURS, PALE, panel, svg
from sdegen.report.markup import gallery, heading
from sdegen.training.identity import read_records
from sdegen.training.trainer import RECORDS

TITLES = {"loss": "loss", "held_out": "loss on held-out data", "grad_norm": "gradient norm",
          "lr": "learning rate", "seconds": "seconds between records"}  # fmt: skip
BLOCKS = 150
"""Points of a curve: records beyond are put together, with the least and the largest of them."""


def training(folder: Path) -> str:
    """Panels of a run's records over its steps; nothing of a run without them."""
    import matplotlib

    records = read_records(folder / RECORDS)
    if not records:
        return ""
    with matplotlib.rc_context(LOOK):
        found = {name: finite(records, name) for name in TITLES}
        panels = [drawn(each, name) for name, each in found.items() if any(v for _, v in each)]
    return heading("Training") + gallery(panels, "Over steps: means, and the range around them.")


def finite(records: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """A number of the records where it is one, with their steps."""
    known = [(r["step"], r[name]) for r in records if isinstance(r.get(name), int | float)]
    return [(step, value) for step, value in known if math.isfinite(value)]


def drawn(known: Sequence[tuple[int, float]], name: str) -> str:
    """One number over the steps; logarithmic where it spans more than a factor of ten."""
    size = -(-len(known) // BLOCKS)
    blocks = [known[k : k + size] for k in range(0, len(known), size)]
    steps = [fmean(step for step, _ in block) for block in blocks]
    values = [[value for _, value in block] for block in blocks]
    figure, axis = panel(TITLES[name])
    axis.fill_between(steps, *([f(v) for v in values] for f in (min, max)), color=PALE[True], lw=0)
    axis.plot(steps, [fmean(v) for v in values], color=OURS, lw=1.2)
    if known and 0 < 10 * min(v for _, v in known) < max(v for _, v in known):
        axis.set_yscale("log")
    axis.grid(True)
    axis.set_axisbelow(True)
    return svg(figure, TITLES[name])

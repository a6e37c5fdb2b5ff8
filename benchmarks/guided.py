"""Work and precision of guided sampling: ours and the others' at equal evaluations.

    python benchmarks/guided.py               writes benchmarks/guided.json, guided.csv.gz and figures
    python benchmarks/guided.py --tables      the tables and figures of guided.csv.gz alone
    python benchmarks/guided.py --quick --out d    a look, in seconds, into the folder d

Models of classes whose scores are exact, extrapolated by CFG: eight modes on a circle with four
classes, and digits with ten; six SDEs; scales 2, 4, 8 and 16, each as it is, clipped to the data's
range, and on the interval 0.3 < sigma / alpha <= 3. A solver is asked for 5 to 80 calls of two
evaluations each (Split for as many steps as fit), float64, from common starts; its error is each
sample's root mean square over coordinates, and of these the median. All twelve guidances are one
batch, in which no sample sees another. The reference is the guided flow by two integrators that
share no code.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import math
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench.guided import digits_by_class, ring
from sdegen.bench.peers import PEERS, Peer
from sdegen.bench.point import walk_of
from sdegen.bench.problems import Problem
from sdegen.bench.reference import dop853, runge_kutta
from sdegen.sde.level import expand
from sdegen.guidance.wrapped import Wrapped
from sdegen.files import atomic, write_json
from sdegen.solvers import AdaptiveRK

OUT = Path(__file__).with_suffix(".json")
SDES: dict[str, sg.LinearSDE] = {
    "vp": sg.VPSDE(),
    "subvp": sg.SubVPSDE(),
    "cosine": sg.CosineSDE(),
    "ve": sg.VESDE(),
    "edm": sg.EDMSDE(),
    "flow": sg.FlowSDE(),
}
PROBLEMS = {"ring": ring, "digits": digits_by_class}
STARTS = {"ring": 16, "digits": 6}
ON = (0.3, 3.0)
KINDS = [(k, s) for k in ("plain", "clipped", "interval") for s in (2.0, 4.0, 8.0, 16.0)]
CALLS = (5, 10, 20, 40, 80)
WALKS = {"ring": ("log_snr", "focused"), "digits": ("focused",)}
OURS: dict[str, sg.Solver] = {
    "ddim": sg.DDIM(),
    "dpmpp": sg.DPMSolverPP(2),
    "dpmpp_2s": sg.solvers.DPMSolverPPSinglestep(2),
    "heun": sg.Heun("rho"),
    "deis_tab2": sg.solvers.DEIS(3),
    "unipc_2": sg.UniPC(2),
    "unipc": sg.UniPC(3),
    **{
        f"wide_{k}{c}{'e' if e else ''}": sg.Multistep(k, c, clock="wide", euler_at_final=e)
        for k, c, e in (
            (2, 0, False),
            (2, 3, False),
            (3, 3, False),
            (3, 3, True),
            (4, 4, False),
            (5, 5, False),
        )
    },
}
THEIRS = (
    *("k_euler", "k_heun", "k_lms", "k_dpmpp_2m"),
    *("diffusers_dpmpp_2m", "diffusers_dpmpp_3m", "diffusers_dpmpp_single_2"),
    *("diffusers_unipc_2", "diffusers_unipc_3", "diffusers_deis_3", "diffusers_unipc_2_keep"),
    *("diffusers_unipc_3_keep", "diffusers_dpmpp_3m_keep", "diffusers_deis_3_keep"),
    *("azula_xab_2", "azula_xab_3", "azula_xab_4", "azula_vab_3", "azula_zab_3"),
)
"""azula's DDIM is k-diffusion's Euler, both libraries' Heun one, k-diffusion's ++(2S) our own."""
FIELDS = ("problem", "sde", "kind", "scale", "solver", "walk", "calls", "spent", "median", "rms")


class Guidances(Wrapped):
    """CFG with a scale of each sample's own, some on the interval alone, some clipped.

    model: the conditional one.  other: the one without.  Exact models say x0, which is clipped.
    """

    models = ("model", "other")
    own = ("scale", "within", "clipped")

    def __init__(self, model: Any, null: int, n: int) -> None:
        super().__init__(model)
        self.other = model.given(y=torch.full_like(model.conditions["y"], null))
        kind, scale = zip(*KINDS, strict=True)
        self.scale = torch.tensor(scale, dtype=torch.float64).repeat_interleave(n)
        self.within = torch.tensor([k == "interval" for k in kind]).repeat_interleave(n)
        self.clipped = torch.tensor([k == "clipped" for k in kind]).repeat_interleave(n)

    @property
    def cost(self) -> int:
        """A call of each."""
        return 2

    def output(self, x: Tensor, level: Any) -> Tensor:
        """x0 of the guided models."""
        outside = (level.rho <= ON[0]) | (level.rho > ON[1])
        scale = torch.where(self.within & outside, 1.0, self.scale)
        c, u = self.model.output(x, level), self.other.output(x, level)
        x0 = u + expand(scale, x) * (c - u)
        clipped = self.clipped.reshape(-1, *[1] * (x.ndim - 1))
        return torch.where(clipped, x0.clamp(-1, 1), x0)


def guided(problem: str, sde: sg.LinearSDE, n: int, seed: int = 0) -> tuple[Guidances, Tensor]:
    """All guidances of a problem in one batch, and its starts, the same n for each."""
    every, data = PROBLEMS[problem]()
    y = (torch.arange(n) % data.classes).repeat(len(KINDS))
    top = sde(torch.tensor(sde.T, dtype=torch.float64))
    x = Problem(every, ()).noised(top, n, seed)
    return Guidances(data.model(sde, y), data.classes, n), x.repeat(
        len(KINDS), *[1] * (x.ndim - 1)
    )


Row = dict[str, Any]
Key = tuple[str, ...]


def key_of(row: Row) -> Key:
    """What a measurement is of; all guidances are measured at once."""
    return tuple(str(row[name]) for name in ("problem", "sde", "solver", "walk", "calls"))


def ends(problem: str, sde: str, n: int) -> tuple[Guidances, Tensor, Tensor]:
    """The model, its starts and where the guided flow takes them, by Dormand and Prince's pair."""
    model, x = guided(problem, SDES[sde], n)
    fine = AdaptiveRK(clock="lam", rtol=1e-9, atol=1e-9)
    found = sg.solve(model, x, solver=fine)
    assert bool((found.status == 0).all()), (problem, sde)
    return model, x, found.x


def run(solver: sg.Solver | Peer, model: Guidances, x: Tensor, calls: int, walk: str) -> Tensor:
    """Where a solver ends in so many calls of the model."""
    if isinstance(solver, Peer):
        times = walk_of(solver, model.sde, nfe=calls, walk=walk).times
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return solver.solve(model, x, times, None)
    return sg.sample(model, x, solver=solver, nfe=2 * calls, walk=walk)


def solvers(names: Iterable[str]) -> Iterator[tuple[str, sg.Solver | Peer]]:
    """By their names."""
    for name in names:
        yield name, OURS[name] if name in OURS else PEERS[name]


def measured(
    problem: str, sde: str, names: Iterable[str], calls: Iterable[int], done: set[Key], n: int
) -> Iterator[Row]:
    """Rows of what is not done, a row for each guidance."""
    todo = [
        {"problem": problem, "sde": sde, "solver": name, "walk": walk, "calls": c}
        for name in names
        for walk in WALKS[problem]
        for c in calls
    ]
    todo = [row for row in todo if key_of(row) not in done]
    if not todo:
        return
    model, x, exact = ends(problem, sde, n)
    for row in todo:
        ((_, solver),) = solvers([row["solver"]])
        if row["calls"] < solver.calls(1):
            continue
        before = model.nfe
        x_0 = run(solver, model, x, row["calls"], row["walk"])
        off = (x_0 - exact).reshape(len(KINDS), n, -1).square().mean(2).sqrt()
        off = off.nan_to_num(nan=1e6, posinf=1e6).clamp(max=1e6)
        for (kind, scale), each in zip(KINDS, off, strict=True):
            yield {
                **row,
                "kind": kind,
                "scale": scale,
                "spent": model.nfe - before,
                "median": float(each.quantile(0.5)),
                "rms": float(each.square().mean().sqrt()),
            }


def read(path: Path) -> list[Row]:
    """The rows of a table."""
    if not path.is_file():
        return []
    with gzip.open(path, "rt", newline="") as file:
        return [
            {
                **row,
                "scale": float(row["scale"]),
                "calls": int(row["calls"]),
                "spent": int(row["spent"]),
                "median": float(row["median"]),
                "rms": float(row["rms"]),
            }
            for row in csv.DictReader(file)
        ]


def write(path: Path, rows: list[Row]) -> None:
    """A table, the same bytes for the same rows."""
    text = io.StringIO()
    out = csv.DictWriter(text, FIELDS, lineterminator="\n")
    out.writeheader()
    for row in sorted(rows, key=lambda row: (*key_of(row), row["kind"], row["scale"])):
        out.writerow({**row, "median": f"{row['median']:.4g}", "rms": f"{row['rms']:.4g}"})
    with atomic(path) as part:
        part.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))

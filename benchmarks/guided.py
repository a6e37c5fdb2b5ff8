"""Work and precision of guided sampling: ours and the others' at equal evaluations.

    python benchmarks/guided.py                    measures what benchmarks/guided.csv.gz lacks
    python benchmarks/guided.py --tables           its tables, JSON and figure alone
    python benchmarks/guided.py --quick --out d    a look, in seconds, into the folder d

Models of classes whose scores are exact, extrapolated by CFG: eight modes on a circle with four
classes, and digits with ten; six SDEs; scales 2, 4, 8 and 16, each as it is, clipped to the data's
range, and on the interval 0.3 < sigma / alpha <= 3. A solver is asked for 5 to 80 calls of two
evaluations each (Split for as many steps as fit), float64, from common starts; its error is each
sample's root mean square over coordinates, and of these the median. All twelve guidances are one
batch, in which no sample sees another. References are Dormand and Prince's pair at 1e-9; on a
guided circle SciPy's DOP853 agrees with it (tests/bench/test_guided.py). Held out, for a rule that
was found on VP, VE and flow: cosine, sub-VP and EDM; and six modes of three classes, the digits of
the other half, and scales 3, 6 and 12.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import math
import platform
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from guided_findings import findings, picture
from torch import Tensor

import sdegen as sg
from sdegen.bench.guided import Classes, digits_by_class, ring
from sdegen.bench.peers import PEERS, Peer
from sdegen.bench.point import walk_of
from sdegen.bench.problems import Problem
from sdegen.exact.distributions import Problem as Exact
from sdegen.files import atomic, write_json
from sdegen.guidance import CFG, Interval, Thresholded
from sdegen.guidance.wrapped import Wrapped
from sdegen.sde.level import expand
from sdegen.solvers import IPNDM, AdaptiveRK, DPMSolverPPSinglestep, Split

OUT = Path(__file__).with_suffix(".json")
SDES: dict[str, sg.LinearSDE] = {
    "vp": sg.VPSDE(),
    "subvp": sg.SubVPSDE(),
    "cosine": sg.CosineSDE(),
    "ve": sg.VESDE(),
    "edm": sg.EDMSDE(),
    "flow": sg.FlowSDE(),
}
ON = (0.3, 3.0)
KINDS = ("plain", "clipped", "interval")
CALLS = (5, 10, 20, 40, 80)


@dataclass(frozen=True)
class Case:
    """A problem: its data and classes, starts of each guidance, scales, and walks."""

    data: Any
    starts: int
    scales: tuple[float, ...] = (2.0, 4.0, 8.0, 16.0)
    walks: tuple[str, ...] = ("focused",)

    @property
    def guidances(self) -> list[tuple[str, float]]:
        """Kinds and scales."""
        return [(kind, scale) for kind in KINDS for scale in self.scales]


OTHERS = (3.0, 6.0, 12.0)
CASES = {
    "ring": Case(ring, 16, walks=("log_snr", "focused")),
    "digits": Case(digits_by_class, 6),
    "hexagon": Case(partial(ring, 6, 3, 0.15), 16, OTHERS),
    "other digits": Case(partial(digits_by_class, "test"), 6, OTHERS),
}
HELD_OUT = {"hexagon": ("vp", "cosine", "edm", "flow"), "other digits": ("vp", "ve")}
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
SPLITS = {
    "lie": Split(IPNDM(), 1),
    "strang": Split(IPNDM(), 2),
    "strang_2m": Split(sg.DPMSolverPP(2), 2),
    "strang_2s": Split(DPMSolverPPSinglestep(2), 2),
}
FIELDS = ("problem", "sde", "kind", "scale", "solver", "walk", "calls", "spent", "median", "rms")


SOLVERS: dict[str, Any] = {**OURS, **SPLITS, **{name: PEERS[name] for name in THEIRS}}


class Guidances(Wrapped):
    """CFG with a scale of each sample's own, some on the interval alone, some clipped.

    model: the conditional one.  other: the one without.  Exact models say x0, which is clipped.
    """

    models = ("model", "other")
    own = ("scale", "within", "clipped")

    def __init__(self, model: Any, null: int, guidances: list[tuple[str, float]], n: int) -> None:
        super().__init__(model)
        self.other = model.given(y=torch.full_like(model.conditions["y"], null))
        kind, scale = zip(*guidances, strict=True)
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


def conditional(case: Case, sde: sg.LinearSDE, copies: int) -> tuple[Any, Classes, Tensor]:
    """The conditional model of so many copies of a problem's starts, its classes, the starts."""
    every: Exact
    data: Classes
    every, data = case.data()
    y = (torch.arange(case.starts) % data.classes).repeat(copies)
    top = sde(torch.tensor(sde.T, dtype=torch.float64))
    x = Problem(every, ()).noised(top, case.starts, 0)
    return data.model(sde, y), data, x.repeat(copies, *[1] * (x.ndim - 1))


def guided(case: Case, sde: sg.LinearSDE) -> tuple[Guidances, Tensor]:
    """All guidances of a problem in one batch, and its starts, the same for each."""
    model, data, x = conditional(case, sde, len(case.guidances))
    return Guidances(model, data.classes, case.guidances, case.starts), x


Row = dict[str, Any]
Key = tuple[str, ...]


def key_of(row: Row) -> Key:
    """What a measurement is of; all guidances are measured at once."""
    return tuple(str(row[name]) for name in ("problem", "sde", "solver", "walk", "calls"))


def ends(model: Any, x: Tensor, tol: float = 1e-9) -> Tensor:
    """Where the guided flow takes states, by Dormand and Prince's pair."""
    found = sg.solve(model, x, solver=AdaptiveRK(clock="lam", rtol=tol, atol=tol))
    assert bool((found.status == 0).all())
    return found.x


def run(solver: sg.Solver | Peer, model: Any, x: Tensor, calls: int, walk: str) -> Tensor:
    """Where a solver ends in so many calls of the model."""
    if isinstance(solver, Peer):
        times = walk_of(solver, model.sde, nfe=calls, walk=walk).times
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return solver.solve(model, x, times, None)
    if isinstance(solver, Split):  # a step is the base's calls and two, and two to begin with
        steps = (2 * calls - 2 * (solver.order - 1)) // (solver.inner.traits.calls + 2)
        return sg.sample(model, x, solver=solver, steps=steps, walk=walk)
    return sg.sample(model, x, solver=solver, nfe=2 * calls, walk=walk)


def errors(off: Tensor, guidances: int) -> Iterator[dict[str, float]]:
    """Of each guidance: the median and the root mean square over its samples; 1e6 at most."""
    each = off.reshape(guidances, len(off) // guidances, -1).square().mean(2).sqrt()
    for row in each.nan_to_num(nan=1e6, posinf=1e6).clamp(max=1e6):
        yield {"median": float(row.quantile(0.5)), "rms": float(row.square().mean().sqrt())}


def measured(
    problem: str, sde: str, names: Iterable[str], calls: Iterable[int], done: set[Key]
) -> Iterator[Row]:
    """Rows of what is not done, a row for each guidance."""
    case = CASES[problem]
    every = [(name, walk, c) for name in names for walk in case.walks for c in calls]
    keys = ("solver", "walk", "calls")
    todo: list[Row] = [
        {"problem": problem, "sde": sde, **dict(zip(keys, e, strict=True))} for e in every
    ]
    todo = [row for row in todo if key_of(row) not in done]
    if not todo:
        return
    split = todo[0]["solver"] in SPLITS
    if split:
        inner, data, x = conditional(case, SDES[sde], len(case.scales))
        scale = torch.tensor(case.scales, dtype=torch.float64).repeat_interleave(case.starts)
        model: Any = CFG(inner, scale, {"y": data.classes})
    else:
        model, x = guided(case, SDES[sde])
    about = [("plain", s) for s in case.scales] if split else case.guidances
    exact = ends(model, x)
    for row in todo:
        solver = SOLVERS[row["solver"]]
        if not split and row["calls"] < solver.calls(1):
            continue
        before = model.nfe
        off = run(solver, model, x, row["calls"], row["walk"]) - exact
        spent = model.nfe - before
        for (kind, s), error in zip(about, errors(off, len(about)), strict=True):
            yield {**row, "kind": kind, "scale": s, "spent": spent, **error}


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


def orders(steps: tuple[int, ...] = (20, 40, 80, 160)) -> dict[str, Any]:
    """Errors of guided models on the circle under VP, scale 4, and slopes between the steps."""
    sde, case = SDES["vp"], CASES["ring"]
    inner, data, x = conditional(case, sde, 1)
    without = {"y": data.classes}
    cfg = CFG(inner, 4.0, without)
    models = {
        "cfg": cfg,
        "static clip": Thresholded(cfg, None, (-1, 1)),
        "dynamic, 0.9": Thresholded(cfg, 0.9, (-1, 1)),
        "interval": CFG(inner, Interval(4.0, *ON), without),
    }
    solvers = {"ddim": sg.DDIM(), "dpmpp": sg.DPMSolverPP(2), "unipc": sg.UniPC(3)}
    found: dict[str, Any] = {}
    for name, model in models.items():
        exact, found[name] = ends(model, x, 1e-10), {}
        for which, solver in solvers.items():
            walked = [sg.sample(model, x, solver=solver, steps=n) - exact for n in steps]
            far = [next(errors(off, 1))["median"] for off in walked]
            slopes = [round(math.log2(a / b), 2) for a, b in pairwise(far)]
            found[name][which] = {"errors": [float(f"{e:.3g}") for e in far], "slopes": slopes}
    return {"steps": list(steps), **found}


def work(quick: bool) -> Iterator[tuple[str, str, list[str], tuple[int, ...]]]:
    """What is measured: problem, SDE, solvers and calls."""
    every, calls = [*OURS, *THEIRS], CALLS[:2] if quick else CALLS
    if quick:
        every = ["wide_20", "wide_23", "wide_33", "wide_44", "wide_55", "ddim"]
        yield "ring", "vp", every, calls
        yield "ring", "vp", ["strang"], calls
        return
    for sde in SDES:
        for problem in ("ring", "digits"):
            yield problem, sde, every, calls
        yield "ring", sde, list(SPLITS), calls
    for problem, sdes in HELD_OUT.items():
        for sde in sdes:
            yield problem, sde, every, calls


def main() -> None:
    """Measure what is missing, then the tables."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--tables", action="store_true")
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, help="a folder for all that is written")
    args = parse.parse_args()
    torch.set_num_threads(1)
    folder = OUT.parent if args.out is None else args.out
    folder.mkdir(parents=True, exist_ok=True)
    path, record = folder / "guided.csv.gz", folder / "guided.json"
    rows = read(path)
    for problem, sde, names, calls in () if args.tables else work(args.quick):
        rows += measured(problem, sde, names, calls, {key_of(row) for row in rows})
        write(path, rows)
        print(problem, sde, len(rows), flush=True)
    said = {
        "what": "median errors of guided sampling, geometric means; evaluations are twice calls",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "orders": orders((20, 40) if args.quick else (20, 40, 80, 160)),
        **findings(rows, tuple(OURS), THEIRS),
    }
    write_json(record, said)
    where = OUT.parents[1] / "docs" if args.out is None else folder
    picture(said, where / "guided.svg")


if __name__ == "__main__":
    main()

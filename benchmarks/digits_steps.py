"""Few calls on one model of digits: as it stands, with a tuned solver, and by trained students.

    python benchmarks/digits_steps.py --run outputs/digits    # into benchmarks/digits_steps.json
    python benchmarks/digits_steps.py --table                 # the record as a table

Every line is a command of sdegen. Each way is trained once for each of ``--seeds``, and samples
are drawn with each of ``--draws``: Frechet distance and sliced W2 beside held-out digits, and what
real digits have beside each other (the floor). Seconds are of the processor, on one thread; those
of a student of rounds are of all rounds up to its own, those of reflow with its pairs. What a
record holds already is not done again.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gallery import run as seconds_of

from sdegen.files import read_json, write_json

RECORD = Path(__file__).with_suffix(".json")
BUDGETS = (1, 2, 4, 8)
ROUNDS = [16, 8, 4, 2, 1]


@dataclass(frozen=True)
class Way:
    """train: what ``sdegen-train`` is told, nothing of a model as it stands.  calls: budgets that
    it is sampled at.  nested: its runs are rounds, each for one budget.  tuned: settings of
    ``sdegen-tune``, for every budget."""

    train: str = ""
    calls: Sequence[int] = BUDGETS
    nested: bool = False
    tuned: str | None = None
    more: Sequence[str] = field(default_factory=list)


WAYS = {
    "default": Way(),
    "DDIM": Way(more=["solver=ddim"]),
    "recommended": Way(more=["solver=recommended"]),
    "progressive": Way(
        f"experiment=distill/progressive loss.inner=2 teacher.rounds={ROUNDS}".replace(", ", ","),
        nested=True,
    ),
    "consistency distillation": Way("experiment=distill/consistency", (1, 2, 4)),
    "reflow": Way("experiment=distill/reflow teacher.pairs.n=5000"),
    "MeanFlow": Way("experiment=distill/meanflow"),
    "shortcut": Way("experiment=distill/shortcut"),
    # One call has no walk to tune.
    "tuned walk and weights": Way(calls=(2, 4, 8), tuned="coefficients=true seeds=96 fine=100"),
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--run", type=Path, default=Path("outputs/digits"))
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1], help="of trainings")
    parser.add_argument("--draws", nargs="*", type=int, default=[0, 1, 2], help="of samples")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=100, help="of tuning")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--out", type=Path, default=RECORD)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    if given.table:
        print("\n".join(table(read_json(given.out))))
        return
    found = read_json(given.out) if given.out.is_file() else {"cells": []}
    made_with = {name: getattr(given, name) for name in ("steps", "batch", "iterations", "n")}
    if found.get("made_with", made_with) != made_with:
        parser.error(
            f"{given.out} was made with {found['made_with']}: give these, or another --out"
        )
    for seed in given.seeds:
        for name in given.ways:
            way = WAYS[name]
            same = [c for c in found["cells"] if c["way"] == name]
            if not way.train and way.tuned is None and same:
                continue  # nothing is trained: another seed would be the same again
            if any(c["seed"] == seed for c in same):
                continue
            found["cells"] += cells(name, seed, given)
            found |= {
                "made_with": made_with,
                "hardware": f"{platform.machine()} CPU, one thread",
                "versions": {"python": platform.python_version(), "torch": torch.__version__},
            }
            write_json(given.out, found)


def cells(name: str, seed: int, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A way's cells: one for each budget and draw."""
    way, root = WAYS[name], given.run.parent.parent.resolve()
    teacher = given.run.resolve().relative_to(root)
    title = f"{name.replace(' ', '_')}-{seed}"
    if way.train:
        how = f"train.steps={given.steps} train.batch_size={given.batch} train.seed={seed}"
        line = f"sdegen-train {way.train} teacher.run={teacher} {how} evaluate.budgets=[8]"
        if name == "progressive":  # each is sampled at its own budget alone
            line = line.replace(" evaluate.budgets=[8]", "")
        trained = told(f"{line} name={title}", root)
    for calls in way.calls:
        told_, spent, at = list(way.more), 0.0, teacher
        if way.tuned is not None:
            line = f"sdegen-tune run={teacher} nfe={calls} {way.tuned} seed={seed}"
            line += f" iterations={given.iterations} batch={given.batch} name={title}-{calls}"
            spent = told(line, root)
            told_ += ["solver=tuned", f"solver.path={teacher}/tuned/{title}-{calls}.json"]
        elif way.train:
            at, spent = Path("outputs") / title, trained
            if way.nested:
                at, spent = at / f"{calls}-steps", share(trained, calls)
        for draw in given.draws:
            label = f"{title}-{calls}"
            said = " ".join([*told_, f"nfe={calls} n={given.n} seed={draw} name={label}"])
            told(f"sdegen-sample run={at} {said}", root)
            row, floor = rows_of(root / at / "samples", label, draw)
            yield {
                "way": name,
                "seed": seed,
                "draw": draw,
                "budget": calls,
                "calls": row["nfe"],
                "seconds": round(spent, 1),
                "frechet": row["frechet"],
                "sliced": row["sliced"],
                "floor": {"frechet": floor["frechet"], "sliced": floor["sliced"]},
            }


def told(line: str, root: Path) -> float:
    """A command's seconds of the processor."""
    print(line, flush=True)
    return seconds_of(line, root, [])


def share(seconds: float, calls: int) -> float:
    """Of rounds of equal length, those up to the one of so many calls."""
    return seconds * (ROUNDS.index(calls) + 1) / len(ROUNDS)


def rows_of(samples: Path, label: str, draw: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of samples and of real data."""
    (path,) = samples.glob(f"{label}-*seed{draw}/result.json")
    floor, row = read_json(path)["rows"]
    return row, floor


def table(found: dict[str, Any]) -> Iterator[str]:
    """Means, and their standard errors, one line for each way."""
    floor = found["cells"][0]["floor"]
    yield "| | seconds | Frechet at " + " | ".join(map(str, BUDGETS)) + " | sliced W2 at 1 | 4 |"
    yield "|---" * (len(BUDGETS) + 4) + "|"
    yield f"| real digits | | {floor['frechet']:.2f} | | | | {floor['sliced']:.3f} | |"
    for name in WAYS:
        mine = [c for c in found["cells"] if c["way"] == name]
        if not mine:
            continue
        last = max(c["seconds"] for c in mine)
        shown = [mean_of(mine, calls, "frechet", 2) for calls in BUDGETS]
        shown += [mean_of(mine, calls, "sliced", 3) for calls in (1, 4)]
        yield f"| {name} | {last:.0f} | " + " | ".join(shown) + " |"


def mean_of(cells: Sequence[dict[str, Any]], calls: int, what: str, digits: int) -> str:
    """A cell of the table: the mean, and its standard error over trainings, each the mean of its
    draws; of one training, or of none, over draws."""
    here = [c for c in cells if c["budget"] == calls]
    if not here:
        return ""
    by_seed: dict[int, list[float]] = {}
    for cell in here:
        by_seed.setdefault(cell["seed"], []).append(cell[what])
    values = [statistics.mean(each) for each in by_seed.values()]
    if len(values) == 1:
        values = [cell[what] for cell in here]
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {error:.{digits}f}"


if __name__ == "__main__":
    main()

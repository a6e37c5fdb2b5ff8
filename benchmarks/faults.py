"""Faults, counted: kills, failing writes, damaged files, odd commands and calls, growth.

    python benchmarks/faults.py                  writes benchmarks/faults.json and prints it
    python benchmarks/faults.py --quick --out d  a look, in seconds, into the folder d
    python benchmarks/faults.py --only 'odd commands' --lines log.jsonl    of a record, this alone

``--lines``: what odd_lines.py has noted of command lines, in place of a run of them here.

A child is forked for whatever may die. ``survived`` is what there is to be: a killed run that goes
on and ends as an undisturbed one, bit for bit; a failed write or a damaged file that is told in a
sentence (a ValueError or an OSError) or does no harm; a command or a call that ends in a result or
in a sentence. What did not is listed.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import io
import json
import os
import platform
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a pool of threads does not survive a fork

import torch
from odd_lines import commands, commit, counted, imported, prepared, tried
from oddities import GONE, SENTENCE, Found, calls, forked
from torch import Tensor
from torch.utils.data import TensorDataset

import sdegen as sg
from sdegen.files import PART, locked, read_json, read_tensors, write_json, write_tensors
from sdegen.networks import MLP
from sdegen.runs.chunks import SAMPLES, Chunk, Shelf, gathered
from sdegen.training import Trainer, TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.trainer import RECORDS

STEPS = 24
DATA = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------------------------- the work


def train(folder: Path, steps: int = STEPS) -> None:
    """A short training that saves at every second step."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    run = Trainer(
        sg.ScoreModel(MLP(dim=2, width=8, depth=1), sg.VPSDE()),
        TensorDataset(DATA),
        sg.dsm_loss,
        lambda weights: torch.optim.AdamW(weights, lr=1e-2),
        TrainSettings(steps=steps, batch_size=8, log_every=2, save_every=2, device="cpu"),
        folder,
    )
    for _ in run.steps():
        pass


def sample(folder: Path) -> None:
    """Forty samples in chunks of four."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = sg.ScoreModel(MLP(dim=2, width=8, depth=1), sg.VPSDE())

    def make(first: int, m: int) -> Chunk:
        noise = sg.Seeded(0, first)
        x = sg.sample(model, (m, 2), solver=sg.DDIM(1.0), steps=20, noise=noise)
        return Chunk({"x": x}, 0.0)

    with locked(folder), contextlib.redirect_stderr(io.StringIO()):  # no bar
        gathered(Shelf(folder, {}, {"seed": 0}), 40, 4, make)


def save(folder: Path) -> None:
    """One file over another, without end: all its numbers are its version's."""
    for version in range(10**9):
        tensors = {name: torch.full((2000,), float(version)) for name in "abc"}
        write_tensors(folder / CHECKPOINT, tensors, {"version": version})


def outcome(folder: Path, name: str) -> dict[str, Any]:
    """All that a run left, by name: tensors, and the steps of its records."""
    left: dict[str, Any] = dict(read_tensors(folder / name)[0])
    if (folder / RECORDS).exists():
        lines = (folder / RECORDS).read_text().splitlines()
        left["records"] = [line.split(",")[0] for line in lines]
    left["parts"] = [part.name for part in folder.glob(f"{PART}*")]
    return left


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """To the last bit."""
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) if isinstance(a[k], Tensor) else a[k] == b[k] for k in a
    )


def undisturbed(work: Callable[[Path], None], name: str, home: Path) -> tuple[Any, float]:
    """What the work leaves, and the seconds that it takes in a child."""
    begun = time.perf_counter()
    if forked(lambda: work(home / "whole")) != 0:
        raise RuntimeError(f"{work.__name__} fails by itself")
    return outcome(home / "whole", name), time.perf_counter() - begun


# ----------------------------------------------------------------------------------- the faults


def kills(
    work: Callable[[Path], None], name: str, n: int, home: Path, dice: random.Random
) -> Found:
    """Killed at a moment of its time and started again: the end is that of a run left alone."""
    found, (whole, seconds) = Found(), undisturbed(work, name, home)
    for trial in range(n):
        folder = home / f"killed-{trial}"
        folder.mkdir()
        moment = dice.uniform(0, seconds)
        first = forked(partial(work, folder), moment)
        again = forked(partial(work, folder))
        fine = again == 0 and equal(outcome(folder, name), whole)
        found.add("killed" if first == GONE else "done before", fine, f"{moment:.3f} s, {again}")
        shutil.rmtree(folder)
    return found


def saving(n: int, home: Path, dice: random.Random) -> Found:
    """Killed while it writes: what is there is one version, whole, and nothing else is left."""
    found = Found()
    for _ in range(n):
        forked(lambda: save(home), dice.uniform(0.02, 0.12))
        with locked(home):
            left = list(home.glob(f"{PART}*"))
        try:
            tensors, about = read_tensors(home / CHECKPOINT)
            values = {float(v) for t in tensors.values() for v in (t.min(), t.max())}
            fine = values == {float(about["version"])} and not left
            found.add("a version", fine, f"{values}, {left}")
        except ValueError as error:
            none_yet = not (home / CHECKPOINT).exists()
            found.add("none yet" if none_yet else "damaged", none_yet, str(error))
    return found


WAYS = {"no space left": errno.ENOSPC, "no permission": errno.EACCES, "no folder": errno.ENOENT}
PLACES = ("os.replace", "os.fsync", "tempfile.mkstemp", "pathlib.Path.write_bytes")


def failing(folder: Path, place: str, code: int, at: int) -> None:
    """A training in which one call of a function of the system fails, the at-th."""
    real, number = meaning(place), 0

    def fails(*args: Any, **kwargs: Any) -> Any:
        nonlocal number
        number += 1
        if number == at:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    with mock.patch(place, fails):
        train(folder)


def writes(n: int, home: Path, dice: random.Random) -> Found:
    """Each write fails once: a sentence, the last good checkpoint, and then an equal run."""
    found, (whole, _) = Found(), undisturbed(train, CHECKPOINT, home)
    for trial in range(n):
        folder, place = home / f"failed-{trial}", dice.choice(PLACES)
        name, at = dice.choice([*WAYS]), dice.randrange(1, 12)
        folder.mkdir()
        first = forked(partial(failing, folder, place, WAYS[name], at))
        again = forked(partial(train, folder))
        fine = first in (0, SENTENCE) and again == 0 and equal(outcome(folder, CHECKPOINT), whole)
        told = {0: "no harm", SENTENCE: "a sentence"}.get(first, "a crash")
        found.add(told, fine, f"{place}, {name}, call {at}: {first}, {again}")
        shutil.rmtree(folder)
    return found


def meaning(path: str) -> Any:
    """What a dotted name means."""
    room, _, name = path.rpartition(".")
    holder: Any = {"os": os, "tempfile": tempfile, "pathlib.Path": Path}[room]
    return getattr(holder, name)


def damaged(whole: bytes, dice: random.Random) -> tuple[str, bytes]:
    """How a file was damaged, and what it is now."""
    data, at = bytearray(whole), dice.randrange(len(whole))
    kind = dice.choice(["a bit", "cut", "longer", "empty", "zeros", "noise"])
    if kind == "a bit":
        data[at] ^= 1 << dice.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "longer":
        data += dice.randbytes(dice.randrange(1, 100))
    elif kind == "empty":
        data.clear()
    else:
        length = min(dice.randrange(1, 200), len(data) - at)
        data[at : at + length] = bytes(length) if kind == "zeros" else dice.randbytes(length)
    return kind, bytes(data)


def damages(n: int, home: Path, dice: random.Random) -> Found:
    """A checkpoint, a chunk of samples and a table, damaged: a sentence, or what was written."""
    found = Found()
    forked(lambda: train(home / "run", 4)), forked(lambda: sample(home / "samples"))
    table = home / "table.json"
    write_json(table, [{"nfe": k, "frechet": k / 7} for k in range(30)])
    readers: dict[Path, Callable[[Path], Any]] = {
        home / "run" / CHECKPOINT: lambda path: read_tensors(path)[0],
        home / "samples" / SAMPLES: lambda path: read_tensors(path)[0],
        table: lambda path: {"table": read_json(path)},
    }
    for _ in range(n):
        path = dice.choice([*readers])
        whole, read = path.read_bytes(), readers[path]
        before = read(path)
        kind, now = damaged(whole, dice)
        path.write_bytes(now)
        try:
            same = equal(read(path), before)
            # A number of a table is text that anyone may change.
            fine = same or path == table
            found.add("no harm" if same else "read as another", fine, f"{path.name}, {kind}")
        except (ValueError, OSError):
            found.add("a sentence", True)
        except Exception as error:
            found.add("a crash", False, f"{path.name}, {kind}: {type(error).__name__}: {error}")
        path.write_bytes(whole)
    return found


def crowded(n: int, home: Path) -> Found:
    """Two processes in one folder: the second is refused, and none is hurt."""
    found = Found()
    whole, _ = undisturbed(train, CHECKPOINT, home)
    for trial in range(n):
        folder = home / f"crowded-{trial}"
        folder.mkdir()
        with locked(folder):
            second = forked(partial(train, folder))
        third = forked(partial(train, folder))
        fine = second == SENTENCE and third == 0 and equal(outcome(folder, CHECKPOINT), whole)
        found.add("refused" if second == SENTENCE else "let in", fine, f"{second}, {third}")
    return found


def growth(n: int, home: Path) -> dict[str, Any]:
    """Megabytes that n training steps and n solves add to the most a process ever had."""

    def most() -> float:
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    model, x = sg.ScoreModel(MLP(dim=2, width=8, depth=1), sg.VPSDE()), torch.zeros(4, 2)

    def solves(count: int) -> None:
        for k in range(count):
            end = 1e-3 + 1e-7 * k  # each a walk of its own
            sg.sample(model, x, solver=sg.DPMSolverPP(), walk=[1.0, 0.5, end], seed=k)

    solves(n // 10), train(home / "short", max(n // 10, 2))
    first = most()
    solves(n)
    second = most()
    train(home / "long", n)
    return {
        "n": n,
        "MB of solves": round(second - first, 1),
        "MB of steps": round(most() - second, 1),
    }


KINDS = (
    *("killed while it trains", "killed while it saves", "killed while it samples"),
    *("writes that fail", "damaged files", "odd calls", "odd commands", "two in a folder"),
    "growth",
)
"""Of a record."""
FEW = {
    "sdegen-train": 12,
    "sdegen-sample": 1000,
    "sdegen-evaluate": 24,
    "sdegen-tune": 1300,
    "sdegen-bench": 31,
    "sdegen-bench report": 22,
    "sdegen-report": 100,
    "sdegen-card": 300,
    "sdegen-init": 0,
}
"""A random line of each command. Fiftieth ones run as processes too; all but two have a result."""


def few_commands(home: Path) -> Found:
    """The few lines."""
    imported()
    log, base, at = home / "lines.jsonl", prepared(home), {"commit": commit()}
    log.write_text("".join(json.dumps(tried(n, home, base) | at) + "\n" for n in FEW.values()))
    return counted(log)


def main() -> None:
    """Try, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--quick", action="store_true")
    parse.add_argument(
        "--only", nargs="+", choices=KINDS, help="kinds of the record that are made anew"
    )
    parse.add_argument("--lines", type=Path, help="the log of odd_lines.py")
    parse.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parse.parse_args()
    few = args.quick
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dice = random.Random(0)
    record: dict[str, Any] = {
        "what": "faults tried, and survived",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }

    kept = args.out / "faults.json"
    if args.only and kept.exists():
        record = read_json(kept)

    with tempfile.TemporaryDirectory() as name:

        def home(kind: str) -> Path:
            (Path(name) / kind).mkdir()
            return Path(name) / kind

        tries: dict[str, Callable[[], Found]] = {
            "killed while it trains": lambda: kills(
                train, CHECKPOINT, 3 if few else 100, home("trains"), dice
            ),
            "killed while it saves": lambda: saving(5 if few else 100, home("saves"), dice),
            "killed while it samples": lambda: kills(
                sample, SAMPLES, 3 if few else 100, home("samples"), dice
            ),
            "writes that fail": lambda: writes(4 if few else 100, home("writes"), dice),
            "damaged files": lambda: damages(40 if few else 500, home("damages"), dice),
            "odd calls": lambda: calls(60 if few else 1000, dice),
            "odd commands": lambda: (
                counted(args.lines)
                if args.lines
                else few_commands(home("commands"))
                if few
                else commands(1000, home("commands"))
            ),
            "two in a folder": lambda: crowded(2 if few else 20, home("crowd")),
        }
        for kind, run in tries.items():
            if args.only and kind not in args.only:
                continue
            record[kind] = found = run().summary
            print(f"{kind:26s}{found['survived']:5d} of {found['tried']:5d}  {found['ends']}")
            for each in found["wrong"]:
                print(f"    {each}")
            sys.stdout.flush()
        if not args.only or "growth" in args.only:
            record["growth"] = growth(100 if few else 10_000, home("growth"))
            print(f"growth: {record['growth']}")
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(kept, record)


if __name__ == "__main__":
    main()

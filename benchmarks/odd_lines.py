"""Random command lines of every ``sdegen-*``, and what each ended in.

    python benchmarks/odd_lines.py --first 0 --n 100 --log lines.jsonl    these lines, noted
    python benchmarks/odd_lines.py --first 17 --n 1 --show                one of them, shown

A line is a function of its number: what most of its settings may be, and odd values among them. It
runs in a child that was forked from a process which has imported what commands import, by the
``main`` that the console script calls, in a folder of its own with three finished runs; every
fiftieth is started as a process as well, and has to end in the same.

It ends in a result, or in one sentence: no traceback, no hang, and no file that is half there.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a pool of threads does not survive a fork

import numpy as np
from odd_settings import FOLDERS, GOOD, JUNK, ODD, SHARE, USUAL
from oddities import CRASH, Found, forked
from PIL import Image

from sdegen.files import PART, read_json, read_tensors

RUNS = {
    "toy2d": "experiment=toy2d train.keep_every=1",
    "digits": "experiment=digits",
    "words": "experiment=text/captioned_digits",
}
LONGEST = 300
"""Seconds, of a command's child, which is ended then: it hangs."""
EVERY = 50
"""One line in so many is started as a process as well."""


def line(number: int) -> list[str]:
    """The command line of a number, beginning with the command."""
    dice = random.Random(f"line {number}")
    name = dice.choices([*USUAL], [SHARE.get(each, 1) for each in USUAL])[0]
    if name == "init":
        return ["sdegen-init", *dice.sample(FOLDERS, dice.choice([0, 1, 1, 1, 1, 2]))]
    words, taken = list[str](), set[str]()
    for keys in dice.sample([*GOOD[name]], dice.choice([1, 1, 2, 2, 3, 4])):
        odd = dice.random() < 0.25
        value = dice.choice(ODD if odd else GOOD[name][keys].split() or [""])
        said = [*keys.split("&")[:-1], f"{keys.split('&')[-1]}={value}"]
        names = {each.split("=")[0] for each in said}
        if not names & taken:
            words += said
            taken |= names
    if name == "train" and "experiment" not in taken and dice.random() < 0.98:
        words.append("experiment=toy2d")
    if "steps" in taken and dice.random() < 0.9:
        taken.add("nfe")  # one of them says it
    usual = [each for each in USUAL[name].split() if each.split("=")[0] not in taken]
    if dice.random() < 0.06:
        words.append(dice.choice(JUNK))
    sweep = ["-m"] if dice.random() < 0.04 else []
    command, _, word = name.partition(" ")
    return [f"sdegen-{command}", *([word] if word else []), *sweep, *usual, *words]


def imported() -> None:
    """What commands import, once for all children."""
    rooms = ("train", "sample", "evaluate", "tune", "bench", "report", "card", "init")
    more = ("hydra", "lightning_fabric", "matplotlib.pyplot", "sklearn.datasets", "scipy.stats")
    under = ("train", "samples", "likelihood", "tune", "finish", "card", "judging", "tasks")
    for name in (
        *more,
        "safetensors.torch",
        *(f"sdegen.cli.{room}" for room in rooms),
        *(f"sdegen.runs.{each}" for each in under),
        *("sdegen.report.run", "sdegen.report.page", "sdegen.bench.point", "sdegen.data"),
    ):
        importlib.import_module(name)


def command(home: Path, said: Path, argv: list[str]) -> None:
    """A command in this process, which ends with it; what it says goes into a file."""
    os.chdir(home)
    with said.open("w") as file:
        os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
    signal.alarm(LONGEST)
    sys.argv, code = argv, 0
    try:
        importlib.import_module(f"sdegen.cli.{argv[0].removeprefix('sdegen-')}").main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as a process would: a ValueError that reaches the end is a traceback
        traceback.print_exc()
        code = CRASH
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def halves(home: Path) -> list[str]:
    """What a command has left that is half there: parts of files, and files that do not read."""
    found = [str(each.relative_to(home)) for each in home.rglob(f"{PART}*")]
    for path in (each for each in home.rglob("*") if each.is_file()):
        try:
            if path.suffix == ".json":
                read_json(path)
            elif path.suffix == ".safetensors":
                read_tensors(path)
            elif path.suffix in (".png", ".gif"):
                with Image.open(path) as image:
                    image.load()
            elif path.suffix == ".npz":
                with np.load(path) as arrays:
                    [arrays[name] for name in arrays]
            elif path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
                raise ValueError("cut")
        except (ValueError, OSError, SyntaxError, zipfile.BadZipFile) as error:
            found.append(f"{path.relative_to(home)}: {error}"[:100])
    return found


def sentences(text: str) -> list[str]:
    """What is said, without the lines of a progress bar."""
    lines = [part.split("\r")[-1].strip() for part in text.splitlines()]
    return [each for each in lines if each]


def ended(status: int, text: str, left: list[str]) -> tuple[str, bool]:
    """In what a command ended, and whether it may."""
    if "Traceback (most recent call last)" in text:
        return "a traceback", False
    if left:
        return "half a file", False
    if status == -signal.SIGALRM:
        return "a hang", False
    if status == 0:
        return "a result", True
    return ("a sentence", True) if status in (1, 2) and sentences(text) else ("a crash", False)


def prepared(home: Path) -> Path:
    """A folder with three finished runs and a point of a benchmark."""
    base, said = home / "base", home / "said.txt"
    base.mkdir()
    usual = USUAL["train"].removeprefix("name=new ")
    lines = [f"sdegen-train name={name} {usual} {what}" for name, what in RUNS.items()]
    for argv in lines:
        if forked(partial(command, base, said, argv.split())) != 0:
            raise RuntimeError(f"{argv}: {said.read_text()[-500:]}")
    forked(partial(command, base, said, ["sdegen-bench", *USUAL["bench"].split()]))
    return base


def commands(n: int, home: Path, first: int = 0, log: Path | None = None) -> Found:
    """Lines of so many numbers: a result, or a sentence; nothing half there."""
    imported()
    at = commit()
    log = log or home / "lines.jsonl"
    base = prepared(home)
    for number in range(first, first + n):
        begun = time.perf_counter()
        told = tried(number, home, base)
        told |= {"seconds": round(time.perf_counter() - begun, 2), "commit": at}
        with log.open("a") as file:
            print(json.dumps(told), file=file)
    return counted(log)


def tried(number: int, home: Path, base: Path) -> dict[str, Any]:
    """What became of a line, in a copy of the folder ``base``."""
    argv, place, said = line(number), home / "place", home / "said.txt"
    shutil.copytree(base, place)
    status = forked(partial(command, place, said, argv))
    text = said.read_text(errors="replace")
    end, fine = ended(status, text, halves(place))
    shutil.rmtree(place)
    if number % EVERY == 0:
        shutil.copytree(base, place)
        whole = started(place, argv)
        shutil.rmtree(place)
        if whole != status:
            end, fine, text = "another end as a process", False, f"{status}, {whole}"
    return {"number": number, "argv": argv, "end": end, "fine": fine, "said": text[-3000:]}


def commit() -> str:
    """What is tried: the commit, with a + where files of it were changed."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def counted(log: Path) -> Found:
    """The lines of a log, all tried at one commit; ValueError for a log of several."""
    entries = [json.loads(each) for each in log.read_text().splitlines()]
    found = Found()
    at = {each["commit"] for each in entries}
    if len(at) > 1:
        raise ValueError(
            f"{log} has lines of the commits {', '.join(sorted(at))}: try all at one."
        )
    distinct = {tuple(each["argv"]) for each in entries}
    found.about = {"commit": "".join(at), "lines that are no other's": len(distinct)}
    for told in entries:
        last = (sentences(told["said"]) or [""])[-1]
        argv, end = " ".join(told["argv"]), told["end"]
        if end == "a result" and "--help" in told["argv"]:
            end = "help"
        what = f"{told['number']}: {argv}: {last}"
        found.add(f"{told['argv'][0]}: {end}", told["fine"], what)
    return found


def started(place: Path, argv: list[str]) -> int:
    """The exit status of a line as a process of its own."""
    script = Path(sys.executable).parent / argv[0]
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            [script, *argv[1:]], cwd=place, capture_output=True, timeout=LONGEST, check=False
        ).returncode
    return -signal.SIGALRM


def main() -> None:
    """Some lines alone."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--first", type=int, default=0)
    parse.add_argument("--n", type=int, default=1)
    parse.add_argument("--log", type=Path)
    parse.add_argument("--show", action="store_true")
    args = parse.parse_args()
    if args.show:
        for number in range(args.first, args.first + args.n):
            print(number, *line(number))
        return
    with tempfile.TemporaryDirectory() as name:
        found: dict[str, Any] = commands(args.n, Path(name), args.first, args.log).summary
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

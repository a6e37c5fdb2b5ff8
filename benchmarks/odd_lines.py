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
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a pool of threads does not survive a fork

from oddities import Found, forked

from sdegen.files import PART, read_json, read_tensors

ODD = (
    *("", "0", "-1", "1", "2", "3", "2.5", "abc", "heun", "auto", "cpu", "null", "true", "{}"),
    *("[1,2]", "../x", "nan", "1e999", "'", "[]", "{a: 1}", "a b", "é", "1e-9", "[null]", "$x"),
)
"""What any setting may be given as."""
JUNK = ("--no-such", "~net", "=", "+", "net.width", "a.b.c=1", "++seed=3", "-x", "--help", "~seed")

SOLVERS = "ddim dpmpp heun unipc euler_maruyama ddpm rk4 recommended auto langevin ab4 stork"
WALKS = "log_snr uniform karras quadratic churn restart ancestral multistep focused default"

USUAL = {
    "train": "name=new train.steps=2 train.batch_size=8 evaluate.budgets=[2] net.width=8 "
    "device=cpu ~evaluate.solvers.ddpm ~evaluate.solvers.dpmpp",
    "sample": "run=outputs/toy2d n=4 nfe=2 quality=false device=cpu",
    "evaluate": "run=outputs/toy2d n=2 solver=heun nfe=4 device=cpu",
    "tune": "run=outputs/toy2d nfe=3 seeds=16 iterations=1 fine=10 device=cpu",
    "bench": "problem=gaussian nfe=[2] n=4",
    "report": "run=outputs/toy2d nfe=4 device=cpu",
    "card": "run=outputs/toy2d license=mit",
    "bench report": "folder=outputs/bench",
    "init": "",
}
"""What makes each of them a matter of a second."""

GOOD: dict[str, dict[str, str]] = {
    "train": {
        "experiment": "toy2d toy2d toy2d toy2d digits text/captioned_digits "
        "likelihood/digits_bits",
        "net": "mlp unet dit adm edm2 transformer",
        "sde": "vp ve subvp cosine edm flow ddpm learned anisotropic",
        "loss": "edm song flow_matching min_snr likelihood perturbed exposed uncertain dropped "
        "vdm minibatch_ot meanflow shortcut hybrid",
        "data": "moons checkerboard gaussians8 pinwheel swissroll checkerboard digits",
        "model": "edm eps score v velocity x0",
        "walk": WALKS,
        "train.steps": "1 3",
        "train.batch_size": "1 7 32",
        "train.ema": "0.9 [0.9,0.99] 0",
        "train.schedule": "constant cosine rsqrt",
        "train.accumulate": "1 2 4",
        "train.precision": "auto 32-true bf16-mixed",
        "train.validate_every": "0 1",
        "train.log_every": "1 2",
        "train.keep_every": "0 1",
        "train.sample_every": "0 1",
        "train.snapshot_every": "0 1",
        "train.checkpointing": "true false",
        "train.warmup": "0 5",
        "train.clip": "1.0 .inf",
        "train.seed": "0 7",
        "train.optimizer.lr": "1e-3 0.1",
        "train.optimizer._target_": "torch.optim.SGD torch.optim.Adam torch.optim.LBFGS",
        "conditional": "true false",
        "sigma_data": "auto 0.5 1.0",
        "evaluate.budgets": "[1] [2,3] 2",
        "evaluate.seed": "0 5",
        "net.width": "8 16",
        "name": "other toy2d runs/x",
        "objective": "frechet sliced",
        "task": "none inpaint colorize superresolve",
        "text": "none words",
        "logger": "none csv tensorboard",
        "evaluate.solvers.heun.x": "1",
    },
    "sample": {
        "run": "outputs/toy2d outputs/digits outputs/words",
        "solver": f"{SOLVERS} tuned adaptive_rk gotta_go_fast predictor_corrector analytic_ddpm",
        "walk": WALKS,
        "nfe": "1 3 8",
        "steps": "1 3",
        "n": "1 3 5",
        "batch_size": "1 2 1000",
        "run=outputs/digits&classes": "[3] [1,2] [0,9]",
        "weights": "finished averaged raw",
        "step": "1 2",
        "ema": "0.999 0.9",
        "ema_std": "0.08",
        "formats": "[png] [npz] [png,npz] [gif]",
        "seed": "0 7 [1,2,3,4]",
        "eta": "0 1 0.5 [0,1]",
        "denoise": "true false",
        "guidance": "none cfg interval thresholded cfg_thresholded",
        "run=outputs/digits&guidance": "cfg interval thresholded cfg_thresholded",
        "run=outputs/digits&guidance=cfg&guidance.scale": "0 1 3.0",
        "run=outputs/digits&task": "none inpaint colorize superresolve edit uncrop",
        "run=outputs/digits&task=inpaint&observation": "none ddnm dps pigdm mmps tmpd",
        "run=outputs/digits&task=edit&start": "0.5 0.9",
        "run=outputs/digits&task=uncrop&draws": "1 2",
        "run=outputs/words&prompt": "three a-seven [one,two]",
        "truncate": "0.5 0.9",
        "solver.order": "1 2 3",
        "quality": "true false",
        "objective": "sliced frechet",
        "name": "mine a/b",
        "device": "cpu auto",
    },
    "evaluate": {
        "run": "outputs/toy2d outputs/digits outputs/words",
        "split": "test train",
        "n": "1 2 3",
        "batch": "1 2 64",
        "solver": "heun ddim unipc rk4 euler adaptive_rk dpmpp euler_maruyama",
        "steps": "2 5",
        "nfe": "4 8",
        "walk": "log_snr uniform karras",
        "divergence": "rademacher gaussian hutch++ exact",
        "probes": "1 2 3",
        "repeats": "1 2",
        "importance": "1 2",
        "protocol": "song",
        "elbo_draws": "0 3",
        "ddpm_steps": "0 4",
        "bounds_on": "dequantised values",
        "objective": "flow elbo ddpm frechet",
        "weights": "finished averaged raw",
        "data": "moons digits checkerboard",
        "features": "raw",
        "features=raw&samples": "ddim-log_snr mine",
        "seed": "0 3",
    },
    "tune": {
        "run": "outputs/toy2d outputs/digits outputs/words",
        "nfe": "1 2 4",
        "coefficients": "true false",
        "seeds": "1 2 16",
        "iterations": "1 2",
        "fine": "1 5 20",
        "batch": "1 3 128",
        "seed": "0 4",
        "name": "mine",
    },
    "bench": {
        "problem": "gaussian mixture low_rank stiff guided_mixture",
        "sde": "vp ve subvp cosine edm flow ddpm",
        "solver": f"{SOLVERS} adaptive_rk k_heun tuned_walk",
        "walk": WALKS,
        "nfe": "2 [2,3] [1]",
        "steps": "2 [3]",
        "tol": "[1e-2] 0.1",
        "n": "1 3",
        "draws": "4 10",
        "seed": "0 2",
        "dtype": "float64 float32",
        "repeats": "0 1",
    },
    "report": {
        "run": "outputs/toy2d outputs/digits outputs/words",
        "solver@left": SOLVERS,
        "solver@right": SOLVERS,
        "nfe": "1 2 5",
        "seed": "0 3",
        "out": "page.html deep/er/page.html",
    },
    "card": {
        "run": "outputs/toy2d outputs/digits outputs/words",
        "license": "mit cc0-1.0 apache-2.0",
        "data_license": "mit null",
        "about": "text a-b",
        "out": "card deep/er/card",
    },
    "bench report": {
        "folder": "outputs/bench outputs/toy2d nowhere",
        "out": "page.html deep/page.html",
        "costs": "outputs/bench null",
        "run": "outputs/digits outputs/toy2d",
        "default": "unipc/log_snr heun/uniform",
    },
    "init": {},
}
"""What the settings of each command may well be."""
FOLDERS = ("mine", "deep/er/mine", "", " ", "outputs", "outputs/toy2d/metrics.csv", ".", "é", "-x")
SHARE = {"train": 5, "sample": 8, "evaluate": 5, "tune": 3, "bench": 4, "report": 2, "card": 2}
"""How often each of them comes, the others once."""

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
            elif path.suffix == ".html" and not path.read_text().rstrip().endswith("</html>"):
                raise ValueError("cut")
        except (ValueError, OSError) as error:
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
    log = log or home / "lines.jsonl"
    base = prepared(home)
    for number in range(first, first + n):
        begun = time.perf_counter()
        told = tried(number, home, base)
        told["seconds"] = round(time.perf_counter() - begun, 2)
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


def counted(log: Path) -> Found:
    """The lines of a log, each by what became of it last."""
    entries = [json.loads(each) for each in log.read_text().splitlines()]
    found = Found()
    latest = {each["number"]: each for each in entries}
    wrong = {each["number"] for each in entries if not each["fine"]}
    found.mended = sorted(number for number in wrong if latest[number]["fine"])
    for told in latest.values():
        last = (sentences(told["said"]) or [""])[-1]
        argv = " ".join(told["argv"])
        found.add(
            f"{told['argv'][0]}: {told['end']}", told["fine"], f"{told['number']}: {argv}: {last}"
        )
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

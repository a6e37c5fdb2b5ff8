"""What a step of few-step training costs beside a plain one, and what pairs cost.

    python benchmarks/distill_cost.py                       writes benchmarks/distill_cost.json
    python benchmarks/distill_cost.py --quick --out folder  in seconds

The digits' U-Net (experiment=digits: width 32, by class), batches of 64, one thread: forward,
backward and an optimiser's step under each loss, beside plain steps of the same network with the
same conditions and calls of the teacher. All take turns in one process; CPU seconds, quartiles.

allowed: of distillation the teacher's calls and 1.1 plain steps, of MeanFlow 2.5 plain steps.
pairs:   CPU seconds of 10,000 digits at 40 calls, from batches of 250.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import sdegen as sg
from sdegen.distill import Consistency, MeanFlow, Progressive, Shortcut, pairs_of
from sdegen.files import write_json
from sdegen.networks import UNet

HERE = Path(__file__).parent
SHAPE, CLASSES = (1, 8, 8), 10


def network(width: int, **how: Any) -> UNet:
    """The digits'."""
    return UNet(1, width=width, classes=CLASSES, **how)


def stepping(net: torch.nn.Module, loss: Any, x0: torch.Tensor, y: torch.Tensor) -> Any:
    """A training step under a loss."""
    adam = torch.optim.Adam(net.parameters(), 1e-4)
    model = sg.ScoreModel(net, sg.VPSDE(), predicts="v").given(y=y)

    def step() -> None:
        adam.zero_grad()
        loss(model, x0).mean().backward()
        adam.step()

    return step


def quartiles(seconds: list[float]) -> list[float]:
    """Of measurements."""
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return torch.tensor(seconds, dtype=torch.float64).quantile(at).tolist()


def taken(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each way in every round, in turn; a first round is not counted."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for k in range(rounds + 1):
        for way, do in ways.items():
            begun = time.process_time()
            do()
            if k:
                seconds[way].append(time.process_time() - begun)
    return seconds


def main() -> None:
    """The command."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=HERE)
    parse.add_argument("--rounds", type=int, default=15)
    args = parse.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    width, b, rounds = (8, 4, 1) if args.quick else (32, 64, args.rounds)
    x0, y = torch.randn(b, *SHAPE), torch.randint(CLASSES, (b,))
    teacher = sg.ScoreModel(network(width), sg.VPSDE(), predicts="v").eval().requires_grad_(False)
    given, t = teacher.given(y=y), torch.full((b,), 0.5)

    def call() -> None:
        with torch.no_grad():
            given(x0, t)

    told = partial(network, width, numbers=("jump",))
    plain = network(width)
    losses: dict[str, tuple[Any, torch.nn.Module]] = {
        "plain": (sg.dsm_loss, plain),
        "progressive, inner 8": (Progressive(teacher, 4, 8), network(width)),
        "consistency distillation": (Consistency(teacher, steps=64), told()),
        "consistency training": (Consistency(steps=64), told()),
        "shortcut": (Shortcut(), told()),
        "MeanFlow": (MeanFlow(), told()),
    }
    ways = {way: stepping(net, loss, x0, y) for way, (loss, net) in losses.items()}
    seconds = taken({"a teacher's call": call, **ways}, rounds)
    middle = {way: quartiles(each)[1] for way, each in seconds.items()}
    # A target without gradients is a call as a teacher's is.
    calls = {
        "progressive, inner 8": 8,
        "consistency distillation": 3,
        "consistency training": 1,
        "shortcut": 2,
    }
    allowed = {
        way: n * middle["a teacher's call"] + 1.1 * middle["plain"] for way, n in calls.items()
    } | {"MeanFlow": 2.5 * middle["plain"]}
    rows = [
        {
            "way": way,
            "seconds": quartiles(each),
            "plain_steps": middle[way] / middle["plain"],
            **({"of_allowed": middle[way] / allowed[way]} if way in allowed else {}),
        }
        for way, each in seconds.items()
    ]
    size, n = (4, 8) if args.quick else (250, 500)
    begun = time.process_time()
    labels = torch.arange(n) % CLASSES
    pairs_of(teacher, n, SHAPE, nfe=40, batch_size=size, y=labels, classes=CLASSES)
    pairs = time.process_time() - begun
    record = {
        "what": f"CPU seconds, quartiles of {rounds} rounds in turn, {b} at once, width {width}",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "steps": rows,
        "pairs": {"n": n, "nfe": 40, "seconds": pairs, "of_10000": pairs / n * 10_000},
    }
    for row in rows:
        print(row)
    print(record["pairs"])
    write_json(args.out / "distill_cost.json", record)


if __name__ == "__main__":
    main()

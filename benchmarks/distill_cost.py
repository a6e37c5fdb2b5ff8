"""What a step of few-step training costs beside a plain one, and what pairs cost.

    python benchmarks/distill_cost.py                       writes benchmarks/distill_cost.json
    python benchmarks/distill_cost.py --run outputs/digits  how far pairs of a run are off, alone
    python benchmarks/distill_cost.py --quick --out folder  in seconds

The digits' U-Net (experiment=digits: width 32, by class), batches of 64, one thread: forward,
backward and an optimiser's step under each loss, beside plain steps of the same network with the
same conditions and calls of the teacher. All take turns in one process; CPU seconds, quartiles.

allowed: of distillation the teacher's calls and 1.1 plain steps, of MeanFlow 2.5 plain steps.
pairs:   CPU seconds of 10,000 digits at 20 and 40 calls, from batches of 250; and of one call of
         one of them, by how the network is called.
error:   of a run's own pairs by the number of calls, against 200 steps of order 5 in float64: the
         root mean square of a pixel, data lying in [-1, 1], and the worst sample's.
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
from sdegen.files import read_json, write_json
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


def callings(width: int, b: int) -> dict[str, float]:
    """CPU milliseconds of a call and sample, the least of three, by how the network is called."""

    def taken_by(
        size: int,
        mode: Callable[[], Any] = torch.no_grad,
        dtype: torch.dtype = torch.float32,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> float:
        net = network(width).eval().requires_grad_(False).to(dtype).to(memory_format=layout)
        x = torch.randn(size, *SHAPE, dtype=dtype).to(memory_format=layout)
        t, y = torch.full((size,), 0.5), torch.arange(size) % CLASSES
        spent = []
        with mode():
            for _ in range(4):
                begun = time.process_time()
                net(x, t, y)
                spent.append(time.process_time() - begun)
        return 1e3 * min(spent[1:]) / size

    return {
        **{f"batches of {size}": taken_by(size) for size in (b // 4, b, 4 * b)},
        "inference mode": taken_by(b, torch.inference_mode),
        "channels last": taken_by(b, layout=torch.channels_last),
        "bfloat16": taken_by(b, dtype=torch.bfloat16),
    }


def errors(folder: Path) -> dict[str, dict[str, float]]:
    """Of a run's samples, by the number of calls of the default solver."""
    from sdegen.runs.folder import load_run

    run, exact = (load_run(folder, [], "cpu") for _ in range(2))
    z = torch.randn(64, *run.shape, generator=torch.Generator().manual_seed(0)).double()
    x = run.model.sde.prior.sample(z)
    fine = {"solver": sg.Multistep(5, corrector=5, clock="wide"), "walk": "focused", "steps": 200}
    exact.model.double()
    truth = sg.sample(exact.given(64), x, **fine)
    found = {}
    for nfe in (8, 12, 16, 20, 25, 30, 40):
        off = sg.sample(run.given(64), x.float(), nfe=nfe).double() - truth
        each = off.flatten(1).square().mean(1)
        found[str(nfe)] = {"rms": float(each.mean().sqrt()), "worst": float(each.max().sqrt())}
    return found


def main() -> None:
    """The command."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=HERE)
    parse.add_argument("--rounds", type=int, default=15)
    parse.add_argument("--run", type=Path)
    args = parse.parse_args()
    path = args.out / "distill_cost.json"
    kept = read_json(path) if path.is_file() else {}
    if args.run is not None:
        write_json(path, {**kept, "error": errors(args.run)})
        return
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
        "consistency distillation, half the flow": (
            Consistency(teacher, steps=64, share=0.5),
            told(),
        ),
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
        "consistency distillation, half the flow": 2.5,
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
    labels = torch.arange(n) % CLASSES
    pairs = {}
    for nfe in (20, 40):
        begun = time.process_time()
        pairs_of(teacher, n, SHAPE, nfe=nfe, batch_size=size, y=labels, classes=CLASSES)
        pairs[str(nfe)] = (time.process_time() - begun) / n * 10_000
    record = {
        "what": f"CPU seconds, quartiles of {rounds} rounds in turn, {b} at once, width {width}",
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
        "steps": rows,
        "pairs": {"n": n, "of_10000": pairs, "calling": callings(width, size)},
        **({"error": kept["error"]} if "error" in kept else {}),
    }
    for row in rows:
        print(row)
    print(record["pairs"])
    write_json(path, record)


if __name__ == "__main__":
    main()

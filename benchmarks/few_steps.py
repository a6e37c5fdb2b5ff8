"""What training buys at a few network calls, beside what solvers give, on moons and 8 Gaussians.

    python benchmarks/few_steps.py                       writes benchmarks/few_steps.json
    python benchmarks/few_steps.py --part moons          that part alone, the other one kept
    python benchmarks/few_steps.py --part moons --ways flow MeanFlow       these rows alone
    python benchmarks/few_steps.py --quick --out folder  in seconds

moons:      a straight flow (FlowSDE(T=1.0), an MLP of width 96, 2,000 steps of 256), the same with
            minibatch optimal transport and with a learned coupling, reflowed on 20,000 pairs, and
            flow maps that begin with its weights, by four losses.
gaussians8: on VP with the exact score, so that a teacher has no error of its own: students of 1, 2
            and 4 steps that took 64 of the teacher's in theirs.

Sliced W2 to fresh data, by calls, of as many samples; the same of data to data is the floor. Of
flow maps also ``down``, from data noised to a tau, and ``second``, by where a second jump begins.
Of several seeds of training and sampling: the mean and the standard error.
"""

from __future__ import annotations

import argparse
import copy
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import sdegen as sg
from sdegen.data import toy
from sdegen.distill import (
    Consistency,
    Growing,
    MeanFlow,
    Progressive,
    Shortcut,
    pairs_of,
    squared,
    straightness,
)
from sdegen.exact import exact_model
from sdegen.exact.distributions import Mixture
from sdegen.files import read_json, write_json
from sdegen.losses import Encoder, Learned, MinibatchOT, low_discrepancy, stored
from sdegen.metrics import sliced_wasserstein
from sdegen.networks import MLP
from sdegen.solvers import Jump
from sdegen.walks import multistep, straight, zigzag

HERE = Path(__file__).parent
FLOW = sg.FlowSDE(T=1.0)

straight_loss = partial(sg.dsm_loss, weighting="straight", draw=low_discrepancy)


def fitted(
    net: torch.nn.Module,
    sde: sg.LinearSDE,
    loss: Any,
    data: Tensor,
    steps: int,
    *,
    predicts: str = "velocity",
    flow_only: bool = False,
    seed: int = 0,
    lr: float = 2e-3,
) -> tuple[sg.ScoreModel, float]:
    """The model with averaged weights, and seconds: Adam, its rate falling to 0 in the second
    half."""
    model = sg.ScoreModel(net, sde, predicts=predicts, flow_only=flow_only)
    learned = [*net.parameters(), *(loss.parameters() if isinstance(loss, Learned) else ())]
    optimizer = torch.optim.Adam(learned, lr=lr)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.995))
    torch.manual_seed(seed)
    begun = time.perf_counter()
    for k in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, 2 * (steps - k) / steps)
        now = loss.at(k) if hasattr(loss, "at") else loss
        value = now(model, data[torch.randint(len(data), (256,))]).mean()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        average.update_parameters(net)
    seconds = time.perf_counter() - begun
    kept = sg.ScoreModel(average.module.eval(), sde, predicts=predicts, flow_only=flow_only)
    return kept, seconds


def learned_coupling(beta: float, seed: int) -> Learned:
    """Lee et al.'s loss (2023), with an encoder of its own."""
    torch.manual_seed(seed)
    return Learned(Encoder(2), beta, weighting="straight", draw=low_discrepancy)


def distances(
    model: Any, truth: Tensor, solver: sg.Solver, walk: Any, calls: Sequence[int], seed: int
) -> dict[int, float]:
    """Sliced W2 to the truth, by calls."""
    return {
        n: sliced_wasserstein(
            sg.sample(model, truth.shape, solver=solver, walk=walk, nfe=n, seed=seed), truth
        )
        for n in calls
    }


def moons(
    n: int, steps: int, pairs: int, ways: Sequence[str] | None, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of one seed, of these ways alone; None: of all."""

    def wanted(way: str) -> bool:
        return ways is None or way in ways

    data, truth = toy("moons", 20_000, seed=0).x, toy("moons", n, seed=100 + seed).x
    yield {"way": "data", "w2": {0: sliced_wasserstein(toy("moons", n, seed=200 + seed).x, truth)}}

    def row(
        way: str, model: Any, seconds: float, solver: Any = None, **how: Any
    ) -> dict[str, Any]:
        made = {"walk": straight, "calls": (1, 2, 4, 8), **how}
        far = distances(model, truth, solver or sg.DDIM(), made["walk"], made["calls"], seed)
        flows = solver is None
        bent = {"straightness": straightness(model, (2,), n, seed=seed)} if flows else {}
        return {"way": way, "seconds": seconds, "w2": far, **bent}

    torch.manual_seed(seed)
    net = MLP(2, width=96)
    flow, seconds = fitted(net, FLOW, straight_loss, data, steps, seed=seed)
    yield row("flow", flow, seconds, calls=(1, 2, 4, 8, 100))
    couplings = {
        "minibatch OT": partial(straight_loss, couple=MinibatchOT()),
        "learned coupling, beta 2": learned_coupling(2.0, seed),
        "learned coupling, beta 10": learned_coupling(10.0, seed),
    }
    for way, loss in couplings.items():
        if wanted(way):
            torch.manual_seed(seed)
            net = MLP(2, width=96)
            model, seconds = fitted(net, FLOW, loss, data, steps, seed=seed, flow_only=True)
            yield row(way, model, seconds, calls=(1, 2, 4, 8, 100))
    if wanted("reflow"):
        begun = time.perf_counter()
        how = {"solver": sg.DDIM(), "steps": 100, "walk": "straight", "batch_size": 4000}
        made = pairs_of(flow, pairs, (2,), seed=seed, **how)
        begun = time.perf_counter() - begun
        loss, net = partial(straight_loss, couple=stored), copy.deepcopy(flow.net)
        model, seconds = fitted(
            net, FLOW, loss, made.pairs, steps, seed=seed, flow_only=True, lr=1e-3
        )
        yield row("reflow", model, seconds + begun, calls=(1, 2, 4, 8, 100))
    twice = partial(zigzag, grid=straight, by=multistep)
    maps: dict[str, tuple[Any, dict[str, Any]]] = {
        "consistency distillation": (
            Consistency(flow, steps=Growing(8, 64, steps), distance=squared, share=0.5),
            {"walk": twice, "calls": (1, 2)},
        ),
        "consistency training": (
            Consistency(steps=Growing(8, 256, steps), distance=squared, share=0.5),
            {"walk": twice, "calls": (1, 2)},
        ),
        "consistency training, no share": (
            Consistency(steps=Growing(8, 256, steps)),
            {"walk": twice, "calls": (1, 2)},
        ),
        "shortcut": (Shortcut(), {}),
        "MeanFlow": (MeanFlow(), {}),
    }
    for way, (loss, how) in maps.items():
        if not wanted(way):
            continue
        told = MLP(2, width=96, numbers=("jump",))
        told.load_state_dict(flow.net.state_dict(), strict=False)
        model, seconds = fitted(told, FLOW, loss, data, steps, seed=seed)
        found = row(way, model, seconds, Jump(), **how)
        yield {**found, "down": down(model, n, truth, seed), **second(model, how, truth, seed)}


def down(model: Any, n: int, truth: Tensor, seed: int) -> dict[str, float]:
    """Sliced W2 of one jump to t_min from data noised exactly to a tau: where a map errs."""
    clean, draws = toy("moons", n, seed=300 + seed).x, torch.Generator().manual_seed(seed)
    found = {}
    for tau in (0.3, 0.5, 0.7, 0.9, 1.0):
        x = FLOW.mix(clean, FLOW(tau), torch.randn(clean.shape, generator=draws))
        walk = torch.tensor([tau, FLOW.t_min], dtype=torch.float64)
        found[f"{tau}"] = sliced_wasserstein(sg.solve(model, x, solver=Jump(), walk=walk).x, truth)
    return found


def second(
    model: Any, how: dict[str, Any], truth: Tensor, seed: int
) -> dict[str, dict[str, float]]:
    """Sliced W2 of two jumps to t_min, by where the second begins; of consistency models alone."""
    if not how:
        return {}
    found = {}
    for tau in (0.1, 0.3, 0.5, 0.7, 0.9):
        walk = torch.tensor([1.0, FLOW.t_min, tau, FLOW.t_min], dtype=torch.float64)
        x = sg.sample(model, truth.shape, solver=Jump(), walk=walk, seed=seed)
        found[f"{tau}"] = sliced_wasserstein(x, truth)
    return {"second": found}


def gaussians8(n: int, steps: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of one seed; ``apart`` is the median distance to where the teacher's 64 steps end, from
    the same noise."""
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    mixture, sde = Mixture(ring, [0.1] * 8, [1 / 8] * 8), sg.VPSDE()
    data = mixture.sample(20_000, torch.Generator().manual_seed(0)).float()
    truth, other = (
        mixture.sample(n, torch.Generator().manual_seed(k + seed)).float() for k in (100, 200)
    )
    yield {"way": "data", "w2": {0: sliced_wasserstein(other, truth)}}
    teacher = exact_model(mixture, sde)
    x = sde.prior.sample(torch.randn(n, 2, generator=torch.Generator().manual_seed(seed)))
    fine = sg.solve(teacher, x, solver=sg.DDIM(), steps=64).x

    def row(way: str, model: Any, solver: Any, steps: int | None, calls: int) -> dict[str, Any]:
        ends = sg.solve(model, x, solver=solver, steps=steps).x
        apart = float((ends - fine).norm(dim=1).median())
        return {"way": way, "w2": {calls: sliced_wasserstein(ends, truth)}, "apart": apart}

    for k in (1, 2, 4, 8, 64):
        yield row("DDIM, exact score", teacher, sg.DDIM(), k, k)
        if k in (4, 8):
            yield row("UniPC, exact score", teacher, sg.UniPC(), k, k)
    for k in (1, 2, 4):
        torch.manual_seed(seed)
        loss = Progressive(teacher, k, 64 // k)
        how = {"predicts": "v", "flow_only": True, "seed": seed}
        student, seconds = fitted(MLP(2, width=64), sde, loss, data, steps, **how)
        found = row("student", student, loss.solver, None, k)
        yield {**found, "seconds": seconds}


def summed(rows: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of rows of several seeds, one by one: means, and standard errors where there are several."""

    def of(values: Sequence[float]) -> dict[str, float]:
        column = torch.tensor(values, dtype=torch.float64)
        error = column.std() / math.sqrt(len(values)) if len(values) > 1 else column.new_zeros(())
        return {"mean": float(column.mean()), "error": float(error)}

    found = []
    for each in zip(*rows, strict=True):
        one: dict[str, Any] = {"way": each[0]["way"]}
        one["w2"] = {str(n): of([row["w2"][n] for row in each]) for n in each[0]["w2"]}
        for name in ("straightness", "apart", "seconds"):
            if name in each[0]:
                one[name] = of([row[name] for row in each])
        for name in ("down", "second"):
            if name in each[0]:
                one[name] = {tau: of([row[name][tau] for row in each]) for tau in each[0][name]}
        found.append(one)
    return found


def main() -> None:
    """The command."""
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("--quick", action="store_true")
    parse.add_argument("--out", type=Path, default=HERE)
    parse.add_argument("--seeds", type=int, default=3)
    parse.add_argument("--part", choices=["gaussians8", "moons"])
    parse.add_argument("--ways", nargs="*", metavar="WAY", help="of moons: these rows alone")
    args = parse.parse_args()
    torch.set_num_threads(1)
    n, steps, pairs, seeds = (100, 3, 100, 1) if args.quick else (40_000, 2000, 20_000, args.seeds)
    record: dict[str, Any] = {
        "what": {},
        "on": "one thread of a 2-core x86-64 virtual machine",
        "torch": torch.__version__,
        "sdegen": sg.__version__,
        "python": platform.python_version(),
    }
    parts: dict[str, Callable[[int], Iterator[dict[str, Any]]]] = {
        "gaussians8": partial(gaussians8, n, steps),
        "moons": partial(moons, n, steps, pairs, args.ways),
    }
    path = args.out / "few_steps.json"
    kept = read_json(path) if args.part and path.is_file() else {}
    record |= {name: kept[name] for name in parts if name in kept}
    record["what"] |= kept.get("what", {})
    for name, part in parts.items():
        if args.part not in (None, name):
            continue
        made = summed([list(part(seed)) for seed in range(seeds)])
        record["what"][name] = f"sliced W2 of {n} samples, {seeds} seeds, {steps} steps of 256"
        for row in made:
            print(name, row, flush=True)
        before = record.get(name, []) if args.ways else []
        anew = {row["way"]: row for row in made}
        record[name] = [anew.pop(row["way"], row) for row in before] + [*anew.values()]
        write_json(path, record)


if __name__ == "__main__":
    main()

"""What is promised of a GPU, tried on one, solver by solver.

    python benchmarks/gpu_laws.py                       writes benchmarks/gpu_laws.json
    python benchmarks/gpu_laws.py --device cpu --out x.json    what of it a CPU can show

Every solver of the catalogue with fixed steps, on the exact score of a mixture under VP and EDM:

- waits: times that a second ``sample`` synchronised, under torch's own debug mode, which raises;
- captured: whether ``Captured`` gives the samples of ``sample`` to the last bit, for two seeds;
- alone: the largest difference of a sample made alone and made in a batch of 64, same seed;
- host: the largest difference to the same samples made on the CPU, beside the largest value;
- hurt: samples that differ from what they were when one of the batch is NaN.

float64 throughout, but for "captured", which is float32. Then solvers that choose their steps
("host" and "alone" as above), guided models of every kind (how often they wait; captured, and
captured with other labels, as ``sample`` to the last bit), ``log_prob`` on fixed steps: how often
it waits, which must not grow with the steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.exact.orders import mixture

OUT = Path(__file__).with_suffix(".json")
SDES: dict[str, sg.LinearSDE] = {"vp": sg.VPSDE(), "edm": sg.EDMSDE()}
B, STEPS = 64, 12


def waits(run: Callable[[], Any]) -> str:
    """What synchronised, in torch's words, or nothing; after a first run, which may."""
    run()
    torch.cuda.set_sync_debug_mode("error")
    try:
        run()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return ""


def captured(model: sg.ScoreModel, x: Tensor, solver: sg.Solver) -> bool | None:
    """Whether a graph gives the same bits; None for a solver that has no program."""
    try:
        graph = sg.sampling.Captured(model, x, solver=solver, steps=STEPS)
    except sg.programs.NotLinear:
        return None
    return all(
        torch.equal(graph(x, seed=k), sg.sample(model, x, solver=solver, steps=STEPS, seed=k))
        for k in (3, 4)
    )


def measured(solver: sg.Solver, sde: sg.LinearSDE, device: str) -> dict[str, Any]:
    """One row."""
    model = exact_model(mixture(), sde)
    start = sde.prior.sample(
        torch.randn(B, 2, generator=torch.Generator().manual_seed(0)).double()
    )
    seeds = torch.arange(100, 100 + B).tolist()

    def run(x: Tensor, seed: Any = seeds) -> Tensor:
        return sg.sample(model, x, solver=solver, steps=STEPS, seed=seed)

    x = start.to(device)
    there, here = run(x), run(start)
    alone = torch.cat([run(x[i : i + 1], seeds[i : i + 1]) for i in (0, B // 2, B - 1)])
    x_nan = x.clone()
    x_nan[5] = torch.nan
    kept = torch.arange(B, device=device) != 5
    row: dict[str, Any] = {
        "alone": float((alone - there[[0, B // 2, B - 1]]).abs().max()),
        "host": float((there.cpu() - here).abs().max() / here.abs().max()),
        "hurt": int((run(x_nan) != there)[kept].any(1).sum()),
    }
    if device == "cuda":
        row["waits"] = waits(lambda: run(x, 7))
        row["captured"] = captured(model, x.float(), solver)
    return row


def adaptive(solver: Any, device: str) -> dict[str, float]:
    """Steps of each sample's own, on the device and on the host, in a batch and alone."""
    model = exact_model(mixture(), SDES["vp"])
    start = torch.randn(B, 2, generator=torch.Generator().manual_seed(0)).double()
    seeds = torch.arange(100, 100 + B).tolist()

    def run(x: Tensor, seed: list[int]) -> Tensor:
        return sg.sample(model, x, solver=solver, seed=seed)

    there, here = run(start.to(device), seeds), run(start, seeds)
    one = run(start[:1].to(device), seeds[:1])
    return {
        "host": float((there.cpu() - here).abs().max() / here.abs().max()),
        "alone": float((one - there[:1]).abs().max()),
    }


MEANS = torch.tensor([[1.0, 0.2], [-0.5, 0.9], [0.1, -1.1]])


def labelled(device: str) -> sg.ScoreModel:
    """x0 of three Gaussians of std 0.3 by their label, and of N(0, I) under the label 3."""
    sde, means = SDES["vp"], torch.cat([MEANS, torch.zeros(1, 2)]).to(device)

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        level, var = sde(t), torch.where(y == 3, 1.0, 0.09)
        a, total = level.alpha, level.alpha**2 * var + level.sigma**2
        mean = means[y]
        return mean + (a * var / total)[:, None] * (x - a[:, None] * mean)

    return sg.ScoreModel(net, sde, "x0", time="t")


def kinds(model: sg.ScoreModel, y: Tensor) -> dict[str, Any]:
    """Guided models."""

    def near(x: Tensor, level: Any, y: Tensor) -> Tensor:
        return -(x - MEANS.to(x)[y]).square().sum(1)

    def small(x0: Tensor, level: Any) -> Tensor:
        return -x0.square().sum(1)

    half = torch.tensor([True, False], device=y.device)
    cfg, guided = sg.guidance.CFG, sg.guidance.Guided
    interval = sg.guidance.Interval(3.0, 0.2, 3.0)
    none = {"y": 3}
    every = guided(cfg(model, 2.0, none), near, 0.3, given={"y": y})
    every = sg.guidance.Known(every, torch.full((1, 2), 0.3, device=y.device), half)
    return {
        "cfg": cfg(model, 3.0, none),
        "cfg, together": cfg(model, 3.0, none, together=True),
        "cfg, rescaled": cfg(model, 3.0, none, rescale=0.7),
        "cfg, on an interval": cfg(model, interval, none),
        "guided": guided(model, near, 0.5, given={"y": y}),
        "guided through the network": guided(model, small, 0.5, through=True),
        "thresholded": sg.guidance.Thresholded(model, 0.9, (-0.8, 0.8)),
        "all of them": sg.guidance.Thresholded(every, 0.9, (-0.8, 0.8)),
    }


def guided(name: str, device: str) -> dict[str, Any]:
    """One kind's row."""
    y = torch.arange(B, device=device) % 3
    other = y.flip(0)
    model = kinds(labelled(device).given(y=y), y)[name]
    x = torch.randn(B, 2, generator=torch.Generator().manual_seed(0)).to(device)
    how: dict[str, Any] = {"solver": sg.UniPC(3), "steps": STEPS, "eta": 0.5}
    graph = sg.sampling.Captured(model, x, **how)
    same = torch.equal(graph(x, seed=3), sg.sample(model, x, seed=3, **how))
    again = graph(x, seed=3, given={"y": other})
    changed = torch.equal(again, sg.sample(model.given(y=other), x, seed=3, **how))
    return {
        "waits": waits(lambda: sg.sample(model, x, seed=7, **how)),
        "captured": same,
        "captured, other labels": changed,
    }


def likelihood_waits(sde: sg.LinearSDE, steps: int) -> int:
    """How often ``log_prob`` on so many fixed steps waits: before and after them, it may."""
    model = exact_model(mixture(), sde)
    x = mixture().sample(B, torch.Generator().manual_seed(0)).cuda()
    for _ in range(2):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            sg.log_prob(model, x, solver=sg.UniPC(), steps=steps)
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in caught)


def main() -> None:
    """Measure, write and print."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parse.add_argument("--out", type=Path, default=OUT)
    args = parse.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    for name, entry in sg.solvers.catalogue().items():
        solver = entry.build()
        if solver.traits.adaptive:
            continue
        for at, sde in SDES.items():
            rows[f"{name}, {at}"] = row = measured(solver, sde, args.device)
            print(f"{name:28s}{at:5s}" + "  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
    record: dict[str, Any] = {
        "on": torch.cuda.get_device_name() if args.device == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": rows,
    }
    for kind, entry in sg.solvers.catalogue().items():
        solver = entry.build()
        if solver.traits.adaptive:
            record.setdefault("adaptive", {})[kind] = row = adaptive(solver, args.device)
            print(f"{kind:28s}" + "  ".join(f"{k} {v:.1e}" for k, v in row.items()), flush=True)
    if args.device == "cuda":
        model = labelled("cuda").given(y=torch.zeros(B, dtype=torch.int64, device="cuda"))
        for kind in kinds(model, torch.zeros(B, dtype=torch.int64, device="cuda")):
            record.setdefault("guided", {})[kind] = found = guided(kind, "cuda")
            print(f"{kind:28s}" + "  ".join(f"{k} {v}" for k, v in found.items()), flush=True)
        record["log_prob waits"] = {
            f"{at}, {steps} steps": likelihood_waits(sde, steps)
            for at, sde in SDES.items()
            for steps in (STEPS, 2 * STEPS)
        }
    args.out.write_text(json.dumps(record, indent=1) + "\n")
    keys = {key for row in rows.values() for key in row}
    for key in sorted(keys):
        off = [name for name, row in rows.items() if row[key] not in (0, "", True, None)]
        worst = max((row[key] for row in rows.values() if isinstance(row[key], float)), default="")
        print(f"{key}: {len(rows) - len(off)} of {len(rows)} exact {worst}  {off[:8]}")
    print(record.get("log_prob waits", ""))


if __name__ == "__main__":
    main()

"""A run's own judge: a classifier of its noisy states, fitted once and kept in its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from sdegen.files import load_weights, read_tensors, write_tensors
from sdegen.guidance import Guided, Judge
from sdegen.losses import low_discrepancy, noisy_ce, uniform_time
from sdegen.runs.build import build, build_data
from sdegen.runs.folder import Run, in_memory, of_data
from sdegen.runs.network import build_network

JUDGE = "judge.safetensors"


def classified(
    run: Run,
    packages: Sequence[str] = (),
    *,
    scale: float = 1.0,
    net: Mapping[str, Any] | None = None,
    steps: int = 1000,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    conditional: bool = False,
) -> Callable[[Any], Guided]:
    """What guides a run's model with labels towards these, by the run's judge.  Dhariwal & Nichol
    (2021), alg. 2.

    The judge is fitted to the training data at first, and kept in the run's folder; other
    settings fit another one.

    scale:       of grad log p(y | x_t).
    net:         a node of a network (x, t) -> logits that takes ``out``; by default a ``Trunk``
                 for images and an ``MLP`` for vectors.
    conditional: guide the model of the class, not the one without: the authors' own setting, in
                 which scale 0 is the conditional model.

    ValueError for a run without classes.
    """
    if not run.counts:
        raise ValueError(
            "This guidance needs a model that takes a class, but the run's takes none: train one "
            "with conditional=true and loss=dropped."
        )
    of_data(run, "guidance=classifier")
    asked = {"net": net, "steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed}
    judge = judge_of(run, asked, packages)

    def guide(model: Any) -> Guided:
        y = model.conditions["y"]
        free = model if conditional else model.given(y=torch.full_like(y, len(run.counts)))
        return Guided(free, judge, scale, given={"y": y})

    return guide


def judge_of(run: Run, asked: Mapping[str, Any], packages: Sequence[str]) -> Judge:
    """The judge that a run's folder has, or one that is fitted now and put there, frozen."""
    path, device = run.folder / JUDGE, run.model.device
    config = {**run.config, "packages": list(packages)}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(asked["seed"])
        judge = built(run, asked["net"], packages).to(device)
        about = json.loads(json.dumps({**asked, "run": of_run(run)}))
        if path.is_file():
            tensors, header = read_tensors(path)
            if header == about:
                load_weights(judge, tensors, path)
                return judge.eval().requires_grad_(False)
        fit(judge, config, asked)
    judge = judge.eval().requires_grad_(False)
    write_tensors(path, judge.state_dict(), about)
    return judge


def of_run(run: Run) -> dict[str, Any]:
    """What of a run decides its judge: other states, data or times have another one."""
    names = ("sde", "data", "sigma_data", "loss")
    kept = {name: run.config.get(name) for name in names}
    return {**kept, "shape": list(run.shape), "classes": len(run.counts)}


def built(run: Run, net: Mapping[str, Any] | None, packages: Sequence[str]) -> Judge:
    """A judge that knows nothing yet, told what the run's network is."""
    usual = "sdegen.networks.MLP" if len(run.shape) == 1 else "sdegen.networks.Trunk"
    node = {**(net or {"_target_": usual}), "out": len(run.counts)}
    network = build_network(node, packages, run.shape, 0)
    return Judge(network, run.model.sde, sigma_data=float(run.config.get("sigma_data", 0.5)))


def fit(judge: Judge, config: dict[str, Any], asked: Mapping[str, Any]) -> None:
    """Fit a judge to the training data of a run, at the times that its model was trained at."""
    from tqdm import tqdm

    data = in_memory(build_data(config)[0])
    device, node = next(judge.parameters()).device, times_in(config["loss"])
    x, y = data.x.to(device), data.y.to(device)
    times = build(node, config["packages"]) if node else uniform_time
    optimizer = torch.optim.AdamW(judge.train().parameters(), lr=asked["lr"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, asked["steps"])
    with tqdm(range(asked["steps"]), desc="judge", leave=False) as bar:
        for k in bar:
            chosen = torch.randint(len(x), (asked["batch_size"],)).to(device)
            loss = noisy_ce(judge, x[chosen], y[chosen], times=times, draw=low_discrepancy).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if not k % 50:
                bar.set_postfix(loss=f"{loss.item():.3f}")


def times_in(loss: Any) -> Any:
    """The node of the times of a loss, which may be inside another one; None where there is
    none."""
    if not isinstance(loss, Mapping):
        return None
    return loss.get("times") or next(filter(None, map(times_in, loss.values())), None)

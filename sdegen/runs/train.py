"""A run: a score model trained, sampled with several solvers, and what the samples are worth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import default_collate

from sdegen.files import claim, locked, write_json
from sdegen.metrics.quality import Row
from sdegen.runs.begun import as_begun
from sdegen.runs.build import build, build_data, build_optimizer, share_held_out
from sdegen.runs.compare import refuse_early
from sdegen.runs.finish import finish
from sdegen.runs.folder import description
from sdegen.runs.network import build_model
from sdegen.runs.scale import warn_of_scale, with_sigma
from sdegen.runs.settings import Experiment
from sdegen.training import Objective, Trainer, TrainSettings, stopping
from sdegen.training.batches import split


class Trained(NamedTuple):
    """How a run ended: the signal that stopped it or 0, and the rows of its table if it is done,
    in the first process."""

    stopped_by: int
    rows: list[Row]


def train_run(config: dict[str, Any], folder: Path, say: Callable[[str], None]) -> Trained:
    """Train and compare a resolved configuration in a folder, saying how it goes.

    Everything that can be wrong is refused before the first step.
    """
    experiment = Experiment.of(config)
    config = as_begun({**config, "train": asdict(experiment.train)}, folder)
    data, test = build_data(config)
    config = with_sigma(config, data, folder)
    experiment = Experiment.of(config)
    packages, settings, compared = experiment.packages, experiment.train, experiment.evaluate
    torch.manual_seed(settings.seed)
    model = build_model(config, data.shape, data.classes)
    loss = build(experiment.loss, packages)
    solvers = {name: build(node, packages) for name, node in compared.solvers.items()}
    walk = build(experiment.walk, packages) or None
    optimizer = build_optimizer(config)
    refuse_early(model, solvers, compared.budgets, walk)
    # A loss that cannot be taken says so now; of two, for norms over a batch.
    few = default_collate([data[0], data[len(data) - 1]])
    Objective(model, loss, experiment.conditional)(*split(few))
    if first_process():
        warn_of_scale(model.sde, data)
    about = description(config, data)
    claim(folder)
    with locked(folder) if first_process() else contextlib.nullcontext():
        trainer = Trainer(
            model,
            data,
            loss,
            optimizer,
            settings,
            folder,
            conditional=experiment.conditional,
            held_out=test,
            identity=identity(config),
            about={"run": about},
        )
        first, world = trainer.fabric.is_global_zero, trainer.fabric.world_size
        if first:
            write_json(folder / "config.json", config)
            count = sum(p.numel() for p in model.parameters())
            held = share_held_out(config["data"])
            say(
                f"{folder}: {count:,} parameters, {len(data):,} samples"
                + (f" and {len(test):,} held out of the same data" if held is not None else "")
                + (f", sigma_data {config['sigma_data']}" if "sigma_data" in config else "")
                + f", {settings.steps:,} steps"
                + (f", {world} processes" if world > 1 else "")
            )
            if about["counts"]:
                say(f"Classes: {listed(about['counts'], about['names'])}")
        with stopping() as wish:
            stopped = watch(trainer, wish)
        averaged, step = trainer.averaged, trainer.step
        trainer.close()
        if stopped and first:
            say(f"Stopped at step {step:,}; the same command continues from there.")
        if stopped or not first:
            return Trained(stopped, [])
        header = {**about, "step": step}
        rows = finish(averaged, config, compared, folder, data, test, solvers, walk, header)
        return Trained(0, rows)


def listed(counts: list[int], names: list[str], most: int = 20) -> str:
    """How often each class comes, by name or number, as far as a line goes."""
    named = names or [str(k) for k in range(len(counts))]
    known = [f"{name} ({count:,})" for name, count in zip(named, counts, strict=True)]
    more = [f"and {len(known) - most} more"] if len(known) > most else []
    return ", ".join([*known[:most], *more])


def first_process() -> bool:
    """Whether this is the first, or the only one, of the processes that train together; before
    they know of each other."""
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    return bool(vars(rank_zero_only)["rank"] == 0)


def watch(trainer: Trainer, wish: Any) -> int:
    """Train to the end with a progress bar, or until a signal; its number or 0."""
    from tqdm import tqdm

    total, first = trainer.settings.steps, trainer.fabric.is_global_zero
    with tqdm(total=total, initial=trainer.step, disable=not first, unit="step") as bar:
        for record in trainer.steps(wish):
            bar.update(record.step - bar.n)
            bar.set_postfix(loss=f"{record.loss:.4f}")
    return int(wish.signum) if trainer.step < total else 0


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that a checkpoint must share with the run that continues it."""
    names = ("sde", "net", "model", "data", "loss", "conditional")
    fixed = ("batch_size", "optimizer", "warmup", "clip", "ema", "seed")
    usual = TrainSettings()
    # Settings that came later count where they are not what was before them.
    later = [n for n in ("schedule", "accumulate") if config["train"][n] != getattr(usual, n)]
    return {
        **{name: config[name] for name in names},
        "train": {name: config["train"][name] for name in (*fixed, *later)},
    }

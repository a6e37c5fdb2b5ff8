"""A run: a score model trained, sampled with several solvers, and what the samples are worth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset

from sdegen.data.items import batched, split
from sdegen.files import claim, locked, write_json
from sdegen.latents import Encoded, encoded
from sdegen.metrics.quality import Row
from sdegen.runs import bars
from sdegen.runs.adapting import adapted_model, as_adapted, base_by_content
from sdegen.runs.begun import as_begun
from sdegen.runs.build import (
    build,
    build_data,
    build_optimizer,
    build_task,
    build_trackers,
    share_held_out,
)
from sdegen.runs.coders import (
    Decoded,
    as_latent,
    coder_by_content,
    keep_latents,
    with_latents,
)
from sdegen.runs.compare import refuse_early
from sdegen.runs.finish import SAMPLES, finish
from sdegen.runs.folder import description, with_length
from sdegen.runs.guiding import with_null
from sdegen.runs.heads import compared_with_head, with_levels
from sdegen.runs.kept import without_kept, without_place
from sdegen.runs.network import build_model
from sdegen.runs.priors import with_priors
from sdegen.runs.progress import Progress
from sdegen.runs.restoring import seen_of
from sdegen.runs.scale import warn_of_scale, with_sigma
from sdegen.runs.settings import Experiment
from sdegen.runs.students import as_student, known_by_content, pairs_for, sampled_by
from sdegen.runs.telling import (
    Prompts,
    build_text,
    captioned,
    null_condition,
    tellable,
    with_text,
)
from sdegen.runs.weights import begin
from sdegen.training import Objective, Trainer, TrainSettings, stopping


class Trained(NamedTuple):
    """How a run ended: the signal that stopped it or 0, and the rows of its table if it is done,
    in the first process."""

    stopped_by: int
    rows: list[Row]


def train_run(config: dict[str, Any], folder: Path, say: Callable[[str], None]) -> Trained:
    """Train and compare a resolved configuration in a folder, saying how it goes.

    Everything that can be wrong is refused before the first step.
    """
    config = as_adapted(as_latent(config))
    experiment = Experiment.of(config)
    config = as_student({**config, "train": asdict(experiment.train)})
    config = with_priors(as_begun(config, folder), folder)
    images, test = build_data(config)
    config = {**config, "data": without_kept(config["data"])}
    refuse_data(images, test, experiment)
    config, data = with_latents(config, images, folder)
    beginning, test = with_length(data), with_length(test)
    config = with_sigma(config, beginning, folder)
    config = with_text(config, data)
    null = null_condition("text" in config, data.classes if config["conditional"] else 0)
    loss = with_null(config["loss"], null, bool(config["conditional"]))
    loss = with_levels(loss, getattr(data, "levels", 0))
    config = with_task({**config, "loss": loss})
    experiment = Experiment.of(config)
    packages, settings = experiment.packages, experiment.train
    task = build_task(experiment.task, packages)
    torch.manual_seed(settings.seed)
    make = adapted_model if config.get("base") else build_model
    model = make(config, data.shape, data.classes)
    refuse_idle(model, config["net"])
    begin(model, config)
    loss = build(experiment.loss, packages)
    config = compared_with_head(sampled_by(loss, config), folder)
    experiment = Experiment.of(config)
    compared = experiment.evaluate
    solvers = {name: build(node, packages) for name, node in compared.solvers.items()}
    walk = build(experiment.walk, packages) or None
    optimizer, trackers = build_optimizer(config), build_trackers(config)
    refuse_early(model, solvers, compared.budgets, walk)
    # A loss that cannot be taken says so now; of two, for norms over a batch.
    learned, held = pairs_for(config, folder) or data, test
    encoder = build_text(config.get("text"), packages)
    told = experiment.conditional or encoder is not None
    if encoder is not None:
        learned = captioned(model, encoder, data)
        held = tellable(encoder, test) if settings.validate_every else None
    if isinstance(data, Encoded) and settings.validate_every:
        held = encoded(test, data.latent)
    trial = Objective(model, loss, told)
    trial.parts.eval()  # nothing is remembered of it
    trial(*split(batched(two_of(learned))))
    if first_process():
        warn_of_scale(model.sde, beginning)
    about = description(config, data)
    counts = about["counts"] if experiment.conditional else []
    often, most = settings.sample_every, settings.batch_size
    some: Any = seen_of(task, beginning if test is None else test, SAMPLES, encoder)
    if task is None and encoder is not None:
        some = Prompts.of(encoder, about["captions"])
    del beginning
    names, seed = about["names"], compared.seed
    decoded = Decoded.at(config, data.shape, packages, settings.device)
    progress = Progress(folder, data.shape, counts, names, seed, often, most, some, decoded)
    progress.refuse_early(model)
    claim(folder)
    with locked(folder) if first_process() else contextlib.nullcontext():
        keep_latents(data, images, folder)
        trainer = Trainer(
            model,
            learned,
            loss,
            optimizer,
            settings,
            folder,
            conditional=told,
            # Pairs are held against pairs alone.
            held_out=held if encoder is not None or learned is data else None,
            identity=identity(config),
            about={"run": about},
            trackers=trackers,
        )
        first, world = trainer.fabric.is_global_zero, trainer.fabric.world_size
        if first:
            write_json(folder / "config.json", config)
            say(begins(folder, config, model, learned, test, world))
            if about["counts"]:
                say(f"Classes: {listed(about['counts'], about['names'])}")
            if test is None:
                say("No data are held out (data.test): samples are not measured.")
        with stopping() as wish:
            stopped = watch(trainer, wish, progress)
        averaged, step = trainer.averaged.given(config.get("told")), trainer.step
        trainer.close()
        if stopped and first:
            say(f"Stopped at step {step:,}; the same command continues from there.")
        if stopped or not first:
            return Trained(stopped, [])
        header = {**about, "step": step}
        rows = finish(
            averaged, config, compared, folder, images, test, solvers, walk, header, some, decoded
        )
        return Trained(0, rows)


def with_task(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration whose loss is ``paired`` where it has a task."""
    task = config.get("task")
    if not task:  # as of runs before there were any
        return {name: value for name, value in config.items() if name != "task"}
    for name in free_of(config):
        if task.get(name) is not None:
            raise ValueError(
                f"task.{name} is of sdegen-sample: what is trained has all there are. Leave it "
                "out."
            )
    loss = {"_target_": "sdegen.losses.paired", "_partial_": True, "degrade": task}
    return {**config, "loss": {**loss, "loss": config["loss"]}}


def free_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings of a configuration's task that are a sample's alone."""
    task = build_task(config["task"], config["packages"])
    return () if task is None else task.free


def begins(
    folder: Path, config: dict[str, Any], model: torch.nn.Module, data: Any, test: Any, world: int
) -> str:
    """What is trained, in a line."""
    streams = isinstance(data, IterableDataset)
    held = None if streams else share_held_out(config["data"])
    count = sum(p.numel() for p in model.parameters())
    return (
        f"{folder}: {count:,} parameters, "
        + ("a stream" if streams else f"{len(data):,} samples")
        + (f" and {len(test):,} held out of the same data" if held is not None else "")
        + (f", sigma_data {config['sigma_data']}" if "sigma_data" in config else "")
        + f", {config['train']['steps']:,} steps"
        + (f", {world} processes" if world > 1 else "")
    )


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


def refuse_data(data: Any, test: Any, experiment: Experiment) -> None:
    """ValueError for data that do not say what they are, and for what needs held-out data where
    there are none."""
    for name in ("shape", "classes"):
        if not hasattr(data, name):
            raise ValueError(
                f"data.train is a {type(data).__name__} without {name}: it must say the shape of "
                "an item's data and the number of its classes, 0 for none."
            )
    needed = {"train.validate_every": experiment.train.validate_every}
    for name, value in {**needed, "objective": experiment.objective}.items():
        if value and test is None:
            raise ValueError(f"{name} = {value} needs held-out data: give data.test.")


def refuse_idle(model: torch.nn.Module, net: dict[str, Any]) -> None:
    """ValueError where nothing can be trained."""
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            f"{net.get('_target_')} has no parameters to train: what it computes with must be "
            "nn.Parameters, or modules among its attributes, in an nn.ModuleList if they are many."
        )


def two_of(data: Any) -> list[Any]:
    """Two items of a data set: the first and the last, or a stream's first; ValueError where
    there is none."""
    if not isinstance(data, IterableDataset):
        if not len(data):
            raise ValueError("The data have no items.")
        return [data[0], data[len(data) - 1]]
    items = list(islice(data, 2))
    if not items:
        raise ValueError("The stream of data has no items.")
    return items


def watch(trainer: Trainer, wish: Any, progress: Progress) -> int:
    """Train to the end with a progress bar and samples on the way, or until a signal; its number
    or 0."""
    total, first = trainer.settings.steps, trainer.fabric.is_global_zero
    with bars.bar(total=total, initial=trainer.step, disable=not first, unit="step") as bar:
        for record in trainer.steps(wish):
            bar.update(record.step - bar.n)
            bar.set_postfix(loss=f"{record.loss:.4f}", refresh=False)
            if progress.due(record.step):
                averaged = trainer.averaged  # which several processes put together
                path = progress.draw(averaged, record.step) if first else None
                if path is not None:
                    trainer.tracking.show(path, record.step)
    return int(wish.signum) if trainer.step < total else 0


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that a checkpoint must share with the run that continues it."""
    known = ("sde", "net", "model", "data", "loss", "conditional")
    names = [name for name in known if name in config]
    names += [name for name in ("text", "head_net") if config.get(name)]  # which came later
    fixed = ("batch_size", "optimizer", "warmup", "clip", "ema", "seed")
    usual = TrainSettings()
    # Settings that came later count where they are not what was before them.
    later = [
        n for n in ("schedule", "accumulate", "after") if config["train"][n] != getattr(usual, n)
    ]
    train = {name: config["train"][name] for name in (*fixed, *later)}
    if isinstance(train["ema"], list) and len(train["ema"]) == 1:
        train["ema"] = train["ema"][0]
    others = {**known_by_content(config), **coder_by_content(config), **base_by_content(config)}
    others["data"] = without_place(config["data"])
    return {**{name: config[name] for name in names}, "train": train, **others}

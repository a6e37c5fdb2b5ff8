"""``sdegen-train``: train a score model, then sample it with several solvers and measure them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from sdegen.cli.main import hydra_main


def main() -> None:
    """The command."""
    hydra_main(train, "train")


def train(config: dict[str, Any]) -> None:
    """The Hydra task: everything that can be wrong is refused before the first step."""
    from hydra.core.hydra_config import HydraConfig

    folder = Path(HydraConfig.get().runtime.output_dir)
    stopped = run(config, folder)
    if stopped:
        sys.exit(128 + stopped)


def run(config: dict[str, Any], folder: Path) -> int:
    """Train and evaluate a resolved configuration in a folder; the signal that stopped it or 0."""
    from sdegen.files import claim, write_json
    from sdegen.runs.build import build, build_data, build_model, build_optimizer, build_walk
    from sdegen.runs.compare import refuse_early
    from sdegen.runs.finish import evaluate
    from sdegen.training import Objective, Trainer, TrainSettings
    from sdegen.training.signals import stopping

    packages = config["packages"]
    settings = TrainSettings(**config["train"])
    data, test = build_data(config)
    import torch

    torch.manual_seed(settings.seed)
    model = build_model(config, data.shape, data.classes)
    loss = build(config["loss"], packages)
    solvers = {name: build(node, packages) for name, node in config["evaluate"]["solvers"].items()}
    walk = build_walk(config)
    optimizer = build_optimizer(config)
    refuse_early(model, solvers, config["evaluate"]["budgets"], walk)
    x0, y = (part[None] for part in data[0])
    Objective(model, loss, config["conditional"])(x0, y)  # a loss that cannot be taken says so now
    claim(folder)
    trainer = Trainer(
        model,
        data,
        loss,
        optimizer,
        settings,
        folder,
        conditional=config["conditional"],
        identity=identity(config),
    )
    first = trainer.fabric.is_global_zero
    if first:
        write_json(folder / "config.json", config)
        count = sum(p.numel() for p in model.parameters())
        world = trainer.fabric.world_size
        print(
            f"{folder}: {count:,} parameters, {len(data):,} samples, {settings.steps:,} steps"
            + (f", {world} processes" if world > 1 else "")
        )
    with stopping() as wish:
        stopped = watch(trainer, wish)
    averaged, step = trainer.averaged, trainer.step
    trainer.close()
    if stopped:
        if first:
            print(f"Stopped at step {step:,}; the same command continues from there.")
        return stopped
    if first:
        evaluate(averaged, config, folder, data, test, solvers, walk)
    return 0


def watch(trainer: Any, wish: Any) -> int:
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
    return {
        **{name: config[name] for name in names},
        "train": {name: config["train"][name] for name in fixed},
    }

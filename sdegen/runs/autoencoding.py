"""Autoencoders as runs: trained like a score model, measured by what comes back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.data import gather
from sdegen.data.items import batched, split
from sdegen.files import claim, locked, write_json, write_tensors
from sdegen.metrics.restored import psnr
from sdegen.networks import Autoencoder, VQAutoencoder, perplexity
from sdegen.runs import bars
from sdegen.runs.begun import as_begun
from sdegen.runs.build import build, build_data, build_optimizer, build_trackers
from sdegen.runs.coders import build_coder
from sdegen.runs.folder import WEIGHTS, with_length
from sdegen.runs.pictures import curve, drawable
from sdegen.runs.settings import Experiment
from sdegen.runs.train import Trained, begins, first_process, identity, refuse_data, two_of
from sdegen.training import Objective, Trainer, stopping

USED = ("name", "net", "data", "loss", "train", "packages", "logger")
"""What of a configuration an autoencoder's run is made of."""
LEFT_OUT = ("task", "teacher.run", "coder.run", "conditional", "objective")
"""What it has nothing of."""
MOST = 1000
"""Data that reconstructions are measured on."""
SHOWN = 10


def train_autoencoder(config: dict[str, Any], folder: Path, say: Callable[[str], None]) -> Trained:
    """Train and measure an autoencoder in a folder, saying how it goes.

    Everything that can be wrong is refused before the first step.
    """
    experiment = Experiment.of(config)
    refuse_others(config)
    settings, packages = experiment.train, experiment.packages
    used = {name: config[name] for name in USED if name in config}
    used = {**used, "train": asdict(settings), "conditional": False}
    config = as_begun(used, folder)
    data, test = build_data(config)
    refuse_data(data, test, experiment)
    torch.manual_seed(settings.seed)
    coder = build_coder(config, data.shape)
    loss, optimizer = build(experiment.loss, packages), build_optimizer(config)
    trackers = build_trackers(config)
    x, _ = split(batched(two_of(data)))
    cost = Objective(coder.eval(), loss, False)(x, {})
    if cost.ndim or not cost.requires_grad:
        raise ValueError("An autoencoder is trained on loss=reconstruction, or one like it.")
    about = {"config": config, "shape": list(data.shape), "classes": 0}
    claim(folder)
    with locked(folder) if first_process() else contextlib.nullcontext():
        trainer = Trainer(
            coder,
            data,
            loss,
            optimizer,
            settings,
            folder,
            held_out=with_length(test),
            identity=identity(config),
            about={"run": about},
            trackers=trackers,
        )
        first, world = trainer.fabric.is_global_zero, trainer.fabric.world_size
        if first:
            write_json(folder / "config.json", config)
            say(begins(folder, config, coder, data, test, world))
            say(compression(coder, data.shape))
        with stopping() as wish:
            stopped = watch(trainer, wish)
        averaged, step = trainer.averaged, trainer.step
        trainer.close()
        if stopped and first:
            say(f"Stopped at step {step:,}; the same command continues from there.")
        if stopped or not first:
            return Trained(stopped, [])
        write_tensors(folder / WEIGHTS, averaged.state_dict(), {**about, "step": step})
        say(finish(averaged, folder, data, test))
        return Trained(0, [])


def refuse_others(config: Mapping[str, Any]) -> None:
    """ValueError for settings that an autoencoder has nothing of."""
    for name in LEFT_OUT:
        value: Any = config
        for part in name.split("."):
            value = (value or {}).get(part)
        if value:
            raise ValueError(
                f"{name} belongs to score models, but {config['net']['_target_']} is an "
                f"autoencoder: leave it out. (It is set to {value!r}.)"
            )


def compression(coder: Autoencoder, shape: Sequence[int]) -> str:
    """What an autoencoder makes of data of a shape, in a line."""
    latent = coder.latent_shape(shape)
    here, there = (torch.Size(each).numel() for each in (shape, latent))
    sides = "x".join(map(str, shape)), "x".join(map(str, latent))
    return f"Latents: {sides[0]} -> {sides[1]}, {here / there:.3g} times fewer values"


def watch(trainer: Trainer, wish: Any) -> int:
    """Train to the end with a progress bar, or until a signal; its number or 0."""
    total, first = trainer.settings.steps, trainer.fabric.is_global_zero
    with bars.bar(total=total, initial=trainer.step, disable=not first, unit="step") as bar:
        for record in trainer.steps(wish):
            bar.update(record.step - bar.n)
            bar.set_postfix(loss=f"{record.loss:.4f}", refresh=False)
    return int(wish.signum) if trainer.step < total else 0


def finish(coder: Autoencoder, folder: Path, data: Any, test: Any) -> str:
    """Measure what comes back, and write it, with pictures; the figures in a line."""
    found: dict[str, Any] = {}
    for name, some in {"train": data, "test": test}.items():
        if some is not None:
            x = gather(with_length(some), MOST).x
            found[name] = measured(coder, x)
            if drawable(x) and x.ndim == 4:
                picture(coder, x[:SHOWN], folder / f"reconstructions-{name}.png")
    write_json(folder / "result.json", found)
    curve(folder)
    lines = [
        f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in each.items())
        for name, each in found.items()
    ]
    return "Reconstructions of " + "; ".join(lines)


@torch.no_grad()
def measured(coder: Autoencoder, x: Tensor, batch: int = 100) -> dict[str, float]:
    """Of data x (n, *): PSNR in dB of decoded means; the mean spread of q(z | x); of codes how
    many of them the data use, by the perplexity."""
    device = coder.log_noise.device
    back, spreads, index = [], [], []
    for some in x.split(batch):
        mean, std = coder.posterior(some.to(device))
        back.append(coder.decode(mean).cpu())
        spreads.append(std.mean().cpu())
        if isinstance(coder, VQAutoencoder):
            index.append(coder.codebook.nearest(mean).flatten().cpu())
    found = {"psnr": psnr(torch.cat(back), x), "spread": float(torch.stack(spreads).mean())}
    if isinstance(coder, VQAutoencoder):
        found["perplexity"] = perplexity(torch.cat(index), len(coder.codebook.codes))
        found["codes"] = float(len(coder.codebook.codes))
        del found["spread"]
    return found


@torch.no_grad()
def picture(coder: Autoencoder, x: Tensor, path: Path) -> None:
    """Images (n, *), and below them what comes back."""
    from sdegen.plots import save_samples

    device = coder.log_noise.device
    back = coder.decode(coder.posterior(x.to(device))[0]).cpu()
    save_samples(torch.cat([x, back]).float(), path, "images, reconstructions", len(x))

"""The file that holds all of a training's state, and older ones that are kept beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.files import atomic, load_weights, read_header, read_tensors, write_tensors
from sdegen.training.averages import Averages, part, place
from sdegen.training.shards import in_host, like

CHECKPOINT = "checkpoint.safetensors"
"""The last one."""
KEPT = "checkpoints"
"""The folder of those that stay."""


def kept_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is kept."""
    return folder / KEPT / f"{step:08}.safetensors"


def write_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    averages: Averages,
    optimizer: torch.optim.Optimizer,
    about: dict[str, Any],
    keep: bool = False,
    first: bool = True,
) -> None:
    """The whole state of training in one file, that of the step before replaced; with ``keep`` a
    copy that stays as well, which is there before it could be missed.

    Of several processes each calls this, since each may have a part of a tensor, and the
    ``first`` one writes.
    """
    state = optimizer.state_dict()
    parts: dict[str, dict[str, Tensor]] = {"model": model.state_dict(), **averages.states()}
    scalars: dict[str, Any] = {}
    parts["optimizer"] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            where = parts["optimizer"] if isinstance(value, Tensor) else scalars
            where[f"{index}.{name}"] = value
    named = {f"{name}.{k}": v for name, each in parts.items() for k, v in each.items()}
    tensors = in_host(named, first)
    if not first:
        return
    about = {
        **about,
        "ema": list(averages.decays),
        "optimizer": {"groups": state["param_groups"], "scalars": scalars},
    }
    path = folder / CHECKPOINT
    if not keep:
        write_tensors(path, tensors, about)
        return
    kept = kept_path(folder, about["step"])
    kept.parent.mkdir(exist_ok=True)
    write_tensors(kept, tensors, about)
    with atomic(path) as copy:
        shutil.copyfile(kept, copy)


def restore(
    path: Path,
    tensors: dict[str, Tensor],
    about: dict[str, Any],
    model: torch.nn.Module,
    averages: Averages,
    optimizer: torch.optim.Optimizer,
) -> None:
    """What a checkpoint holds, into what is trained; ValueError where it is another network's or
    has other averages."""
    before = about.get("ema", [*averages.decays][:1])  # earlier versions had one, and did not say
    if before != [*averages.decays]:
        raise ValueError(
            f"The checkpoint {path} was made with train.ema = {before}, but this run has "
            f"{[*averages.decays]}: choose another run folder (name=...), or delete it."
        )
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        begin, _, key = name.partition(".")
        parts.setdefault(begin, {})[key] = tensor
    copies = {part(i): each for i, each in enumerate(averages.copies)}
    for name, module in {"model": model, **copies}.items():
        now, saved = module.state_dict(), parts.get(name, {})
        load_weights(module, {k: like(v, now.get(k)) for k, v in saved.items()}, path)
    entries: dict[int, dict[str, Any]] = {}
    weights = [each for group in optimizer.param_groups for each in group["params"]]
    scalars = about["optimizer"]["scalars"]
    for key, value in [*parts.get("optimizer", {}).items(), *scalars.items()]:
        index, _, name = key.partition(".")
        entries.setdefault(int(index), {})[name] = like(value, weights[int(index)])
    optimizer.load_state_dict({"state": entries, "param_groups": about["optimizer"]["groups"]})


def checkpoint_of(folder: Path, step: int | None) -> Path:
    """The file of a step, the last one's where none is named; ValueError, with the steps that
    there are, for another."""
    path = folder / CHECKPOINT
    if step is None or kept_path(folder, step).is_file():
        return path if step is None else kept_path(folder, step)
    steps = sorted(int(each.stem) for each in (folder / KEPT).glob("[0-9]*.safetensors"))
    try:
        last = int(read_header(path)["step"])
    except ValueError:  # it is not needed for those that are kept
        last = None
    if last == step:
        return path
    known = [*map(str, steps), *([f"{last}, the last"] if last not in (None, *steps) else [])]
    raise ValueError(
        f"There is no checkpoint of step {step} in {folder}: "
        + (f"there are {', '.join(known)}." if known else "there is none.")
    )


def weights_in(
    path: Path, raw: bool, ema: float | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A model's weights in a checkpoint, and its header: averaged by a decay, the first by
    default, or raw; ValueError where there is no average of that decay."""
    tensors, about = read_tensors(path)
    config = about.get("run", {}).get("config", {})
    decays = about.get("ema", [config["train"]["ema"]] if config else [])
    begin = "model." if raw else f"{part(0 if ema is None else place(ema, decays))}.module."
    return {k.removeprefix(begin): v for k, v in tensors.items() if k.startswith(begin)}, about

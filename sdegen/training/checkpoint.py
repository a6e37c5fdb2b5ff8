"""The file that holds all of a training's state, and older ones that are kept beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.files import atomic, load_weights, read_header, read_tensors, write_tensors
from sdegen.training.averages import Averages, part, place
from sdegen.training.frozen import own_state, whole_state
from sdegen.training.objective import Objective
from sdegen.training.profiles import posthoc, snapshot_path
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
    trained: Objective,
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
    parts: dict[str, dict[str, Tensor]] = {
        "model": own_state(trained.model),
        "loss": trained.loss_state(),
        **averages.states(),
    }
    scalars: dict[str, Any] = {}
    parts["optimizer"] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            where = parts["optimizer"] if isinstance(value, Tensor) else scalars
            where[f"{index}.{name}"] = value
    tensors = in_host(flat(parts), first)
    if not first:
        return
    about = {
        **about,
        "ema": list(averages.decays),
        **({"ema_stds": list(averages.stds)} if averages.stds else {}),
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


def flat(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of several parts by one name each."""
    return {f"{name}.{k}": v for name, each in parts.items() for k, v in each.items()}


def write_snapshot(folder: Path, averages: Averages, step: int, first: bool = True) -> None:
    """The averages with a profile, as they are at a step, in a file that stays; of several
    processes each calls this, and the ``first`` one writes."""
    tensors, path = in_host(flat(averages.profiles()), first), snapshot_path(folder, step)
    if first:
        path.parent.mkdir(exist_ok=True)
        write_tensors(path, tensors, {"step": step, "ema_stds": list(averages.stds)})


def restore(
    path: Path,
    tensors: dict[str, Tensor],
    about: dict[str, Any],
    trained: Objective,
    averages: Averages,
    optimizer: torch.optim.Optimizer,
    asked: dict[str, Any],
) -> None:
    """What a checkpoint holds, into what is trained; ValueError where it is another network's,
    another loss's or another optimiser's, or has other averages."""
    go_on(path, about, asked)
    before = about.get("ema", [*averages.decays][:1])  # earlier versions had one, and did not say
    if before != [*averages.decays]:
        raise ValueError(
            f"The checkpoint {path} was made with train.ema = {before}, but this run has "
            f"{[*averages.decays]}: choose another run folder (name=...), or delete it."
        )
    widths = about.get("ema_stds", [])
    if widths != [*averages.stds]:
        raise ValueError(
            f"The checkpoint {path} was made with snapshots of profiles {widths}, but this run "
            f"has {[*averages.stds]} (train.snapshot_every, train.ema_stds): choose another run "
            "folder (name=...), or delete it."
        )
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        begin, _, key = name.partition(".")
        parts.setdefault(begin, {})[key] = tensor
    for name, module in {"model": trained.model, **averages.named()}.items():
        now, saved = module.state_dict(), parts.get(name, {})
        own = {k: like(v, now.get(k)) for k, v in saved.items()}
        load_weights(module, whole_state(module, own), path)
    try:
        trained.load_loss(parts.get("loss", {}))
    except ValueError as error:
        raise ValueError(f"The checkpoint {path} belongs to another loss: {error}") from error
    counts = [len(group["params"]) for group in about["optimizer"]["groups"]]
    if counts != [len(group["params"]) for group in optimizer.param_groups]:
        raise ValueError(
            f"The checkpoint {path} trained {sum(counts)} weights, but others train here: what is "
            "frozen is another part of the network. Begin anew (name=...)."
        )
    entries: dict[int, dict[str, Any]] = {}
    weights = [each for group in optimizer.param_groups for each in group["params"]]
    scalars = about["optimizer"]["scalars"]
    for key, value in [*parts.get("optimizer", {}).items(), *scalars.items()]:
        index, _, name = key.partition(".")
        entries.setdefault(int(index), {})[name] = like(value, weights[int(index)])
    optimizer.load_state_dict({"state": entries, "param_groups": about["optimizer"]["groups"]})


def asked_of(optimizer: Any) -> dict[str, Any]:
    """Which optimiser, and with which settings it was made, as JSON has them; ValueError for one
    that cannot be kept so."""
    kind = type(getattr(optimizer, "optimizer", optimizer)).__name__
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    try:
        asked: dict[str, Any] = json.loads(json.dumps({"kind": kind, "groups": groups}))
    except TypeError as error:
        raise ValueError(
            f"{kind} has settings that no checkpoint can keep ({error}): give it plain numbers, "
            "such as lr=1e-3."
        ) from error
    return asked


def go_on(path: Path, about: dict[str, Any], asked: dict[str, Any]) -> None:
    """What this run asks of the optimiser, into what a checkpoint says of it, where the one before
    asked for something else; what an optimiser keeps among its settings goes on. ValueError where
    that was another kind."""
    before = about.get("asked", asked)  # earlier versions did not say
    if before["kind"] != asked["kind"]:
        raise ValueError(
            f"The checkpoint {path} was made with {before['kind']}, but this run has "
            f"{asked['kind']}: choose another run folder (name=...), or delete it."
        )
    known = about["optimizer"]["groups"], before["groups"], asked["groups"]
    for group, old, new in zip(*known, strict=False):  # of another number they are refused
        group |= {name: value for name, value in new.items() if old.get(name) != value}


def checkpoint_of(folder: Path, step: int | None) -> Path:
    """The file of a step, the last one's where none is named; ValueError, with the steps that
    there are, for another."""
    path = folder / CHECKPOINT
    if step is None or kept_path(folder, step).is_file():
        return path if step is None else kept_path(folder, step)
    stems = [each.stem for each in (folder / KEPT).glob("[0-9]*.safetensors")]
    steps = sorted(int(stem) for stem in stems if stem.isdecimal())
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
    path: Path, raw: bool, ema: float | None, folder: Path | None = None, std: float | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A model's weights in a checkpoint, and its header: averaged by a decay, the first by
    default, or over a profile of a width with the snapshots of a folder, or raw; ValueError where
    there is no average of that decay, and no snapshot."""
    if std is not None and folder is not None:
        return posthoc(folder, std, path)
    tensors, about = read_tensors(path)
    config = about.get("run", {}).get("config", {})
    decays = about.get("ema", [config["train"]["ema"]] if config else [])
    begin = "model." if raw else f"{part(0 if ema is None else place(ema, decays))}.module."
    return {k.removeprefix(begin): v for k, v in tensors.items() if k.startswith(begin)}, about

"""Adapting: runs that begin with another run's weights, or learn beside them.

The base is known by its content. With an adapter it stays as it is and lies in its own run alone:
a checkpoint and the finished weights have what was learned beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from sdegen.checks import text
from sdegen.files import load_weights, read_header, read_tensors
from sdegen.model.score import ScoreModel
from sdegen.networks import with_classes
from sdegen.runs.begun import as_recorded
from sdegen.runs.build import build, build_task
from sdegen.runs.kept import with_kept
from sdegen.runs.network import build_model, parameters
from sdegen.runs.weights import WEIGHTS, base_of, content_of

INHERITED = ("sde", "net", "model", "conditional", "sigma_data", "coder")
"""What a run has of its base, and the data where it names none."""


def as_adapted(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with what its base's run has, and with the content of its weights; itself
    where there is no base.

    ValueError for an adapter of nothing, and a base that none is made of.
    """
    run = (config.get("base") or {}).get("run")
    if run is None:
        if config.get("adapter"):
            raise ValueError("An adapter is of a run that is finished: give base.run=outputs/...")
        return {name: each for name, each in config.items() if name not in ("base", "adapter")}
    if (config.get("teacher") or {}).get("run") or config.get("coder"):
        raise ValueError("A run with base.run has neither a teacher nor a coder of its own.")
    folder = Path(text("base.run", run))
    theirs = with_kept(as_recorded(read_header(folder / WEIGHTS)["config"]), folder)
    refuse_base(folder, theirs, config)
    inherited = {name: theirs[name] for name in INHERITED if name in theirs}
    data = config.get("data") or theirs["data"]
    base = {"run": str(folder.resolve()), "content": content_of(folder)}
    return {**config, **inherited, "data": data, "base": base}


def refuse_base(folder: Path, theirs: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """ValueError for a run that is no base, and for an adapter and a task that do not fit."""
    kinds = {
        "adapter": "is itself an adapter's: take its base",
        "task": "was trained to restore",
        "sampler": "is a student, which knows its own steps alone",
        "text": "takes texts, of which adapters know nothing yet",
        "head_net": "has a second output of its own",
    }
    for name, why in kinds.items():
        if theirs.get(name):
            raise ValueError(f"{folder} {why}: it is no base of another run.")
    shown = controls(config)
    if bool(config.get("task")) != shown:
        raise ValueError(
            "adapter=control is shown what a task shows of the data: give task=superresolve, or "
            "another."
            if shown
            else "A base is shown a task's part of the data by adapter=control alone: give that, "
            "or leave task out."
        )


def controls(config: Mapping[str, Any]) -> bool:
    """Whether a configuration's adapter is shown something."""
    node = config.get("adapter")
    return bool(node) and "hints" in parameters(dict(node), config["packages"])  # type: ignore[arg-type]


def adapted_model(
    config: Mapping[str, Any], shape: Sequence[int], classes: int, beside: Path | None = None
) -> ScoreModel:
    """The score model of a configuration over its base, for data of a shape and number of classes;
    beside: the run's own folder, next to which the base is looked for too.

    ValueError where the base is missing, is another one than the run was begun with, or is of
    other data.
    """
    path = base_of(config["base"], beside) / WEIGHTS
    tensors, header = read_tensors(path)
    known = header["classes"] if config["conditional"] else classes
    if list(header["shape"]) != list(shape) or classes < known:
        raise ValueError(
            f"The base is of data {tuple(header['shape'])} with {header['classes']} classes, but "
            f"these are {tuple(shape)} with {classes}: the shape must be its, and no class fewer."
        )
    model = build_model({**config, "task": None}, shape, known)
    load_weights(model, tensors, path)
    if classes > known:
        if config.get("adapter"):
            raise ValueError(
                f"The data have {classes} classes, and the base {known}: of a class more an "
                "adapter, which leaves the base's table as it is, learns nothing of its own. "
                "Train all weights (adapter=none)."
            )
        model.net = with_classes(model.net, classes - known)  # type: ignore[arg-type]
    model.net = adapter_of(model.net, config, shape)  # type: ignore[arg-type]
    return model


def adapter_of(net: nn.Module, config: Mapping[str, Any], shape: Sequence[int]) -> nn.Module:
    """A network with a configuration's adapter, which is shown what its task shows as c; itself
    where there is none."""
    node, packages = config.get("adapter"), config["packages"]
    if not node:
        return net
    hints: dict[str, Any] = {}
    task = build_task(config.get("task"), packages)
    if task is not None:
        if task.numbers:
            raise ValueError("A control is told no noise of what it is shown: task.augment=0.")
        hints = {"hints": {"c": task.beside(shape[0])}}
    made: nn.Module = build(dict(node), packages, _partial_=True)(net, **hints)
    return made


def base_by_content(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint keeps of a base: not where it lies."""
    if "base" not in config:
        return {}
    return {"base": config["base"]["content"], "adapter": config.get("adapter") or None}

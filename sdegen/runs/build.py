"""From a configuration to objects: the one place where Hydra instantiates anything."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from torch.utils.data import IterableDataset

from sdegen.checks import nearest
from sdegen.data import hold_out, numbered_as
from sdegen.data.classes import plain
from sdegen.losses import Degradation

ALLOWED = ("sdegen", "torch.optim")
"""Packages whose names a configuration may call. A user's own are added by ``packages``; solvers
that are registered may be called as they are."""


def targets(node: Any) -> Iterator[str]:
    """Every ``_target_`` in a configuration, at any depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def registered() -> set[str]:
    """What solvers of other packages in the catalogue are made of."""
    from sdegen.solvers.registry import foreign

    return {target for entry in foreign() for target in targets(entry.config())}


def refuse_strangers(plain: Any, packages: Sequence[str]) -> None:
    """ValueError where a configuration names something that may not be called from it."""
    allowed = (*ALLOWED, *packages)
    for target in targets(plain):
        known = any(target == name or target.startswith(f"{name}.") for name in allowed)
        if not (known or target in registered()):
            raise ValueError(
                f"The configuration asks for {target}, but only {', '.join(allowed)} may be "
                f"called from it: allow a package of yours with packages=[{target.split('.')[0]}]."
            )


def build(node: Any, packages: Sequence[str] = (), **extra: Any) -> Any:
    """The object that a configuration node describes.

    ValueError with one sentence if it names something outside sdegen, torch.optim and
    ``packages``, something that is not there, or arguments that do not fit.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import get_object, instantiate
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    refuse_strangers(plain, packages)
    try:
        return instantiate(plain, _convert_="all", **extra)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ValueError | OSError) and str(cause):
            raise ValueError(str(cause)) from error
        target = str(plain.get("_target_")) if isinstance(plain, dict) else str(plain)
        hint = ""
        if isinstance(cause, TypeError):
            hint = f" It takes {inspect.signature(get_object(target))}."
        first, *more = str(cause).splitlines() or [""]
        # Hydra says what it could not load in the first line, and why in the second.
        reason = (" ".join([first, *more[:1]]) if first.endswith(":") else first).rstrip(".")
        if not isinstance(cause, InstantiationException | ImportError | TypeError):
            kind = type(cause).__name__  # without which "'a'", of a KeyError, says nothing
            reason = f"{kind}: {reason}" if reason else kind
        reason = next(filter(None, map(missing, targets(plain))), reason)
        raise ValueError(f"{target} cannot be built: {reason}.{hint}") from error


def missing(target: str) -> str:
    """What a class's name leads to that is not there; nothing where that is something else."""
    module, _, name = target.rpartition(".")
    top = module.partition(".")[0]
    if not top or find_spec(top) is None:
        return f"there is no package {top} here: install it, or put its folder on PYTHONPATH"
    try:
        home = import_module(module)
    except ImportError:
        return ""
    hint = nearest(name, vars(home)) if not hasattr(home, name) else None
    return "" if hint is None else f"{module} has no {name}" + (f" ({hint})" if hint else "")


def build_walk(config: dict[str, Any]) -> Any:
    """The walk of a configuration, None for walk=default: the solver's own, or log_snr."""
    return build(config["walk"], config["packages"]) or None


EDIT = "edit"
EDITS = (EDIT, "p2p", "diffedit")
"""Tasks that hide nothing."""


def task_name(node: Any) -> str:
    """What a task's node is called, as task=... has it."""
    target = node.get("_target_") if isinstance(node, Mapping) else node
    return str(target).rpartition(".")[2].lower()


def build_task(node: Any, packages: Sequence[str] = ()) -> Degradation | None:
    """What a configuration's ``task`` shows of data, None without one; ValueError for what hides
    nothing."""
    if not node:
        return None
    if (name := task_name(node)) in EDITS:
        which = "any run" if name == EDIT else "any run that takes a text"
        raise ValueError(
            f"task={name} is for sdegen-sample, with {which}: there is nothing to be trained for "
            "it."
        )
    task = build(node, packages)
    if not isinstance(task, Degradation):
        raise ValueError(f"A task is a Degradation of sdegen.losses, but it is {task!r}.")
    return task


def build_optimizer(config: dict[str, Any]) -> Any:
    """parameters -> optimizer; its settings are tried out on one weight first."""
    import torch

    make = build(config["train"]["optimizer"], config["packages"], _partial_=True)
    try:
        make([torch.nn.Parameter(torch.zeros(1))])
    except TypeError as error:
        known = ", ".join(inspect.signature(make.func).parameters)
        raise ValueError(f"train.optimizer: {error}; it takes {known}.") from error
    return make


def build_trackers(config: Mapping[str, Any]) -> list[Any]:
    """Who is told a run's records beside metrics.jsonl; ValueError for what tracks nothing, and
    where a package is missing."""
    named = config.get("logger") or {}
    for name, node in named.items():
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise ValueError(
                f"logger is one of its group, as logger=csv, or several, but logger.{name} is "
                f"{node!r}."
            )
    trackers = [build(node, config["packages"]) for node in named.values()]
    for name, tracker in zip(named, trackers, strict=True):
        if not callable(tracker):
            raise ValueError(
                f"logger.{name} is called with (folder, step, records) for a logger of Lightning "
                f"Fabric, but it is {tracker!r}."
            )
    return trackers


def share_held_out(data: dict[str, Any]) -> float | None:
    """The share of the training data that is held out of training: ``held_out``, where ``test``
    names no other data than ``train`` does; a tenth where there is no ``test``."""
    if names_others(data):
        return None
    share: float | None = data.get("held_out", None if data.get("test") else 0.1)
    return share


def names_others(data: dict[str, Any]) -> bool:
    """Whether ``test`` names other data than ``train`` does."""
    train, test = data["train"], data.get("test")
    differs = isinstance(test, dict) and any(train.get(k) != v for k, v in test.items())
    return differs


def holds_out(data: dict[str, Any]) -> bool:
    """Whether the test data are not trained on."""
    return names_others(data) or share_held_out(data) is not None


def build_data(config: dict[str, Any]) -> tuple[Any, Any]:
    """The training and the held-out data set, whose classes have the training data's numbers;
    None for the second where a stream is trained on without one.

    ValueError where a conditional model is to learn from data without classes.
    """
    share = share_held_out(config["data"])
    train = build(config["data"]["train"], config["packages"])
    if config["conditional"] and not getattr(train, "classes", 1):  # without any it is told later
        raise ValueError(
            "conditional=true, but the data have no classes: say conditional=false, or name their "
            "labels, data.label of a stream, data.labels of an array file, sub-folders of images, "
            "dataset.json of a zip or .cls of shards."
        )
    if isinstance(train, IterableDataset) and not config["data"].get("test"):
        return train, None  # nothing can be held out of a stream
    if share is not None and not isinstance(train, IterableDataset):
        return parted(train, share)  # which are read once
    return train, build_split(config, "test", getattr(train, "names", ()))


def parted(data: Any, share: float) -> tuple[Any, Any]:
    """What is trained on and what is held out; ValueError where there is too little."""
    try:
        return hold_out(data, share)
    except ValueError as error:
        raise ValueError(
            f"data.held_out={share}: {error} Name held-out data by data.test, or say "
            "data.held_out=null, and samples are measured by what is trained on."
        ) from error


def build_split(config: dict[str, Any], split: str, names: Sequence[str] = ()) -> Any:
    """One of the data sets, its classes numbered as in ``names`` where they are named.

    ValueError where a class is not among them that a model is given, and where there is no such
    data set.
    """
    described, packages = config["data"], config["packages"]
    share = share_held_out(described)
    node = described.get(split) if share is None else None
    data = build(node or described["train"], packages)
    streams = isinstance(data, IterableDataset)
    if streams and split == "test" and not described.get("test"):
        raise ValueError("Of a stream nothing is held out: give data.test=...")
    if share is not None and not streams:
        data = parted(data, share)[("train", "test").index(split)]
    elif split == "test":
        data = plain(data)
    return numbered_as(data, names, known_alone=config["conditional"])

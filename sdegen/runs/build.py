"""From a configuration to objects: the one place where Hydra instantiates anything."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import IterableDataset

from sdegen.data import numbered_as
from sdegen.model.score import ScoreModel

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


def build(node: Any, packages: Sequence[str] = (), **extra: Any) -> Any:
    """The object that a configuration node describes.

    ValueError with one sentence if it names something outside sdegen, torch.optim and
    ``packages``, something that is not there, or arguments that do not fit.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import get_object, instantiate
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    allowed = (*ALLOWED, *packages)
    for target in targets(plain):
        known = any(target == name or target.startswith(f"{name}.") for name in allowed)
        if not (known or target in registered()):
            raise ValueError(
                f"The configuration asks for {target}, but only {', '.join(allowed)} may be "
                f"called from it: allow a package of yours with packages=[{target.split('.')[0]}]."
            )
    try:
        return instantiate(plain, _convert_="all", **extra)
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ValueError | OSError):
            raise ValueError(str(cause)) from error
        target = str(plain.get("_target_")) if isinstance(plain, dict) else str(plain)
        hint = ""
        if isinstance(cause, TypeError):
            hint = f" It takes {inspect.signature(get_object(target))}."
        reason = str(cause).splitlines()[0].rstrip(".")
        raise ValueError(f"{target} cannot be built: {reason}.{hint}") from error


def build_walk(config: dict[str, Any]) -> Any:
    """The walk of a configuration, None for walk=default: the solver's own, or log_snr."""
    return build(config["walk"], config["packages"]) or None


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


def build_model(config: dict[str, Any], shape: Sequence[int], classes: int) -> ScoreModel:
    """The score model of a resolved configuration, for data of a shape and number of classes."""
    packages = config["packages"]
    conditional = classes if config["conditional"] else 0
    size = {"dim" if len(shape) == 1 else "channels": shape[0], "classes": conditional}
    net = build(config["net"], packages, **size)
    sde = build(config["sde"], packages)
    try:
        return ScoreModel(net, sde, **config["model"])
    except TypeError as error:
        raise ValueError(f"The model {config['model']} cannot be built: {error}.") from error


def build_data(config: dict[str, Any]) -> tuple[Any, Any]:
    """The training and the held-out data set, whose classes have the training data's numbers;
    None for the second where a stream is trained on without one."""
    train = build_split(config, "train")
    if isinstance(train, IterableDataset) and not config["data"].get("test"):
        return train, None  # nothing can be held out of a stream
    return train, build_split(config, "test", getattr(train, "names", ()))


def build_split(config: dict[str, Any], split: str, names: Sequence[str] = ()) -> Any:
    """One of the data sets, its classes numbered as in ``names`` where they are named.

    ValueError where a class is not among them that a model is given, and where there is no such
    data set.
    """
    node = config["data"].get(split)
    if not node:
        raise ValueError(f"The configuration has no data.{split}: give data.{split}=...")
    data = build(node, config["packages"])
    return numbered_as(data, names, known_alone=config["conditional"])

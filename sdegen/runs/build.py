"""From a configuration to objects: the one place where Hydra instantiates anything."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

from sdegen.data import numbered_as

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
        if isinstance(cause, ValueError | OSError):
            raise ValueError(str(cause)) from error
        target = str(plain.get("_target_")) if isinstance(plain, dict) else str(plain)
        hint = ""
        if isinstance(cause, TypeError):
            hint = f" It takes {inspect.signature(get_object(target))}."
        first, *more = str(cause).splitlines()
        # Hydra says what it could not load in the first line, and why in the second.
        reason = (" ".join([first, *more[:1]]) if first.endswith(":") else first).rstrip(".")
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


def build_data(config: dict[str, Any]) -> tuple[Any, Any]:
    """The training and the held-out data set, whose classes have the training data's numbers."""
    train = build_split(config, "train")
    return train, build_split(config, "test", getattr(train, "names", ()))


def build_split(config: dict[str, Any], split: str, names: Sequence[str] = ()) -> Any:
    """One of the data sets, its classes numbered as in ``names`` where they are named.

    ValueError where a class is not among them that a model is given.
    """
    data = build(config["data"][split], config["packages"])
    return numbered_as(data, names, known_alone=config["conditional"])

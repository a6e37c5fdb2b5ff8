"""The scale of a run's data: sigma_data=auto as a number, and whether the SDE's noise fits it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sdegen.checks import warn
from sdegen.data import ArrayData, gather, moments
from sdegen.data.scale import SOME
from sdegen.runs.begun import AUTO, is_number, sigma_of
from sdegen.sde import SDE, LinearSDE


def with_sigma(config: dict[str, Any], data: Any, folder: Path) -> dict[str, Any]:
    """A configuration whose sigma_data=auto, wherever it stands, is a number of four digits.

    It is the standard deviation of the training data, ``moments``; in a folder with a checkpoint
    the number that the run was begun with, whatever the data would give now.

    Raises ValueError for what is neither, and where all numbers of the data are the same.
    """
    for where, node in (("", config), ("model.", config.get("model", {}))):
        asked = node.get("sigma_data", AUTO)
        if asked != AUTO and not is_number(asked):
            raise ValueError(f"{where}sigma_data must be a number or auto, but it is {asked!r}.")
    if not asks(config):
        return config
    sigma = sigma_of(folder, config)
    if sigma is None:
        sigma = float(f"{moments(data).std:.4g}")
        if sigma == 0:
            raise ValueError(
                "sigma_data=auto is the standard deviation of the training data, which is 0: all "
                "their numbers are the same. Look at the data, or give sigma_data=..."
            )
    filled: dict[str, Any] = fill(config, sigma)
    return filled


def asks(node: Any) -> bool:
    """Whether a sigma_data in a configuration is to be measured."""
    if isinstance(node, list):
        return any(map(asks, node))
    return isinstance(node, dict) and (
        node.get("sigma_data") == AUTO or any(map(asks, node.values()))
    )


def fill(node: Any, sigma: float) -> Any:
    """The same configuration with the number where it asks for one."""
    if isinstance(node, list):
        return [fill(each, sigma) for each in node]
    if not isinstance(node, dict):
        return node
    return {
        name: sigma if name == "sigma_data" and value == AUTO else fill(value, sigma)
        for name, value in node.items()
    }


def warn_of_scale(sde: SDE, data: Any) -> None:
    """A warning where the noise of an SDE is not made for the scale of data that are real numbers.

    Noise goes from the least sigma / alpha to the greatest. The data should stand out of the
    least, and vanish in the greatest, tenfold; and their mean should not be far from zero beside
    their std, since nothing takes it away. Columns of a table are looked at one by one.
    """
    if getattr(data, "levels", 0) or not isinstance(sde, LinearSDE):
        return
    low, high = float(sde(sde.t_min).rho.max()), float(sde(sde.T).rho.min())
    for what, mean, std in scales(data):
        if std < 10 * low or math.hypot(mean, std) > high / 10 or abs(mean) > 5 * std:
            warn(
                f"{what} mean {mean:.3g} and std {std:.3g}, but the noise of this SDE, from "
                f"{low:.3g} to {high:.3g} (sigma / alpha), is made for a mean near 0 and a std "
                f"from {10 * low:.2g} to {high / 10:.2g}: save (x - mean) / std instead, of each "
                "column of a table, and scale samples back."
            )
            return


def scales(data: Any) -> Iterator[tuple[str, float, float]]:
    """Mean and standard deviation of all data, and of the columns of a table that vary."""
    some = data if isinstance(data, ArrayData) else gather(data, SOME)
    yield "The data have", *moments(some)
    if some.x.ndim == 2 and some.x.shape[1] > 1:
        for k, column in enumerate(some.x.double().T):
            if (std := float(column.std(correction=0))) > 0:
                yield f"Column {k} of the data has", float(column.mean()), std

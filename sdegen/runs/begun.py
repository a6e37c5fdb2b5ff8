"""What a run was begun with, where the command that continues it leaves that open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdegen.checks import warn
from sdegen.files import read_header
from sdegen.runs.build import share_held_out
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.identity import flatten

LATER = {"held_out": 0.1, "background": "white", "flip": False, "crop": "centre"}
"""Settings of data that came with ``held_out``, as they are unless something else is said."""


def begun(folder: Path) -> dict[str, Any]:
    """What the checkpoint in a folder says that it was made with; empty where there is none that
    can be read, which the training itself refuses."""
    try:
        identity: dict[str, Any] = read_header(folder / CHECKPOINT).get("identity", {})
        return identity
    except ValueError:
        return {}


def sigma_of(folder: Path) -> float | None:
    """The sigma_data that the run in a folder was begun with, None where it does not say."""
    for name, value in flatten(begun(folder)).items():
        if name.endswith(".sigma_data") and isinstance(value, int | float):
            return value
    return None


def as_begun(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration that goes on with the data of the run in a folder: one that was begun when
    nothing was held out, and transparency dropped, goes on so, with a warning."""
    old = begun(folder).get("data")
    if not old or "held_out" in old:
        return config
    data = before(config["data"])
    if share_held_out(config["data"]) is not None or "background" in config["data"]["train"]:
        warn(
            f"The run in {folder} was begun when no part of the training data was held out, and "
            "transparency was dropped: it goes on so. Another run folder (name=...) begins anew."
        )
    return {**config, "data": data}


def before(node: dict[str, Any]) -> dict[str, Any]:
    """Data as they were described before ``LATER``; what was set otherwise is kept, and refused
    by its name."""
    kept = {
        name: before(value) if isinstance(value, dict) else value
        for name, value in node.items()
        if name not in LATER or value != LATER[name]
    }
    return kept | ({"background": None} if "background" in node.keys() - kept.keys() else {})

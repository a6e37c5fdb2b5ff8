"""What a run was begun with, where the command that continues it leaves that open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdegen.checks import warn
from sdegen.files import read_header
from sdegen.runs.build import share_held_out
from sdegen.training.checkpoint import CHECKPOINT
from sdegen.training.identity import flatten

AUTO = "auto"
"""A sigma_data that is measured."""

LATER = {"held_out": 0.1, "background": "white", "flip": False, "crop": "centre"}
"""Settings of data that came with ``held_out``, as they are unless something else is said."""


def begun(folder: Path) -> dict[str, Any]:
    """The header of a folder's checkpoint; empty where there is none that can be read, which the
    training itself refuses."""
    try:
        header: dict[str, Any] = read_header(folder / CHECKPOINT)
        return header
    except ValueError:
        return {}


def sigma_of(folder: Path, config: dict[str, Any]) -> float | None:
    """The sigma_data that the run in a folder was begun with, None where it does not say.

    It is the number of ``sigma_data`` itself, or what a checkpoint that does not say that has in
    another place where this configuration says auto; a number of one's own elsewhere, as of a
    network, was never measured.
    """
    header = begun(folder)
    whole = header.get("run", {}).get("config", {})
    saved = {"sigma_data": whole.get("sigma_data"), **flatten(header.get("identity", {}))}
    asked = [name for name, value in flatten(config).items() if value == AUTO]
    for name in sorted(asked, key=lambda name: name.count(".")):  # sigma_data itself first
        value = saved.get(name)
        if name.split(".")[-1] == "sigma_data" and is_number(value):
            return value
    return None


def is_number(value: Any) -> bool:
    """Whether a setting is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_begun(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A configuration that says what transparent images are laid on, and that goes on with the
    data of the run in a folder: one that was begun when nothing was held out, and transparency
    dropped, goes on so, with a warning."""
    config = {**config, "data": on_background(config["data"], LATER["background"])}
    old = begun(folder).get("identity", {}).get("data")
    if not old or "held_out" in old:
        return config
    data = before(config["data"], old)
    now, then = flatten(config["data"]), flatten(data)
    what = []
    if share_held_out(config["data"]) is not None:
        what.append("no part of the training data was held out")
    if any(name.split(".")[-1] == "background" and now[name] != then[name] for name in then):
        what.append("transparency was dropped")
    if what:
        warn(
            f"The run in {folder} was begun when {', and '.join(what)}: it goes on so. Another "
            "run folder (name=...) begins anew."
        )
    return {**config, "data": data}


def as_recorded(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration that weights say they were trained by, in today's terms: transparency was
    dropped where it does not say what images were laid on."""
    return {**config, "data": on_background(config["data"], None)}


def on_background(node: Any, colour: Any) -> Any:
    """Data whose folders of images all say what is behind transparency, this colour where they
    said nothing."""
    if isinstance(node, list):
        return [on_background(each, colour) for each in node]
    if not isinstance(node, dict):
        return node
    said = {name: on_background(value, colour) for name, value in node.items()}
    package, _, name = str(node.get("_target_")).rpartition(".")
    ours = name == "ImageFolder" and package.split(".")[0] == "sdegen"
    return {"background": colour, **said} if ours else said


def before(node: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Data as they were described before ``LATER``, by what the old description has of it; what
    was set otherwise is kept, and refused by its name."""
    kept: dict[str, Any] = {}
    for name, value in node.items():
        then = old.get(name)
        if isinstance(value, dict):
            kept[name] = before(value, then if isinstance(then, dict) else {})
        elif name not in LATER or value != LATER[name] or name in old:
            kept[name] = value
        if name == "background" and value == LATER[name]:
            kept[name] = then
    return kept

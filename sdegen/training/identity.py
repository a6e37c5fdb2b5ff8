"""Whose checkpoint, whose records: what a run that goes on must share with the one before."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from sdegen.sde import RENAMED


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a file, none where there is none; without lines that a kill cut short."""
    records = list[dict[str, Any]]()
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                record["step"] + 0
                records.append(record)
    return records


def refuse_other(path: Path, saved: dict[str, Any], asked: dict[str, Any]) -> None:
    """ValueError where a checkpoint was made by another configuration."""
    old, new = ({k: named_now(v) for k, v in flatten(each).items()} for each in (saved, asked))
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ValueError(
                f"The checkpoint {path} was made with {key} = {old.get(key)!r}, but this run has "
                f"{key} = {new.get(key)!r}: choose another run folder (name=...), or delete it."
            )


def named_now(value: Any) -> Any:
    """A configuration's value; an SDE's ``_target_`` by the name that the SDE has today."""
    if not isinstance(value, str) or not value.startswith("sdegen."):
        return value
    room, _, name = value.rpartition(".")
    return f"{room}.{RENAMED.get(name, name)}"


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat

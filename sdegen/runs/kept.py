"""Where a run's priors lie: data that another run made, as ``priors`` makes and keeps them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

PRIOR = "sdegen.runs.priors.samples_of"
"""The ``_target_`` of a prior in data."""

WHERE = ("run", "kept")
"""What a prior's node says of places, beside what it is."""


def with_kept(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration of the run in a folder, whose priors are those that lie there."""

    def find(node: dict[str, Any], path: Path) -> dict[str, Any]:
        return {**node, **({"kept": str(path)} if path.is_file() else {})}

    if "data" not in config:
        return config
    return {**config, "data": changed(config["data"], folder, find)}


def without_place(data: Any) -> Any:
    """Data whose priors do not say where they and their runs lie, for checkpoints and cards."""

    def forget(node: dict[str, Any], path: Path) -> dict[str, Any]:
        return {name: each for name, each in node.items() if name not in WHERE}

    return changed(data, Path(), forget)


def without_kept(data: Any) -> Any:
    """Data whose priors do not say where they lie, which their run's folder does."""

    def forget(node: dict[str, Any], path: Path) -> dict[str, Any]:
        return {name: each for name, each in node.items() if name != "kept"}

    return changed(data, Path(), forget)


def changed(data: Any, folder: Path, change: Callable[[dict[str, Any], Path], Any]) -> Any:
    """Data with their priors' nodes changed, each by its file in a folder, in their order."""
    number = count()

    def visit(node: Any) -> Any:
        if isinstance(node, list):
            return [visit(each) for each in node]
        if not isinstance(node, dict):
            return node
        if node.get("_target_") == PRIOR:
            return change(node, folder / f"prior-{next(number)}.safetensors")
        return {name: visit(each) for name, each in node.items()}

    return visit(data)

"""Guidance of a run's model, as a configuration says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sdegen.runs.build import build, targets
from sdegen.runs.folder import Run

DROPPED = "sdegen.losses.dropped"

Guide = Callable[[Any], Any]
"""A model -> a model made of it."""


def with_null_label(node: Any, classes: int) -> Any:
    """A loss's node that drops labels to that of no class, where it does not say to what.

    ValueError for data without classes.
    """
    if not isinstance(node, Mapping):
        return node
    told = {key: with_null_label(part, classes) for key, part in node.items()}
    if told.get("_target_") == DROPPED and told.get("without") is None:
        if not classes:
            raise ValueError(
                "loss=dropped drops the class, but the data have none: say what is dropped, as "
                "'loss.without={c: 0.0}', or leave it out."
            )
        told["without"] = {"y": classes}
    return told


def guide_of(node: Mapping[str, Any] | None, run: Run, packages: Sequence[str] = ()) -> Guide:
    """What a configuration's ``guidance`` makes of a model: one wrapper, or several by name, from
    the inside out.

    A ``without`` that is null is the label of no class. ValueError where the run's model takes no
    class, or was never trained without one.
    """
    nodes = [] if not node else [node] if "_target_" in node else list(node.values())
    wrappers = [build(with_null(each, run), packages) for each in nodes]

    def guide(model: Any) -> Any:
        for wrap in wrappers:
            model = wrap(model)
        return model

    return guide


def with_null(node: Mapping[str, Any], run: Run) -> Mapping[str, Any]:
    """A wrapper's node whose null is the run's."""
    if "without" not in node or node["without"] is not None:
        return node
    if not run.counts:
        raise ValueError(
            "This guidance needs a model that takes a class, but the run's takes none: train one "
            "with conditional=true and loss=dropped, or say without={...} yourself."
        )
    if DROPPED not in targets(run.config["loss"]):
        raise ValueError(
            "This guidance asks for the model without a class, which the run was never trained "
            "as: train one with loss=dropped."
        )
    return {**node, "without": {"y": len(run.counts)}}

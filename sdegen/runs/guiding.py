"""Guidance of a run's model, as a configuration says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sdegen.runs.build import build
from sdegen.runs.folder import Run

DROPPED = "sdegen.losses.dropped"
ONCE = "sdegen.distill.GuidedOnce"
JUDGED = "sdegen.runs.judging.classified"

Guide = Callable[[Any], Any]
"""A model -> a model made of it."""


def with_null_label(node: Any, classes: int, conditional: bool) -> Any:
    """A loss's node that drops labels to that of no class, where it does not say to what; of a
    model that takes no label the loss inside, which is all that is left of it.

    ValueError for data without classes.
    """
    if not isinstance(node, Mapping):
        return node
    told = {key: with_null_label(part, classes, conditional) for key, part in node.items()}
    if told.get("_target_") == DROPPED and told.get("without") is None:
        if not conditional:
            return told["loss"]
        if not classes:
            raise ValueError(
                "loss=dropped drops the class, but the data have none: say what is dropped, as "
                "'loss.without={c: 0.0}', or leave it out."
            )
        told["without"] = {"y": classes}
    if told.get("_target_") == ONCE and told.get("without") is None:
        if not (conditional and classes):
            raise ValueError(
                "loss=guided learns what guidance by a class says, but this teacher takes no "
                "class: train one with conditional=true and loss=dropped."
            )
        told["without"] = {"y": classes}
    return told


def guide_of(node: Mapping[str, Any] | None, run: Run, packages: Sequence[str] = ()) -> Guide:
    """What a configuration's ``guidance`` makes of a model: one wrapper, or several by name, from
    the inside out.

    A ``without`` that is null is the label of no class. ValueError where the run's model takes no
    class, or was never trained without one, and for what is no wrapper.
    """
    nodes = [] if not node else [node] if "_target_" in node else list(node.values())
    for each in nodes:
        if not isinstance(each, Mapping) or "_target_" not in each:
            raise ValueError(
                f"guidance is one of its group, as guidance=cfg, or several by name, not {node!r}."
            )
    wrappers = [wrapper(each, run, packages) for each in nodes]

    def guide(model: Any) -> Any:
        for wrap in wrappers:
            model = wrap(model)
        return model

    return guide


def wrapper(node: Mapping[str, Any], run: Run, packages: Sequence[str]) -> Guide:
    """What one node makes of a model; a judge is fitted to the run, and kept with it."""
    if "without" in node:
        node = {**node, "without": null_of(node["without"], run)}
    made = build(node, packages)
    if node["_target_"] != JUDGED:
        return made  # type: ignore[no-any-return]
    if not node.get("conditional"):
        null_of(None, run)  # or there is no model without a class to guide
    return made(run, packages)  # type: ignore[no-any-return]


def null_of(without: Mapping[str, Any] | None, run: Run) -> Mapping[str, Any]:
    """What stands for no condition: as it was said, or the label of no class; ValueError for one
    that the run was never trained with."""
    trained = dropped_of(run.config["loss"])
    if without is None and not run.counts:
        raise ValueError(
            "This guidance needs a model that takes a class, but the run's takes none: train one "
            "with conditional=true and loss=dropped, or say without={...} yourself."
        )
    if without is None:
        without = {"y": len(run.counts)}
    ours = str(run.config["loss"].get("_target_")).startswith("sdegen.")
    for name, value in without.items():
        if trained.get(name) != value and (ours or trained):
            said = ", ".join(f"{n} by {v}" for n, v in trained.items()) or "nothing"
            raise ValueError(
                f"This guidance asks for the model with {name} = {value}, as which the run was "
                f"never trained: it dropped {said}. Train one with loss=dropped."
            )
    return without


def dropped_of(node: Any) -> dict[str, Any]:
    """What a loss's node drops, and puts in its place."""
    if not isinstance(node, Mapping):
        return {}
    found: dict[str, Any] = {}
    for part in node.values():
        found |= dropped_of(part)
    if node.get("_target_") == DROPPED:
        p = node.get("p")
        chances = p if isinstance(p, Mapping) else dict.fromkeys(node["without"] or {}, p)
        found |= {n: v for n, v in (node["without"] or {}).items() if chances.get(n)}
    return found

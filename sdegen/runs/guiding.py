"""Guidance of a run's model, as a configuration says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sdegen.runs.build import build
from sdegen.runs.folder import Run
from sdegen.runs.telling import null_condition, without_text

DROPPED = "sdegen.losses.dropped"
ONCE = "sdegen.distill.GuidedOnce"
JUDGED = "sdegen.runs.judging.classified"
DESCRIBED = "sdegen.runs.judging.described"

Guide = Callable[[Any], Any]
"""A model -> a model made of it."""


def with_null(node: Any, null: Mapping[str, Any] | None, conditional: bool) -> Any:
    """A loss's node that drops conditions to the null one, the label of no class or a caption
    without tokens, where it does not say to what; of a model that takes none the loss inside,
    which is all that is left of it.

    ValueError for data without classes.
    """
    if not isinstance(node, Mapping):
        return node
    told = {key: with_null(part, null, conditional) for key, part in node.items()}
    if told.get("_target_") == DROPPED and told.get("without") is None:
        if null is None and not conditional:
            return told["loss"]
        if null is None:
            raise ValueError(
                "loss=dropped drops the class, but the data have none: say what is dropped, as "
                "'loss.without={c: 0.0}', or leave it out."
            )
        told["without"] = dict(null)
    if told.get("_target_") == ONCE and told.get("without") is None:
        if null is None or "y" not in null:
            raise ValueError(
                "loss=guided learns what guidance by a class says, but this teacher takes no "
                "class: train one with conditional=true and loss=dropped."
            )
        told["without"] = dict(null)
    return told


def guide_of(node: Mapping[str, Any] | None, run: Run, packages: Sequence[str] = ()) -> Guide:
    """What a configuration's ``guidance`` makes of a model: one wrapper, or several by name, from
    the inside out.

    A ``without`` that is null is the null condition, the label of no class or a caption without
    tokens; its ``prompt`` is a negative one. ValueError where the run's model takes no condition,
    or was never trained without one, and for what is no wrapper.
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
    if node["_target_"] not in (JUDGED, DESCRIBED):
        return build(node, packages)  # type: ignore[no-any-return]
    # A judge's network is built where the run's shape is known.
    made = build({name: value for name, value in node.items() if name != "net"}, packages)
    if not node.get("conditional"):
        null_of(None, run)  # or there is no model without a condition to guide
    return made(run, packages, net=node.get("net"))  # type: ignore[no-any-return]


def null_of(without: Mapping[str, Any] | None, run: Run) -> Mapping[str, Any]:
    """What stands for no condition: as it was said, or the run's null condition; ValueError for
    one that the run was never trained with. A negative prompt is a caption as others are."""
    if without is not None and "prompt" in without:
        return without_text(without, run.text)
    trained = dropped_of(run.config["loss"])
    null = null_condition(run.text is not None, len(run.counts))
    if without is None and null is None:
        raise ValueError(
            "This guidance needs a model that takes a class or a text, but the run's takes none: "
            "train one with conditional=true and loss=dropped, or say without={...} yourself."
        )
    if without is None:
        without = null or {}
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

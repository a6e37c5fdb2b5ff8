"""Second outputs: a run of two heads is sampled by what its second one was trained to say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

LEARNED = "LearnedVariance"


def with_head(solver: Any, theirs: Mapping[str, Any], folder: Path) -> Any:
    """A solver's node, where it is a learned variance with the head that the run was trained with.

    theirs: the configuration of the run in the folder.  ValueError for a run without a second
    output, for another head than its own, and where no loss of sdegen's says which that is.
    """
    if name_of(solver) != LEARNED:
        return solver
    if not theirs.get("head_net") and int(theirs["model"].get("heads", 1)) != 2:
        raise ValueError(
            f"solver=learned_variance draws by a network's second output, and the run in {folder} "
            f"has none: train one, by experiment=heads/residual teacher.run={folder}, or with "
            "the mean, by experiment=heads/iddpm."
        )
    own, said = head_in(theirs["loss"]), solver.get("head")
    if said is not None and not isinstance(said, Mapping):
        raise ValueError(
            f"solver.head is {said!r}, but it is the node of a head: leave it out, or say "
            "solver.head._target_=sdegen.solvers.Range, or Square, or Residual."
        )
    if own is None and said is None:
        raise ValueError(
            f"The loss of the run in {folder} does not say what its second output is: say "
            "'solver.head={_target_: sdegen.solvers.Range}', or Square, or Residual."
        )
    if own is not None and said is not None and name_of(said) != name_of(own):
        raise ValueError(
            f"The second output of the run in {folder} was trained as {name_of(own)} has it, not "
            f"{name_of(said)}: leave out solver.head."
        )
    return {**solver, "head": said or own}


def compared_with_head(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration of ``sdegen-train`` whose learned variances have the head that its loss
    trains, in it or inside it; ValueError as of ``with_head``."""
    evaluate = config["evaluate"]
    solvers = {
        name: with_head(node, config, folder)
        for name, node in (evaluate.get("solvers") or {}).items()
    }
    return {**config, "evaluate": {**evaluate, "solvers": solvers}}


def with_levels(node: Any, levels: int) -> Any:
    """A loss's node in which ``levels=auto`` is the number of values that the data have: of the
    bound alone, on which ``Range`` is trained, and None inside ``dequantised``, which spreads
    them."""
    if not isinstance(node, Mapping):
        return node
    inside = 0 if name_of(node) == "dequantised" else levels
    told = {key: with_levels(part, inside) for key, part in node.items()}
    if told.get("levels") == "auto" and "head" in told:
        told["levels"] = levels or None if name_of(told.get("head")) == "Range" else None
    return told


def head_in(loss: Any) -> Any:
    """The node of the head that a loss's node trains, in it or inside it; None where there is
    none."""
    if not isinstance(loss, Mapping):
        return None
    return loss.get("head") or head_in(loss.get("loss"))


def name_of(node: Any) -> str:
    """The class of a node, wherever it is taken from."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    return str(target).rpartition(".")[2]

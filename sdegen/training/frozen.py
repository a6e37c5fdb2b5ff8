"""What trains of a model and what does not: adapters and controls over a base that stays.

A base that is frozen is not copied for averages and not written into checkpoints; these say what
it was, in a few letters that only its weights have.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

from torch import Tensor, nn

from sdegen.files import content

FROZEN = "frozen"
"""Under which a file says what the weights were that it does not have."""


def frozen_in(module: nn.Module) -> dict[str, Tensor]:
    """The parameters of a module that take no gradients, by name."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: weight.detach() for name, weight in named if not weight.requires_grad}


def content_of_frozen(module: nn.Module) -> str | None:
    """The parameters that take no gradients in a few letters; None where all do."""
    found = frozen_in(module)
    return content(found) if found else None


def own_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's state without its frozen parameters."""
    left = frozen_in(module).keys()
    return {name: value for name, value in module.state_dict().items() if name not in left}


def whole_state(module: nn.Module, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An ``own_state`` with the frozen parameters that a module has."""
    return {**frozen_in(module), **own}


def copied(module: nn.Module, share: bool = True) -> nn.Module:
    """A copy of a module that has the same frozen parameters, in the same memory; ``share`` false:
    a copy of all."""
    weights = module.parameters() if share else ()
    return deepcopy(module, {id(each): each for each in weights if not each.requires_grad})


def refuse_other_base(path: Path, saved: str | None, here: str | None) -> None:
    """ValueError for a file of weights over another base than the one at hand."""
    if saved != here:
        said = "has none that are" if here is None else f"has {here}"
        raise ValueError(
            f"{path} holds what was trained over frozen weights {saved}, but the model here "
            f"{said} frozen: begin with the same base, or anew (name=...)."
        )

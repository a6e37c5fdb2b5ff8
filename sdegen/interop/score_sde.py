"""Checkpoints of score_sde_pytorch, Song et al. (2021): their averages, into a network of theirs.

The network's code is theirs, or yours with its parameters in their order; what it is a model of is
said by hand: ``ScoreModel(net, VESDE(0.01, 50), "score", time="sigma")`` of an NCSN++ that divides
by sigma itself, ``ScoreModel(net, VPSDE(), "eps", time="999t")`` of a DDPM++.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def load_ema(path: str | Path, net: nn.Module, *, averaged: bool = True) -> int:
    """Put a checkpoint's weights into a network, and say of which step they are.

    The file has "model", the network's state by name, with or without DataParallel's "module.";
    "ema" with "shadow_params", the averages of the parameters that are trained, in their order;
    and "step". Buffers come from "model".

    averaged: the averages, or the weights as the optimiser left them.

    Only tensors and plain values are read (``weights_only``): a file that would execute anything
    is refused. ValueError for a file that is missing, damaged or of another network, or whose
    weights are not finite; the network is then left as it was.
    """
    path = Path(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"There is no checkpoint {path}.") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as a checkpoint of tensors: {reason}") from error
    if not isinstance(found, dict) or "model" not in found or "ema" not in found:
        names = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            f"A checkpoint of score_sde has model, ema and step, but {path}: {names}."
        )
    if not named_tensors(found["model"]):
        raise ValueError(
            f'"model" of {path} is a network\'s state, tensors by their names, but it is of '
            f"{type(found['model']).__name__}."
        )
    state = {name.removeprefix("module."): each for name, each in found["model"].items()}
    if averaged:
        trained = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
        state |= averages(trained, found["ema"], path)
    wrong = {*state} ^ {*net.state_dict()} or {
        name for name, each in net.state_dict().items() if each.shape != state[name].shape
    }
    if wrong:
        raise ValueError(
            f"{path} is of another network: {', '.join(sorted(wrong)[:3])} "
            f"{'and others ' if len(wrong) > 3 else ''}differ."
        )
    sick = [name for name, each in state.items() if not bool(each.isfinite().all())]
    if sick:
        raise ValueError(f"{path} has weights that are not finite, of {', '.join(sick[:3])}.")
    step = found.get("step", 0)
    if isinstance(step, bool) or not isinstance(step, int):
        raise ValueError(f'"step" of {path} is a whole number, but it is {step!r:.60s}.')
    net.load_state_dict(state)
    return step


def named_tensors(given: Any) -> bool:
    """Whether something is tensors by their names."""
    return isinstance(given, Mapping) and all(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in given.items()
    )


def averages(trained: Iterable[tuple[str, Tensor]], ema: Any, path: Path) -> dict[str, Tensor]:
    """An "ema" as its averages by the names of the parameters whose they are; ValueError where
    they are not."""
    given = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(given, list | tuple) or not all(isinstance(a, Tensor) for a in given):
        what = ", ".join(map(str, ema)) if isinstance(ema, Mapping) else type(ema).__name__
        raise ValueError(
            f'"ema" of {path} has "shadow_params", a list of tensors, but it has '
            f"{what or 'nothing'}: averaged=False takes the weights themselves."
        )
    known = list(trained)
    if [p.shape for _, p in known] != [a.shape for a in given]:
        raise ValueError(
            f"{path} has averages of {len(given)} parameters, whose shapes are not those of the "
            f"network's {len(known)}: they are matched by their order."
        )
    return {name: average for (name, _), average in zip(known, given, strict=True)}

"""Checkpoints of score_sde_pytorch, Song et al. (2021): their averages, into a network of theirs.

The network's code is theirs, or yours with its parameters in their order; what it is a model of is
said by hand: ``ScoreModel(net, VESDE(0.01, 50), "score", time="sigma")`` of an NCSN++ that divides
by sigma itself, ``ScoreModel(net, VPSDE(), "eps", time="999t")`` of a DDPM++.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sdegen.checks import flag

SCALAR = np.float64(0).__reduce__()[0]
"""What numbers of NumPy are made by, in files of NumPy 1 and 2."""
NUMBERS: tuple[Any, ...] = (
    *((SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefd"}),
)
"""What a file may ask for beside tensors and plain values: numbers of NumPy."""
WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before names."""


def load_ema(path: str | Path, net: nn.Module, *, averaged: bool = True) -> int:
    """Put a checkpoint's weights into a network, and say of which step they are.

    The file has "model", the network's state by name, with or without DataParallel's "module."
    and torch.compile's "_orig_mod."; "ema" with "shadow_params", the averages of the parameters
    that are trained, or of all, in their order; and "step". Buffers come from "model".

    averaged: the averages, or the weights as the optimiser left them, for which no "ema" is asked.

    Only tensors, numbers and plain values are read (``weights_only``): a file that would execute
    anything is refused. ValueError for a file that is missing, damaged or of another network, or
    whose weights are not finite; the network is then left as it was.
    """
    path, needed = Path(path), ("model", "ema") if flag("averaged", averaged) else ("model",)
    found = read(path)
    if not isinstance(found, dict) or any(name not in found for name in needed):
        names = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise ValueError(
            f"A checkpoint of score_sde has model, ema and step, but {path}: {names:.200s}."
        )
    if not named_tensors(found["model"]):
        raise ValueError(
            f'"model" of {path} is a network\'s state, tensors by their names, but it is of '
            f"{type(found['model']).__name__}."
        )
    known = net.state_dict()
    state = {bare(name, known): each for name, each in found["model"].items()}
    if averaged:
        state |= averages(net, found["ema"], path)
    wrong = {*state} ^ {*known} or {n for n in known if known[n].shape != state[n].shape}
    if wrong:
        raise ValueError(
            f"{path} is of another network: {', '.join(sorted(wrong)[:3])} "
            f"{'and others ' if len(wrong) > 3 else ''}differ."
        )
    sick = [name for name, each in state.items() if not bool(each.isfinite().all())]
    if sick:
        raise ValueError(f"{path} has weights that are not finite, of {', '.join(sick[:3])}.")
    step = step_of(found.get("step", 0), path)
    net.load_state_dict(state)
    return step


def read(path: Path) -> Any:
    """What a file holds; ValueError where it is missing, damaged, or would execute anything."""
    try:
        with torch.serialization.safe_globals([*NUMBERS]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"There is no checkpoint {path}.") from None
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            reason = f"it asks for {asked[1]}, and nothing but tensors and plain values is read"
        raise ValueError(f"{path} cannot be read as a checkpoint of tensors: {reason}.") from error


def bare(name: str, known: Mapping[str, Any]) -> str:
    """A name without what wrappers put before it, as a network has it."""
    while name not in known and name.startswith(WRAPPERS):
        name = name.partition(".")[2]
    return name


def step_of(given: Any, path: Path) -> int:
    """A step as a whole number, of whatever kind it was saved as."""
    one = isinstance(given, np.generic) or (isinstance(given, Tensor) and given.numel() == 1)
    value = given.item() if one else given
    whole = not isinstance(value, bool) and isinstance(value, int | float) and value % 1 == 0
    if not whole:
        raise ValueError(f'"step" of {path} is a whole number, but it is {given!r:.60s}.')
    return int(value)


def named_tensors(given: Any) -> bool:
    """Whether something is tensors by their names."""
    return isinstance(given, Mapping) and all(
        isinstance(name, str) and isinstance(each, Tensor) for name, each in given.items()
    )


def averages(net: nn.Module, ema: Any, path: Path) -> dict[str, Tensor]:
    """An "ema" as its averages by the names of the parameters whose they are, of all their names
    where they have several; ValueError where they are not.

    (torch_ema of before averages what is trained, and of since then all.)
    """
    given = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(given, list | tuple) or not all(isinstance(a, Tensor) for a in given):
        what = ", ".join(map(str, ema)) if isinstance(ema, Mapping) else type(ema).__name__
        raise ValueError(
            f'"ema" of {path} has "shadow_params", a list of tensors, but it has '
            f"{what or 'nothing'}: averaged=False takes the weights themselves."
        )
    every = list(net.parameters())
    trained = [each for each in every if each.requires_grad]
    of = every if len(given) == len(every) else trained
    if [p.shape for p in of] != [a.shape for a in given]:
        raise ValueError(
            f"{path} has averages of {len(given)} parameters, whose shapes are not those of the "
            f"network's {len(trained)}: they are matched by their order."
        )
    averaged = {id(p): a for p, a in zip(of, given, strict=True)}
    named = net.named_parameters(remove_duplicate=False)
    return {name: averaged[id(p)] for name, p in named if id(p) in averaged}

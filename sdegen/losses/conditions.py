"""Conditions in training: dropped now and then, so that one network is several models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import number
from sdegen.model.network import in_place_of


def dropped(
    model: Any,
    x0: Tensor,
    *,
    loss: Callable[..., Tensor],
    p: float | Mapping[str, float],
    without: Mapping[str, Any],
    together: bool = True,
    where: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A loss (b,) of a model whose conditions are dropped with probability p, sample by sample.

    So one network is the conditional model and the others that ``CFG`` takes.  Ho & Salimans
    (2022), alg. 1.

    without:  what stands in the place of a dropped condition, by name: a number, or a tensor that
              broadcasts to it, as a learned or an empty text. Conditions not named stay.
    p:        of all at once; or, with ``together=False``, of each by itself, of k conditions k
              numbers by name where they differ: all are then gone with the product's probability.
    where:    of the loss, which takes it, as ``dsm_loss`` does.

    The draws are torch's generator's, or those of ``generator``, on x0's device. They do not
    shift the loss's own: p = 0 and p = 1 are the losses of the models with and without, bit for
    bit.  ValueError for a condition that the model was not given, a value that does not stand in
    its place, and p outside [0, 1].
    """
    conditions: Mapping[str, Any] = model.conditions
    if missing := [name for name in without if not isinstance(conditions.get(name), Tensor)]:
        raise ValueError(
            f"dropped puts a null in the place of {', '.join(missing)}, but the model was given "
            f"{', '.join(conditions) or 'no condition'}: give tensors, or leave it out."
        )
    if isinstance(p, Mapping) and (together or p.keys() != without.keys()):
        raise ValueError("p by name takes together=False, and a number for each that is dropped.")
    chances = p if isinstance(p, Mapping) else dict.fromkeys(without, p)
    for each in chances.values():
        if not 0 <= number("p", each) <= 1:
            raise ValueError(f"p lies in [0, 1], but it is {each!r}.")
    draws = generator_apart(x0.device) if generator is None else generator
    u = torch.rand(len(x0), device=x0.device, generator=draws)
    changed = {}
    for name, value in without.items():
        old = conditions[name]
        new = in_place_of(old, value, f"dropped: {name}")
        gone = (u < chances[name]).reshape(-1, *[1] * (old.ndim - 1))
        changed[name] = torch.where(gone, new, old)
        if not together:
            u = torch.rand(len(x0), device=x0.device, generator=draws)
    part = loss if where is None else partial(loss, where=where)
    found = part(model.given(**changed), x0)
    if generator is None:
        torch.randint(2, ())  # after the loss: where it draws elsewhere, the next call differs too
    return found


def generator_apart(device: torch.device) -> torch.Generator:
    """A generator that torch's own decides about and is not moved by."""
    with torch.random.fork_rng(devices=[]):  # the host's, which a seed draws from without waiting
        seed = int(torch.randint(2**62, ()))
    return torch.Generator(device).manual_seed(seed)

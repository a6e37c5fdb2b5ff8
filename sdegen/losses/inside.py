"""Losses inside others, as ``dropped``, ``paired`` and ``Uncertainty`` hold them."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from torch import nn


def inner_of(loss: Any) -> tuple[str, Any]:
    """The loss inside another one, and its place: ``loss``, as ``dropped`` and ``Uncertainty``
    hold it, or ``func`` of a partial; None where there is none."""
    if isinstance(loss, functools.partial):
        inner = loss.keywords.get("loss")
        return ("func", loss.func) if inner is None else ("loss", inner)
    if isinstance(loss, nn.Module):
        return "loss", getattr(loss, "loss", None)
    return "loss", vars(loss).get("loss") if is_dataclass(loss) else None


def layers(loss: Any) -> Iterator[Any]:
    """A loss, the one inside it, and so on."""
    while loss is not None:
        yield loss
        loss = inner_of(loss)[1]

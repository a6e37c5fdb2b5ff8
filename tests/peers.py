"""How other libraries' samplers are run on our levels, on our noise and in float64."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from torch import Tensor

import sdegen as sg

Output = Callable[[Tensor, sg.Level], Tensor]


def plain(x: Tensor) -> Tensor:
    """The state as an ordinary tensor."""
    return x.as_subclass(Tensor)


def scheduler(name: str, n: int, **config: Any) -> Any:
    """diffusers' scheduler of that name, set to n steps and to begin with the first."""
    import diffusers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "algorithm_type dpmsolver is deprecated"
        warnings.filterwarnings("ignore", "__array", DeprecationWarning)  # numpy 2, of tensors
        made = getattr(diffusers, f"{name}Scheduler")(**config)
        made.set_timesteps(n)
    if hasattr(made, "set_begin_index"):
        made.set_begin_index(0)
    made.is_scale_input_called = True  # we do not scale, and need no reminder
    return made


def follow(
    theirs: Any,
    output: Output,
    x: Tensor,
    stops: Sequence[sg.Level],
    draws: Iterator[Tensor],
    **how: Any,
) -> Tensor:
    """Where diffusers' loop ends; stops are the levels at which it asks the network."""
    module = sys.modules[type(theirs).__module__]
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array", DeprecationWarning)  # numpy 2, of tensors
        if hasattr(module, "randn_tensor"):
            patch.setattr(module, "randn_tensor", lambda *a, **k: next(draws))
        for level, t in zip(stops, theirs.timesteps, strict=True):
            x = theirs.step(output(plain(x), level), t, x, **how).prev_sample
    return plain(x)

"""How other libraries' samplers are run on our levels, on our noise and in float64.

A difference is then one of formulas, and 1e-10 is far above rounding (the largest is 1e-12) and
far below any slip. What they ship as float32, their tables and time steps, is compared on its own,
where the first level's 1 - alpha^2 = 1e-4 keeps but three digits.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.sde.level import Level
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import Form
from sdegen.walks.grids import linspace
from tests.cases import close, normal

Output = Callable[[Tensor, sg.Level], Tensor]
N = 12
START = normal(6, 2, seed=3)
DRAWS = [normal(6, 2, seed=100 + i) for i in range(2 * N)]
KEEP = {"lower_order_final": False}
END = {**KEEP, "final_sigmas_type": "sigma_min"}
HEUN = {"solver_type": "heun"}


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


def same(a: Tensor, b: Tensor, rtol: float = 1e-10) -> None:
    """Equal relative to the largest entry."""
    close(a, b, rtol=0, atol=rtol * float(b.abs().max()))


def stack(levels: Sequence[Level], name: str) -> Tensor:
    """One curve at all the levels."""
    return torch.stack([getattr(level, name) for level in levels])


@cache
def walk_of(sde: sg.LinearSDE) -> list[Level]:
    """Their time steps on VP, even ones elsewhere: uneven in lam, where the methods live."""
    grid = linspace if isinstance(sde, sg.DiscreteVPSDE) else sg.walks.uniform
    return sg.walks.levels(sde, grid(sde, N))  # type: ignore[return-value]


class Case(NamedTuple):
    """A solver of ours and the scheduler that it must agree with."""

    ours: sg.Solver
    eta: float
    name: str
    config: dict[str, Any]


def one_path(p: Reverse, form: Form, fine: Sequence[Level], k: int) -> list[Tensor]:
    """The noise of each move from a step's start to its stages and end, of the path that ours
    draws piece by piece. (Left to itself diffusers draws them apart from each other.)
    """
    moves, pieces = [], iter(DRAWS)
    for i in range(0, len(fine) - 1, k):
        noise = torch.zeros_like(START)
        for r, m in pairwise(fine[i : i + k + 1]):
            noise = form.carry(p, r, m) * noise + form.std(p, r, m) * next(pieces)
            moves.append(noise / form.std(p, fine[i], m))
    return moves

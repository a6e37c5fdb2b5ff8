"""Programs of solvers, traced once and remembered where nothing can change."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from sdegen.checks import fixed, one_of
from sdegen.model.denoiser import Denoiser
from sdegen.model.prediction import PREDICTIONS, Target
from sdegen.programs.planner import Planner, read, simplify
from sdegen.programs.program import Program, has_own_view
from sdegen.programs.trace import NotLinear, trace
from sdegen.sde.process import SDE
from sdegen.solvers.equation import Eta
from sdegen.solvers.solver import Solver
from sdegen.walks.walk import levels

# -------------------------------------------------------------------------------- from the solver


def traced(
    solver: Solver,
    sde: SDE,
    times: Tensor,
    eta: Eta | None = None,
    *,
    predicts: str | Target = "eps",
) -> Program:
    """The program of a solver on a walk of times (n + 1,), for networks that predict so.

    eta: default the solver's.  NotLinear with the reason if the solver's step is not linear;
    ValueError if it cannot take this equation or this walk.
    """
    walk = levels(sde, times)
    target = one_of(predicts, "prediction", PREDICTIONS) if isinstance(predicts, str) else predicts
    tape = trace(solver, sde, walk, eta, target=target)
    return Planner(tape, simplify(tape, read(tape))).program(walk)


def programmed(solver: Solver, model: Denoiser, eta: Eta, times: Tensor) -> Program | None:
    """The program of ``solve``, None where there is none: the plain loop then does the same.

    What cannot change, as a frozen dataclass of numbers, is traced once and remembered.
    """
    if has_own_view(model):
        return None
    key = (solver, model.sde, listed(eta), model.target)
    return (remembered if fixed(key) else attempted)(*key, tuple(times.tolist()))


def attempted(
    solver: Solver, sde: SDE, eta: Eta, target: Target, times: tuple[float, ...]
) -> Program | None:
    """The program, or None."""
    try:
        return traced(solver, sde, torch.tensor(times, dtype=torch.float64), eta, predicts=target)
    except NotLinear:
        return None


remembered = lru_cache(maxsize=128)(attempted)
"""Some 10 KiB a step, tensors and all: a MiB for 100 steps of a multistep method."""


def listed(eta: Eta) -> Eta:
    """An eta per step as a tuple."""
    return tuple(eta) if isinstance(eta, Sequence) else eta

"""Solvers as tables: every state a solver makes, as numbers times what it was made from.

``tabulate`` needs no network. What a table says of a method (is it consistent, of which order,
the same as another, stable) holds for every network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import one_of
from sdegen.model.prediction import PREDICTIONS
from sdegen.programs.planner import read, simplify
from sdegen.programs.program import ONE, Row
from sdegen.programs.registers import Call, Draw, Start, Terms, terms_of
from sdegen.programs.trace import Tape, trace
from sdegen.sde.level import Instant, Level
from sdegen.sde.process import SDE
from sdegen.sde.song import VPSDE
from sdegen.solvers.budget import walk_for
from sdegen.solvers.equation import Eta
from sdegen.solvers.solver import Solver, check_solver
from sdegen.walks.grids import WalkLike
from sdegen.walks.walk import Walk


@dataclass(frozen=True, eq=False)
class Table:
    """What a solver computes along a walk, float64 on the CPU.

    levels:  of the n network calls, in their order.
    columns: what states are made from: "x0" the start, "F1" ... "Fn" the network's outputs, "z1"
             ... the draws, "1" a constant; c of them.
    inputs:  the state of each call as a combination of these, (n, c).
    states:  the state at the end of each step, (steps, c).
    text:    the lines as the solver made them, each state from the one before.
    """

    levels: tuple[Instant, ...]
    columns: tuple[str, ...]
    inputs: Tensor
    states: Tensor
    text: str

    def __str__(self) -> str:
        return self.text

    def distance(self, other: Table) -> float:
        """How far apart two methods are: the largest difference of their coefficients.

        Relative to the largest coefficient. ValueError if they do not call the network, draw or
        stop equally often, or call it at other times.
        """
        if self.columns != other.columns or len(self.states) != len(other.states):
            raise ValueError(
                f"Tables are compared column by column, but one has {describe(self)}, the other "
                f"{describe(other)}."
            )
        mine, theirs = (
            torch.stack([level.t for level in table.levels]) for table in (self, other)
        )
        if not torch.allclose(mine, theirs, rtol=1e-9, atol=0.0):
            raise ValueError("The two methods call the network at different times.")
        a, b = (torch.cat([table.inputs, table.states]) for table in (self, other))
        return float((a - b).abs().max() / a.abs().max())

    def follow(
        self, F: Callable[[Tensor, Instant], Tensor], x: Tensor, z: Sequence[Tensor] = ()
    ) -> Tensor:
        """The states (steps, b, *) from x (b, *), with outputs F(x, level), draws z or none.

        The slow way, term by term, for looking at methods.
        """
        draws = sum(name.startswith("z") for name in self.columns)
        nothing = torch.zeros_like(x)
        known = [x, *[nothing] * len(self.levels), *(z or [nothing] * draws), torch.ones_like(x)]
        for i, level in enumerate(self.levels):
            known[1 + i] = F(torch.tensordot(self.inputs[i], torch.stack(known), 1), level)
        return torch.tensordot(self.states, torch.stack(known), 1)


def describe(table: Table) -> str:
    """How many calls, draws and steps."""
    draws = sum(name.startswith("z") for name in table.columns)
    return f"{len(table.levels)} calls, {draws} draws and {len(table.states)} steps"


def tabulate(
    solver: Solver,
    walk: int | WalkLike | Sequence[Instant] | None = None,
    sde: SDE | None = None,
    *,
    steps: int | None = None,
    nfe: int | None = None,
    eta: Eta | None = None,
    predicts: str = "x0",
) -> Table:
    """What a solver computes along a walk, for ``print`` and for comparing.

    walk:     times (n + 1,), their levels or a ``Walk``; a number of steps; or a grid, with
              ``steps`` or ``nfe``. By default five steps, unless the solver comes with its own.
    sde:      default VPSDE().  eta: default the solver's.
    predicts: what the network's output F is: "x0", "eps", "score", "v" or "velocity".

    NotLinear, a ValueError, with the reason if the solver's steps are not linear.
    """
    sde = VPSDE() if sde is None else sde
    stops = stopped(solver, sde, walk, steps, nfe)
    target = one_of(predicts, "prediction", PREDICTIONS)
    tape = trace(solver, sde, stops, eta, target=target)
    shown = solver.eta if eta is None else eta
    head = f"{solver} on {sde}, eta = {shown}; F is the network's {predicts}"
    rows, columns = dense(tape)
    calls = [register for register in tape.registers if isinstance(register, Call)]
    return Table(
        tuple(call.level for call in calls),
        columns,
        torch.stack([combined(call.input, rows) for call in calls]),
        torch.stack([rows[i] for i in tape.states]),
        "\n".join([head, *listing(tape, simplify(tape, read(tape), copy=False), stops)]),
    )


def stopped(
    solver: Solver, sde: SDE, walk: Any, steps: int | None, nfe: int | None
) -> Sequence[Instant]:
    """The levels that a solver stops at, however its walk was said."""
    if isinstance(walk, Sequence) and len(walk) and isinstance(walk[0], Instant):
        return walk
    if isinstance(walk, int):
        walk, steps = None, walk
    if isinstance(walk, Tensor | Sequence) and not isinstance(walk, str):
        times = Walk(sde, walk)  # type: ignore[arg-type]
        if nfe is None and steps in (None, times.steps):
            return times  # a solver's own too
    check_solver(solver)
    if steps is None and nfe is None and solver.traits.own_walk is None:
        steps = 5
    return walk_for(solver, sde, steps=steps, nfe=nfe, walk=walk)


def combined(terms: Terms, rows: Sequence[Tensor]) -> Tensor:
    """A combination of registers, by their own rows (c,) each."""
    total = torch.zeros_like(rows[0])
    for j, c in terms.items():
        total = total + c * rows[j]
    return total


def dense(tape: Tape) -> tuple[list[Tensor], tuple[str, ...]]:
    """Every register by the start, the outputs, the draws and one, (c,) each; and these columns.

    With gradients where the tape's coefficients have them.
    """
    kinds = [type(register) for register in tape.registers]
    order = [i for kind in (Start, Call, Draw) for i, k in enumerate(kinds) if k is kind] + [ONE]
    place = {register: column for column, register in enumerate(order)}
    unit, rows = torch.eye(len(order), dtype=torch.float64), list[Tensor]()
    for i, register in enumerate(tape.registers):
        rows.append(unit[place[i]] if i in place else combined(terms_of(register), rows))
    return rows, tuple(names(tape)[i] for i in order)


def names(tape: Tape) -> dict[int, str]:
    """What registers are called: states x, outputs F, draws z, what is remembered m."""
    known, count = {0: "x0", ONE: "1"}, dict.fromkeys("xFzm", 0)
    for i, register in enumerate(tape.registers[2:], 2):
        kind = "F" if isinstance(register, Call) else "z" if isinstance(register, Draw) else "m"
        kind = "x" if i in tape.states else kind
        count[kind] += 1
        known[i] = f"{kind}{count[kind]}"
    return known


def listing(tape: Tape, rows: dict[int, Row], stops: Sequence[Instant]) -> list[str]:
    """The lines of a table: each call with its level and state, each state with its terms."""
    called, ends = names(tape), iter(stops[1:])
    lines = ["", f"{'':6s}{'t':>12s}{'lam':>10s}"]
    for i, register in enumerate(tape.registers):
        if i not in rows:
            continue
        said = " ".join(f"{signed(c)}{called[j]}" for j, c in rows[i].items()).lstrip("+") or "0"
        if isinstance(register, Call):
            lines.append(f"{called[i]:6s}{where(register.level)}   network at {said}")
        elif i in tape.states:
            lines.append(f"{called[i]:6s}{where(next(ends))}   = {said}")
        else:
            lines.append(f"{called[i]:6s}{'':22s}   = {said}")
    return lines


def signed(c: float) -> str:
    """A coefficient before a name."""
    return "+" if c == 1.0 else f"{c:+.6g} "


def where(level: Instant) -> str:
    """A level's t and lam in columns."""
    lam = f"{float(level.lam):10.4f}" if isinstance(level, Level) else " " * 10
    return f"{float(level.t):12.6g}{lam}"

"""A traced solver as a straight-line program: buffers planned ahead, combinations done in place.

Between two network calls a program makes the combinations that the solver's steps are, with
coefficients known before the loop: the first term scaled in place, the others added with their
factor. Nothing is read back from the device, no temporary is made, and the buffers are as many as
the states that must live at once, whatever the number of steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.grids import levels
from sdegen.noise import Fresh, Noise
from sdegen.reverse import Eta
from sdegen.score import PREDICTIONS, ScoreModel, Target, label_dtype, one_of
from sdegen.sde import SDE, Instant
from sdegen.solvers.solver import Solver
from sdegen.trace import Call, Draw, Mix, NotLinear, Register, Tape, Terms, trace

ONE = 1
"""The register of the number one (trace.py)."""
Row = dict[int, float]


class Combine(NamedTuple):
    """values[out] = factor values[base] + the other terms + constant, in a buffer.

    In place where the base lives in that very buffer and is of no further use. ``drops``, here and
    below: the registers that nothing needs after this line.
    """

    out: int
    buffer: int
    base: int | None
    factor: float
    rest: tuple[tuple[int, float], ...]
    constant: float
    in_place: bool
    drops: tuple[int, ...] = ()


class Ask(NamedTuple):
    """values[out] = the network's output at values[input], call number i."""

    out: int
    input: int
    i: int
    drops: tuple[int, ...] = ()


class Take(NamedTuple):
    """values[out] = a draw."""

    out: int
    draw: Draw
    drops: tuple[int, ...] = ()


class Reach(NamedTuple):
    """A step has ended at values[state]."""

    state: int
    drops: tuple[int, ...] = ()


Line = Combine | Ask | Take | Reach


@dataclass(frozen=True, eq=False)
class Program:
    """What a solver does along a walk, as lines to be executed one after another.

    walk: the levels it stops at.  levels: of the network calls, in their order.  buffers: states
    that it allocates, the start and the network's last output not counted.
    """

    walk: tuple[Instant, ...]
    lines: tuple[Line, ...]
    levels: tuple[Instant, ...]
    buffers: int

    @cached_property
    def clock(self) -> Instant:
        """The levels of the network calls as one level of many times (n,)."""
        kind = type(self.levels[0])
        every = [[getattr(level, each.name) for level in self.levels] for each in fields(kind)]
        return kind(*map(torch.stack, every))

    def steps(self, model: ScoreModel, x: Tensor, noise: Noise | None = None) -> Iterator[Tensor]:
        """Run from x (b, *), which is left as it is, yielding the state at the end of each step.

        The state is a buffer that later steps write into: clone what is to be kept.
        """
        # As a decorator no_grad holds inside a generator and not between its yields, which costs
        # a little at every step: ``solve``, which holds it all the way, does without.
        yield from torch.no_grad()(self.execute)(model, x, noise)

    def execute(
        self, model: ScoreModel, x: Tensor, noise: Noise | None = None
    ) -> Iterator[Tensor]:
        """``steps`` for a caller who has switched gradients off."""
        noise = Fresh() if noise is None else noise
        values: dict[int, Tensor] = {0: x}
        buffers: list[Tensor | None] = [None] * self.buffers
        dtype = model.dtype or x.dtype
        exact, labels = label_dtype(dtype), model.labels(self.clock)
        # All labels at once where that is a copy within the host's memory; a fill each elsewhere.
        rows = torch.tensor(labels, dtype=exact)[:, None].repeat(1, len(x)).unbind()
        ready = rows if x.device.type == "cpu" else None
        scales = model.c_in(self.clock)
        c_in = None if scales is None else scales.tolist()
        wide = torch.empty_like(x, dtype=torch.float32) if x.element_size() < 4 else None
        b, size = len(x), x.numel() * x.element_size()
        for line in self.lines:
            if isinstance(line, Combine):
                out = buffers[line.buffer]
                if out is None:
                    out = buffers[line.buffer] = torch.empty_like(x)
                combine(line, values, out, wide)
                values[line.out] = out
            elif isinstance(line, Ask):
                state = values[line.input]
                i = line.i
                label = x.new_full((b,), labels[i], dtype=exact) if ready is None else ready[i]
                F = model.evaluate(state if c_in is None else state * c_in[i], label, dtype)
                # A network may hand back (a view of) the state, which will be written into.
                alias = 0 <= F.data_ptr() - state.data_ptr() < size
                values[line.out] = F.clone() if alias else F
            elif isinstance(line, Reach):
                yield values[line.state]
            else:
                values[line.out] = taken(line.draw, noise, x)
            for register in line.drops:
                del values[register]


def combine(line: Combine, values: dict[int, Tensor], out: Tensor, wide: Tensor | None) -> None:
    """One combination, into its buffer; in float32 for shorter types, and rounded once."""
    to, rest = out if wide is None else wide, line.rest
    if line.base is None:
        to.zero_()
    elif wide is not None:
        to.copy_(values[line.base]).mul_(line.factor)
    elif line.in_place:
        if line.factor != 1.0:
            to.mul_(line.factor)
    elif line.factor == 1.0 and rest:
        torch.add(values[line.base], values[rest[0][0]], alpha=rest[0][1], out=to)
        rest = rest[1:]
    else:
        torch.mul(values[line.base], line.factor, out=to)
    for register, c in rest:
        to.add_(values[register], alpha=c)
    if line.constant:
        to.add_(line.constant)
    if wide is not None:
        out.copy_(wide)


def taken(draw: Draw, noise: Noise, like: Tensor) -> Tensor:
    """A draw from the source's stream of its name."""
    for name in draw.streams:
        noise = noise.stream(name)
    return noise.area(like, draw.t, draw.s) if draw.area else noise(like, draw.t, draw.s)


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


def programmed(solver: Solver, model: ScoreModel, eta: Eta, times: Tensor) -> Program | None:
    """The program of ``solve``, None where there is none: the plain loop then does the same.

    What cannot change, as a frozen dataclass of numbers, is traced once and remembered.
    """
    kind = type(model)
    if kind.forward is not ScoreModel.forward or kind.call is not ScoreModel.call:
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


remembered = lru_cache(maxsize=64)(attempted)


def listed(eta: Eta) -> Eta:
    """An eta per step as a tuple."""
    return tuple(eta) if isinstance(eta, Sequence) else eta


def fixed(value: Any) -> bool:
    """True for what is bound to be the same tomorrow: numbers, and frozen dataclasses of them."""
    if isinstance(value, tuple):
        return all(map(fixed, value))
    if isinstance(value, FunctionType):
        return value.__module__.startswith("sdegen.") and value.__closure__ is None
    if is_dataclass(value) and not isinstance(value, type):
        how = type(value).__dataclass_params__  # type: ignore[attr-defined]
        known = {each.name: getattr(value, each.name) for each in fields(value)}
        # A subclass that is no dataclass may hold what no field tells of.
        return how.frozen and how.eq and vars(value) == known and all(map(fixed, known.values()))
    return value is None or isinstance(value, bool | int | float | str)


# ------------------------------------------------------------------------------ from tape to lines


def read(tape: Tape) -> dict[int, Row]:
    """Every combination's coefficients as floats, zeros left out; all read at once."""
    found = {i: terms_of(register) for i, register in enumerate(tape.registers)}
    flat = [
        torch.as_tensor(c, dtype=torch.float64).detach()
        for terms in found.values()
        for c in terms.values()
    ]
    numbers = iter(torch.stack(flat).tolist()) if flat else iter(())
    return {
        i: {j: c for j, c in zip(terms, numbers, strict=False) if c != 0.0}
        for i, terms in found.items()
    }


def terms_of(register: Register) -> Terms:
    """The combination in a register's definition, if there is one."""
    if isinstance(register, Call):
        return register.input
    return register.terms if isinstance(register, Mix) else {}


def simplify(tape: Tape, rows: dict[int, Row], copy: bool = True) -> dict[int, Row]:
    """The combinations that are made: unused ones gone, and those that only rename another.

    With ``copy`` a network's output that is remembered is a combination all the same: the network
    may write its next into the same memory.
    """
    states, needed = set(tape.states), set(tape.states)
    for i in reversed(range(len(tape.registers))):
        if i in needed or isinstance(tape.registers[i], Call):
            needed.update(rows[i])
    made: dict[int, Row] = {}
    renamed: dict[int, Row] = {}
    for i, register in enumerate(tape.registers):
        if not isinstance(register, Call | Mix) or not (i in needed or isinstance(register, Call)):
            continue
        row: Row = {}
        for j, c in rows[i].items():
            for k, d in renamed.get(j, {j: 1.0}).items():
                row[k] = row.get(k, 0.0) + c * d
        output = copy and any(isinstance(tape.registers[k], Call) for k in row)
        if isinstance(register, Mix) and i not in states and len(row) == 1 and not output:
            renamed[i] = row
        else:
            made[i] = row
    return made


class Planner:
    """Lays a tape's combinations out in lines and buffers."""

    def __init__(self, tape: Tape, rows: dict[int, Row]) -> None:
        self.tape, self.rows, self.lines = tape, rows, list[Line]()
        self.uses = Counter(j for row in rows.values() for j in row)
        self.uses.update(tape.states)
        self.buffer_of: dict[int, int] = {}
        self.free: list[int] = []
        self.buffers = 0
        self.scale: dict[int, float] = {}

    def program(self, walk: Sequence[Instant]) -> Program:
        """The lines, in the order in which the solver came to them."""
        levels: list[Instant] = []
        states, temporary = set(self.tape.states), len(self.tape.registers)
        for i, register in enumerate(self.tape.registers):
            if isinstance(register, Call):
                at = self.input(i, temporary + i)
                out = -i if i in self.outlive else i
                self.lines.append(Ask(out, at, len(levels)))
                levels.append(register.level)
                self.used(at)
                if out != i:
                    self.uses[out] = 1
                    self.combine(i, {out: 1.0}, scalable=False)
            elif isinstance(register, Draw):
                self.lines.append(Take(i, register))
            elif i in self.rows:
                self.combine(i, self.rows[i], scalable=i not in states)
                if i in states:
                    self.lines.append(Reach(i))
                    self.used(i)
            if not self.uses[i] and isinstance(register, Call | Draw):
                self.drop(i)
        return Program(tuple(walk), tuple(self.lines), tuple(levels), self.buffers)

    @cached_property
    def outlive(self) -> set[int]:
        """The outputs that are needed after another call, for which the network may reuse memory:
        they are copied.
        """
        calls = [i for i, register in enumerate(self.tape.registers) if isinstance(register, Call)]
        following = dict(pairwise(calls))
        users = [(j, i) for i, row in self.rows.items() for j in row if j in following]
        return {j for j, user in users if user > following[j]}

    def input(self, call: int, temporary: int) -> int:
        """The register of a call's state: one there is, or a combination made for it."""
        row = self.rows[call]
        if len(row) == 1:
            (j,) = row
            if row[j] * self.scale.get(j, 1.0) == 1.0 and j != ONE:
                return j
        self.uses[temporary] = 1
        self.combine(temporary, row, scalable=False)
        return temporary

    def combine(self, i: int, row: Row, scalable: bool) -> None:
        """The line of one combination; a remembered one is made up to a factor of its own."""
        row = {j: c * self.scale.get(j, 1.0) for j, c in row.items()}
        constant = row.pop(ONE, 0.0)
        own = next((j for j in row if self.uses[j] == 1 and j in self.buffer_of), None)
        base = next(iter(row), None) if own is None else own
        factor = 0.0 if base is None else row.pop(base)
        if scalable and own is not None and abs(factor) > 1e-4 * sum(map(abs, row.values())):
            # What uses it multiplies by the factor, and this line has a kernel less.
            self.scale[i], constant = factor, constant / factor
            row, factor = {j: c / factor for j, c in row.items()}, 1.0
        if own is not None:
            at = self.buffer_of.pop(own)
        else:
            at = self.free.pop() if self.free else self.buffers
            self.buffers = max(self.buffers, at + 1)
        self.buffer_of[i] = at
        rest = tuple(row.items())
        self.lines.append(Combine(i, at, base, factor, rest, constant, own is not None))
        for j in row if base is None else (base, *row):
            self.used(j)

    def used(self, j: int) -> None:
        """One use less; what nothing needs any more is forgotten, and its buffer free."""
        self.uses[j] -= 1
        if not self.uses[j]:
            self.drop(j)
            if j in self.buffer_of:
                self.free.append(self.buffer_of.pop(j))

    def drop(self, j: int) -> None:
        """The last line so far is the last that needs it."""
        line = self.lines.pop()
        self.lines.append(line._replace(drops=(*line.drops, j)))

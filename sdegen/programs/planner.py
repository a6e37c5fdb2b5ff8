"""From a tape to a program: combinations laid out in lines and buffers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

from torch import Tensor

from sdegen.programs.program import ONE, Ask, Combine, Line, Program, Reach, Row, Take
from sdegen.programs.registers import Call, Draw, Mix, terms_of, value
from sdegen.programs.trace import Tape
from sdegen.sde.level import Instant

# ------------------------------------------------------------------------------ from tape to lines


def read(tape: Tape) -> dict[int, Row]:
    """Every combination's coefficients as floats, zeros left out."""
    rows = dict[int, Row]()
    for i, register in enumerate(tape.registers):
        numbers = {
            j: value(c) if isinstance(c, Tensor) else c for j, c in terms_of(register).items()
        }
        rows[i] = {j: c for j, c in numbers.items() if c != 0.0}
    return rows


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

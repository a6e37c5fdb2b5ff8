"""A solver's own steps, run on symbols in place of tensors: what it computes, line by line.

A fixed-step solver's step is linear in the state, the network's outputs and the noise. Run on
``Sym``, a linear combination of registers, it leaves behind what it would have computed: at which
levels the network is called, on which combination, and what is drawn. Nothing is written twice:
the solver is the one that samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor

from sdegen.model.prediction import Target, predicted
from sdegen.noise.source import Noise
from sdegen.programs.registers import (
    Call,
    Coefficient,
    Draw,
    Mix,
    One,
    Register,
    Start,
    Terms,
    terms_of,
    value,
)
from sdegen.sde.level import Instant, with_marginals
from sdegen.sde.process import SDE, has_coordinates
from sdegen.solvers.equation import Eta, Reverse
from sdegen.solvers.solver import (
    Solver,
    Step,
    check,
    check_levels,
    check_solver,
    no_value,
    walked,
)


class NotLinear(ValueError):
    """A step that is not a linear combination with coefficients known beforehand: no table."""


NOT_FOR_SYMBOLS = (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError)
"""What a step may raise of a symbol and not of a tensor: an operator that symbols have not, as in
``x > 0``; torch's and other libraries' refusal of them; a check that its state is a tensor. The
plain loop then has the last word. A name that does not exist is a mistake, whatever the state."""


UNIT, LONG = 1.0, 8
"""A register's own coefficient. Of how many registers a state within a step is made; of more it is
a register too, as after many corrections, which would keep all that they drew."""


class Sym:
    """A linear combination of others, or a register, for a solver to compute with as a state."""

    def __init__(self, tape: Tape, parts: Sequence[tuple[Coefficient, Sym]], at: int = -1) -> None:
        self.tape, self.parts, self.at = tape, parts, at

    def scaled(self, c: Any) -> Sym:
        """c times it."""
        return Sym(self.tape, [(number(c), self)])

    def plus(self, other: Any, c: Any = 1.0) -> Sym:
        """Itself and c times another, or a number."""
        if not isinstance(other, Sym):
            other = self.tape.one.scaled(other)
        return Sym(self.tape, [(1.0, self), (number(c), other)])

    def terms(self, known: Mapping[Sym, int]) -> Terms:
        """It as registers and their coefficients, where some combinations have registers."""
        done: dict[Sym, Terms] = {}

        def resolve(x: Sym) -> Terms:
            at = known.get(x, x.at)
            if at >= 0:
                return {at: UNIT}
            if x not in done:
                total: Terms = {}
                for c, part in x.parts:
                    at = known.get(part, part.at)
                    inner = {at: UNIT} if at >= 0 else resolve(part)
                    for i, w in inner.items():
                        term = c if w is UNIT else c * w
                        total[i] = total[i] + term if i in total else term
                done[x] = total
            return done[x]

        return resolve(self)

    def __add__(self, other: Any) -> Sym:
        return self.plus(other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Sym:
        return self.plus(other, -1.0)

    def __rsub__(self, other: Any) -> Sym:
        return self.scaled(-1.0).plus(other)

    def __mul__(self, c: Any) -> Sym:
        return self.scaled(c)

    __rmul__ = __mul__

    def __truediv__(self, c: Any) -> Sym:
        return self.scaled(1 / number(c))

    def __neg__(self) -> Sym:
        return self.scaled(-1.0)

    def __pos__(self) -> Sym:
        return self

    def __getattr__(self, name: str) -> Any:
        if name not in LINEAR:
            raise NotLinear(f"it asks for .{name} of a state")
        return partial(LINEAR[name], self)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Sym:
        """Torch's own functions, and a tensor's operators with a Sym on the right."""
        name = func.__name__
        if name not in LINEAR:
            raise NotLinear(f"it takes {name} of a state")
        return LINEAR[name](*args, **(kwargs or {}))


LOOKS = ("bool", "float", "int", "len", "iter", "getitem", "setitem", "array", "index", "eq")
"""What looks at values. Two symbols are one where they are the same object, by which they hash."""

for _name in LOOKS:

    def _refuse(self: Sym, *args: Any, what: str = _name) -> NoReturn:
        raise NotLinear(f"it looks at a state's values ({what})")

    setattr(Sym, f"__{_name}__", _refuse)


def add(a: Any, b: Any, *, alpha: float = 1.0) -> Sym:
    """a + alpha b."""
    return a.plus(b, alpha) if isinstance(a, Sym) else mul(b, alpha).plus(a)


def sub(a: Any, b: Any, *, alpha: float = 1.0) -> Sym:
    """a - alpha b."""
    return add(a, b, alpha=-alpha)


def mul(a: Any, b: Any) -> Sym:
    """a b, one of them a number."""
    first, other = (a, b) if isinstance(a, Sym) else (b, a)
    if not isinstance(first, Sym):
        raise NotLinear("it combines a state with tensors of its own")
    return first.scaled(other)


def div(a: Any, b: Any) -> Sym:
    """a / b, b a number."""
    if not isinstance(a, Sym):
        raise NotLinear("it divides by a state")
    return a / b


def lerp(a: Any, b: Any, weight: Any) -> Sym:
    """a + weight (b - a)."""
    return mul(a, 1 - number(weight)).plus(mul(b, weight))


LINEAR: dict[str, Callable[..., Sym]] = {
    **dict.fromkeys(("add", "__add__", "__radd__"), add),
    **dict.fromkeys(("sub", "subtract", "__sub__"), sub),
    **dict.fromkeys(("rsub", "__rsub__"), lambda a, b: sub(b, a)),
    **dict.fromkeys(("mul", "multiply", "__mul__", "__rmul__"), mul),
    **dict.fromkeys(("div", "divide", "true_divide", "__truediv__"), div),
    **dict.fromkeys(("neg", "negative"), lambda a: -a),
    "__rtruediv__": lambda a, b: div(b, a),
    "zeros_like": lambda a: a.scaled(0.0),
    "clone": lambda a: a,
    "lerp": lerp,
}


def number(c: Any) -> Coefficient:
    """A coefficient: a number, or a float64 tensor of one; NotLinear for anything else."""
    if isinstance(c, Sym):
        raise NotLinear("it multiplies or compares states")
    if isinstance(c, Tensor):
        if c.ndim:
            raise NotLinear(f"it combines a state with a tensor of shape {tuple(c.shape)}")
        # As a number, with which arithmetic is cheap; a learned one keeps its gradient.
        return c.double() if c.requires_grad else value(c)
    return float(c)


class Tape:
    """What a solver did, as registers in the order they came to be, and those of its states."""

    def __init__(self) -> None:
        self.registers: list[Register] = [Start(), One()]
        self.start, self.one = Sym(self, [], 0), Sym(self, [], 1)
        self.states: list[int] = []

    def new(self, register: Register) -> Sym:
        """One more register."""
        self.registers.append(register)
        return Sym(self, [], len(self.registers) - 1)

    def keep(self, step: Step) -> Step:
        """A step's end, whose state and memory are registers, so that combinations stay short.

        What is remembered as a long combination, like a corrected state, comes first, for the
        state is often made from it; short ones, like x0 of a network's output, come after it, in
        the memory of the state before.
        """
        if not isinstance(step.x, Sym) or step.tally is not None:
            raise NotLinear("it does not return a state it computed with")
        found: dict[Sym, Terms] = {}

        def look(x: Sym) -> Sym:
            if x.at < 0 and x is not step.x:
                found[x] = x.terms({})
            return x

        with_symbols_changed(step.memory, look)
        known: dict[Sym, int] = {}
        new: dict[Sym, Sym] = {}

        def name(x: Sym) -> None:
            new[x] = self.new(Mix(x.terms(known)))
            known[x] = new[x].at

        for x in found:
            if len(found[x]) > 2:
                name(x)
        name(step.x)
        self.states.append(known[step.x])
        for x in found:
            if x not in new:
                name(x)
        return Step(new[step.x], with_symbols_changed(step.memory, lambda x: new.get(x, x)))  # type: ignore[arg-type]


def with_symbols_changed(memory: Any, change: Callable[[Sym], Sym]) -> Any:
    """Memory with every Sym in it changed; through tuples, lists and dictionaries."""
    if isinstance(memory, Sym):
        return change(memory)
    if isinstance(memory, tuple):
        parts = [with_symbols_changed(part, change) for part in memory]
        return type(memory)(*parts) if hasattr(memory, "_fields") else tuple(parts)
    if isinstance(memory, list):
        return [with_symbols_changed(part, change) for part in memory]
    if isinstance(memory, Mapping):
        return {key: with_symbols_changed(part, change) for key, part in memory.items()}
    return memory


class Beyond:
    """A network's second output: what is made of it is no combination of states and outputs."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NotLinear("it reads a network's second output")

    @classmethod
    def __torch_function__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotLinear("it reads a network's second output")

    def refuse(self, *args: Any) -> NoReturn:
        raise NotLinear("it reads a network's second output")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = refuse
    __rtruediv__ = __neg__ = __getitem__ = __bool__ = __len__ = __iter__ = refuse


@dataclass(frozen=True, eq=False)
class TracedModel:
    """A score model whose network is a new register at each call."""

    tape: Tape
    sde: SDE
    target: Target
    flow_only: bool = False
    """Whoever is solved was asked before."""

    def __call__(self, x: Any, t: Any) -> Any:
        """Every view of a new register."""
        level = t if isinstance(t, Instant) else self.sde(t)
        more = Beyond()
        return predicted(self.sde, self.target, x, self.output(x, level), level, more)

    def output(self, x: Any, level: Instant) -> Any:
        """A new register."""
        if level.t.ndim:
            raise NotLinear("its samples have times of their own")
        terms = x.terms({})
        if len(terms) > LONG:
            x.at = self.tape.new(Mix(terms)).at
            terms = {x.at: 1.0}
        return self.tape.new(Call(level, terms))

    def __getattr__(self, name: str) -> NoReturn:
        raise unknown(name, "it asks for .{} of the model")


@dataclass(frozen=True, eq=False)
class TracedNoise(Noise):
    """A source whose draws are registers."""

    tape: Tape
    streams: tuple[str, ...] = ()
    path: bool = False  # type: ignore[misc]

    def __call__(self, x: Any, t: Instant, s: Instant) -> Any:
        """The increment of a move."""
        return self.tape.new(Draw(t, s, self.streams, False))

    def area(self, x: Any, t: Instant, s: Instant) -> Any:
        """Its area."""
        return self.tape.new(Draw(t, s, self.streams, True))

    def stream(self, name: str) -> TracedNoise:
        """A source's stream of that name."""
        return TracedNoise(self.tape, (*self.streams, name), self.path)

    def __getattr__(self, name: str) -> NoReturn:
        raise unknown(name, "it asks for .{} of the noise")


def unknown(name: str, reason: str) -> Exception:
    """What a stand-in says of an attribute that only what it stands for may have."""
    return AttributeError(name) if name.startswith("__") else NotLinear(reason.format(name))


def trace(
    solver: Solver, sde: SDE, walk: Sequence[Instant], eta: Eta | None = None, *, target: Target
) -> Tape:
    """Run a solver along a walk of levels on symbols.

    eta: default the solver's.  target: what the network's output is, as a Level's (a, b) in
    F = a x0 + b eps.  NotLinear with the reason if the solver's step is not linear; ValueError if
    it cannot take this equation or this walk.
    """
    check_solver(solver)
    name = type(solver).__name__
    if solver.traits.why_not_linear:
        raise NotLinear(f"{name} has no table: {solver.traits.why_not_linear}.")
    if has_coordinates(sde):
        raise NotLinear(
            f"{name} has no table on {type(sde).__name__}: its levels differ between coordinates, "
            "and so would the table's numbers."
        )
    tape = Tape()
    model: Any = TracedModel(tape, sde, target)
    p = Reverse(
        model, solver.eta if eta is None else eta, TracedNoise(tape, path=solver.traits.needs_path)
    )
    check(solver, p)
    check_levels(solver, p, walk)
    random = torch.get_rng_state()
    try:
        start: Any = tape.start
        for _ in walked(solver, p, start, walk, tape.keep):
            pass
        if not torch.equal(random, torch.get_rng_state()):
            raise NotLinear("it draws random numbers that are not its noise's")
    except NOT_FOR_SYMBOLS as error:
        raise NotLinear(f"{name} has no table: {str(error).rstrip('.')}.") from error
    finally:
        torch.set_rng_state(random)
    check_values(solver, p, tape, walk)
    return tape


def check_values(solver: Solver, p: Reverse, tape: Tape, walk: Sequence[Instant]) -> None:
    """Refuse coefficients that are not finite: where alpha or sigma is zero, at an end of the
    walk, the network's output does not say what the solver asks for."""
    for i, register in enumerate(tape.registers):
        for c in terms_of(register).values():
            if not math.isfinite(value(c) if isinstance(c, Tensor) else c):
                first, last = with_marginals(walk[0]), with_marginals(walk[-1])
                # The end of the last step, or what began the walk and is remembered.
                before = tape.states[-2] if len(tape.states) > 1 else tape.states[0]
                ends = float(last.sigma) == 0 and (i > before or float(first.alpha) > 0)
                raise ValueError(no_value(solver, p, last if ends else first))

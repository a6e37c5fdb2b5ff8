"""A traced solver as a straight-line program: buffers planned ahead, combinations done in place.

Between two network calls a program makes the combinations that the solver's steps are, with
coefficients known before the loop: the first term scaled in place, the others added with their
factor. Nothing is read back from the device, no temporary is made, and the buffers are as many as
the states that must live at once, whatever the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.model.denoiser import Denoiser
from sdegen.model.score import ScoreModel
from sdegen.noise.source import Fresh, Noise
from sdegen.programs.registers import Draw
from sdegen.sde.level import Instant

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

Talk = Generator[tuple[Tensor, int | None], Tensor | None, None]
"""A state and what is asked of it, for an output: see ``Program.talk``."""

Outputs = Callable[[Tensor, int], Tensor]
"""From a state (b, *) and a call's number to the model's output there (b, *)."""


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

    @cached_property
    def stops(self) -> list[Instant]:
        """The levels of the network calls, as a model prepares for them: all at once."""
        return self.clock.unbind()

    def steps(self, model: Denoiser, x: Tensor, noise: Noise | None = None) -> Iterator[Tensor]:
        """Run from x (b, *), which is left as it is, yielding the state at the end of each step.

        The state is a buffer that later steps write into: clone what is to be kept.
        """
        check_view(model)
        # As a decorator no_grad holds inside a generator and not between its yields, which costs
        # a little at every step: ``solve``, which holds it all the way, does without.
        source = Fresh() if noise is None else noise
        yield from torch.no_grad()(self.run)(x, source, self.asker(model))

    def execute(
        self, model: Denoiser, x: Tensor, noise: Noise | None = None, alone: bool = True
    ) -> Iterator[Tensor]:
        """``steps`` for a caller who has switched gradients off.

        alone: nobody else sees what is yielded, and may then change the model or the mode.
        """
        ask = None
        if alone and isinstance(model, ScoreModel):
            ask = model.asked_along(self.clock, x)
        return self.run(x, Fresh() if noise is None else noise, ask or self.asker(model))

    def talk(self, x: Tensor, noise: Noise) -> Talk:
        """The program without a model, for whoever has its outputs: a coroutine.

        It yields (state, i) where the network's output number i at that state is to be sent, and
        (state, None) where a step has ended; states are buffers, as in ``steps``.
        """
        return self.run(x, noise, None)

    def run(self, x: Tensor, noise: Noise, ask: Outputs | None) -> Generator[Any, Any, None]:
        """``execute`` with somebody to ask for outputs, ``talk`` without: one loop, in which a
        step costs nothing for the other."""
        values: dict[int, Tensor] = {0: x}
        buffers: list[Tensor | None] = [None] * self.buffers
        wide = torch.empty_like(x, dtype=torch.float32) if x.element_size() < 4 else None
        size = x.numel() * x.element_size()
        for line, factor in zip(self.lines, self.factors(x.dtype), strict=True):
            if type(line) is Combine:
                made, at, _, _, rest, constant, in_place, drops = line
                out = buffers[at]
                if out is None:
                    out = buffers[at] = torch.empty_like(x)
                if in_place and wide is None:
                    if factor is not None:
                        out.mul_(factor)
                    for register, c in rest:
                        out.add_(values[register], alpha=c)
                    if constant:
                        out.add_(constant)
                else:
                    combine(line, factor, values, out, wide)
                values[made] = out
            elif type(line) is Ask:
                made, asked, i, drops = line
                state = values[asked]
                F: Tensor = shaped((yield state, i), state) if ask is None else ask(state, i)
                # A network may hand back (a view of) the state, which will be written into.
                alias = 0 <= F.data_ptr() - state.data_ptr() < size
                values[made] = F.clone() if alias else F
            elif type(line) is Reach:
                reached, drops = line
                yield values[reached] if ask is not None else (values[reached], None)
            else:
                assert type(line) is Take
                values[line.out], drops = drawn(line.draw, noise, x), line.drops
            for register in drops:
                del values[register]

    def asker(self, model: Denoiser) -> Outputs:
        """Who asks a model for its ``output`` at every call."""
        output, stops = model.output, self.stops
        return lambda state, i: shaped(output(state, stops[i]), state)

    def factors(self, dtype: torch.dtype) -> list[Tensor | None]:
        """Of each line's base, for states of a type: None for one, and for other lines.

        As tensors () of the host in the type that is computed in: of a Python number torch makes
        one at every operation, and converts it, which on a small state takes longer than the sum.
        """
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        if kind not in self._factors:
            lines = [line.factor if type(line) is Combine else 1.0 for line in self.lines]
            made = torch.tensor(lines, dtype=kind, device="cpu").unbind()
            pairs = zip(lines, made, strict=True)
            self._factors[kind] = [None if c == 1.0 else each for c, each in pairs]
        return self._factors[kind]

    @cached_property
    def _factors(self) -> dict[torch.dtype, list[Tensor | None]]:
        """Those made so far."""
        return {}


def shaped(F: Tensor, state: Tensor) -> Tensor:
    """An output that has its state's shape; ValueError for another."""
    if F.shape != state.shape:
        raise ValueError(
            f"A model's output has its state's shape {tuple(state.shape)}, but this one has "
            f"{tuple(F.shape)}: look at what output(x, level) returns."
        )
    return F


def has_own_view(model: Denoiser) -> bool:
    """Whether a score model's views are made by code of its own, of which ``output`` says nothing:
    only the plain loop runs it."""
    return isinstance(model, ScoreModel) and type(model).forward is not ScoreModel.forward


def check_view(model: Denoiser) -> None:
    """Refuse a model whose views a program would not ask."""
    if has_own_view(model):
        raise ValueError(
            f"{type(model).__name__} overrides forward, which a program never asks: override "
            "output(x, level), of which every view is made."
        )


def combine(
    line: Combine,
    factor: Tensor | None,
    values: dict[int, Tensor],
    out: Tensor,
    wide: Tensor | None,
) -> None:
    """One combination, into a buffer that it does not begin from; in float32 for shorter types,
    and rounded once."""
    to, rest = out if wide is None else wide, line.rest
    if line.base is None:
        to.zero_()
    elif wide is not None:
        to.copy_(values[line.base])
        if factor is not None:
            to.mul_(factor)
    elif factor is not None:
        torch.mul(values[line.base], factor, out=to)
    elif rest:
        torch.add(values[line.base], values[rest[0][0]], alpha=rest[0][1], out=to)
        rest = rest[1:]
    else:
        to.copy_(values[line.base])
    for register, c in rest:
        to.add_(values[register], alpha=c)
    if line.constant:
        to.add_(line.constant)
    if wide is not None:
        out.copy_(wide)


def drawn(draw: Draw, noise: Noise, like: Tensor) -> Tensor:
    """A draw from the source's stream of its name."""
    for name in draw.streams:
        noise = noise.stream(name)
    return noise.area(like, draw.t, draw.s) if draw.area else noise(like, draw.t, draw.s)

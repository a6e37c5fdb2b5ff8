"""Gradients through a solve: when their graph may be kept, and kept by each step's ends alone."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sdegen.noise.source import Noise
from sdegen.sde.level import Instant
from sdegen.solvers.equation import Reverse
from sdegen.solvers.solver import Solver, Step
from sdegen.solvers.traits import Traits


def allowed(graph: Any) -> bool:
    """Whether a graph is kept; ValueError where none can be."""
    if not graph:
        return False
    if torch.is_inference_mode_enabled():
        raise ValueError(
            f"graph={graph!r} keeps the graph of gradients, of which there is none under "
            "torch.inference_mode: leave that block, or leave out graph."
        )
    captured = torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
    if captured or torch.compiler.is_compiling():
        how = "captured as a CUDA graph" if captured else "compiled"
        raise ValueError(
            f"graph={graph!r} keeps the graph of gradients of a plain loop, but this one is being "
            f"{how}: call it outside, and compile the network instead."
        )
    return True


def with_graph(x: Tensor) -> Tensor:
    """Samples whose gradients were asked for; ValueError if nothing reaches them that has any."""
    if not x.requires_grad:
        raise ValueError(
            "graph was asked for, but nothing that requires a gradient reaches the samples: set "
            "requires_grad on start, conditions or parameters; and a solver that leaves torch, as "
            "SciPy's, passes none on."
        )
    return x


@dataclass(frozen=True)
class Checkpointed:
    """A solver whose steps keep their ends alone, and run again for their gradients."""

    solver: Solver

    @property
    def traits(self) -> Traits:
        """The solver's."""
        return self.solver.traits

    def step(self, p: Reverse, x: Tensor, t: Any, s: Any, memory: Any = None) -> Step:
        """The solver's step.  What it drew is kept: another run must not draw anew."""
        record, q = Record(), copy(p)
        object.__setattr__(q, "noise", Recorded(p.noise, record))

        def run(x: Tensor, memory: Any) -> Step:
            record.at = 0
            # Levels of their own: what a level remembers was made by the run before.
            return self.solver.step(q, x, anew(t), anew(s), anew(memory))

        step: Step = checkpoint(run, x, memory, use_reentrant=False)
        return step


def anew(value: Any) -> Any:
    """The same level, or memory with levels in it, which have computed nothing yet."""
    if isinstance(value, Instant):
        fresh = replace(value)
        object.__setattr__(fresh, "place", value.place)
        return fresh
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(anew, value))
    return type(value)(map(anew, value)) if isinstance(value, tuple | list) else value


@dataclass
class Record:
    """Draws in their order, each with where it left torch's generator, and the place of the next.

    What else a step draws, as dropout does, must find the generator where it was the first time.
    """

    draws: list[tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=list)
    at: int = 0


class Recorded(Noise):
    """A source whose draws are kept the first time, and are the same the next."""

    def __init__(self, source: Noise, record: Record) -> None:
        self.source, self.record = source, record

    @property
    def path(self) -> bool:  # type: ignore[override]
        """As the source."""
        return self.source.path

    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The source's draw."""
        return self.kept(self.source, x, t, s)

    def area(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The source's."""
        return self.kept(self.source.area, x, t, s)

    def kept(self, draw: Any, *move: Any) -> Tensor:
        """A draw of the record, or one more."""
        draws, at = self.record.draws, self.record.at
        self.record.at += 1
        if at == len(draws):
            z = draw(*move)
            device = torch.cuda.get_rng_state(z.device) if z.is_cuda else None
            draws.append((z, torch.get_rng_state(), device))
            return z
        z, host, device = draws[at]
        torch.set_rng_state(host)
        if device is not None:
            torch.cuda.set_rng_state(device, z.device)
        return z

    def take(self, index: Tensor) -> Recorded:
        """Of some samples, in the same record."""
        return Recorded(self.source.take(index), self.record)

    def stream(self, name: str) -> Recorded:
        """The source's stream, in the same record."""
        return Recorded(self.source.stream(name), self.record)

"""What a solver leaves behind where it runs on symbols: registers of states, outputs and draws."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sdegen.sde.level import Instant

Coefficient = Tensor | float
Terms = dict[int, Coefficient]
"""Register -> coefficient."""


@dataclass(frozen=True)
class Start:
    """The state at the walk's start."""


@dataclass(frozen=True)
class One:
    """The number one, for what is added whatever the state."""


@dataclass(frozen=True, eq=False)
class Call:
    """The network's output for a combination, at a level."""

    level: Instant
    input: Terms


@dataclass(frozen=True, eq=False)
class Draw:
    """Noise for a move from t to s, of the source's streams by name, one in another."""

    t: Instant
    s: Instant
    streams: tuple[str, ...]
    area: bool


@dataclass(frozen=True, eq=False)
class Mix:
    """A combination that is used again: a step's end, what the solver remembers, a long one."""

    terms: Terms


Register = Start | One | Call | Draw | Mix


def terms_of(register: Register) -> Terms:
    """The combination in a register's definition, if there is one."""
    if isinstance(register, Call):
        return register.input
    return register.terms if isinstance(register, Mix) else {}


def value(c: Tensor) -> float:
    """A coefficient's value, by numpy where it lies in the host's memory."""
    c = c.detach()
    return float(c.numpy()) if c.device.type == "cpu" else float(c)

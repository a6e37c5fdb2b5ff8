"""What a solver is, in one value: what it claims, what it needs and what it can do."""

from __future__ import annotations

from dataclasses import dataclass

OWN_STEPS = "it chooses its own steps"
"""Why an adaptive solver is not linear."""


@dataclass(frozen=True, kw_only=True)
class Traits:
    """What a solver is.  Each class states it once, and the tests hold it to its word.

    ``order`` has no default, since every author has to decide it; the others are what most
    solvers are. A solver's own eta and its presets are not here: eta is a setting that some take
    from their users, and presets are names that a method goes by, not what it is.
    """

    order: float
    """Of the path on the probability flow, eta = 0; 0 claims none."""
    weak: float = 1.0
    """Of the law where eta > 0, on smooth linear SDEs; 0 claims none."""
    strong: float = 1.0
    """Of the path where eta > 0 and the noise is one Brownian path; 0 claims none."""
    calls: int = 1
    """Network calls of a step; 0 where the solver decides that on the way."""
    calls_to_start: int = 0
    """Network calls that the first step takes beyond those."""
    any_eta: bool = False
    """True when it solves the reverse equation for every eta, not for its own alone."""
    needs_marginals: bool = False
    """True when it needs alpha and sigma, that is a LinearSDE."""
    needs_path: bool = False
    """True when it may ask for the noise of a step twice, so that it must come from one path."""
    adaptive: bool = False
    """True when it chooses its own steps between the levels of the walk."""
    follows_flow: bool = True
    """True when it can follow the probability flow both ways, from data to noise too."""
    why_not_linear: str = ""
    """Why its steps are not linear in states, outputs and noise; "" where they are, which gives
    it a program and a table."""
    arrives: bool = False
    """True when its own step goes to a level without noise, where others end with E[x0 | x]."""
    own_walk: tuple[float, ...] | None = None
    """The times of the walk that it comes with, where it can take no other."""
    own_levels: bool = False
    """True when its network was trained at the levels where that walk's steps begin alone."""


def exponential(
    order: float,
    *,
    calls: int = 1,
    calls_to_start: int = 0,
) -> Traits:
    """Of an exponential integrator of that order, which solves the equation for every eta.

    The order of its law is 2 at most: two values follow the drift along the noise, more gain
    nothing.
    """
    return Traits(
        order=order,
        weak=min(order, 2),
        calls=calls,
        calls_to_start=calls_to_start,
        any_eta=True,
        needs_marginals=True,
    )


def own_steps(
    order: float,
    *,
    any_eta: bool = False,
    needs_marginals: bool = False,
    needs_path: bool = False,
) -> Traits:
    """Of a solver that follows the error with steps of its own."""
    return Traits(
        order=order,
        calls=0,
        any_eta=any_eta,
        needs_marginals=needs_marginals,
        needs_path=needs_path,
        adaptive=True,
        why_not_linear=OWN_STEPS,
    )

"""A multistep method that chooses its prediction by how well each has predicted so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.checks import number, whole
from sdegen.model.prediction import LinearPrediction
from sdegen.sde.level import Level, expand
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import DataForm, Form, StraightForm, advance, lagrange
from sdegen.solvers.multistep import check_corrector, corrected
from sdegen.solvers.solver import Solver, Step
from sdegen.solvers.traits import Traits, exponential

FORMS: tuple[Form, ...] = (DataForm(), StraightForm())
"""The first is what a step goes by where nothing is known of either yet."""


class Known(NamedTuple):
    """What a step remembers.

    t, x: where the last one began.  past: levels and each form's values there, the newest first:
    a network may write its next output where the last one was.  guesses: of each form, (b, *) at
    the end of that step.  off: smoothed log discrepancies (b, forms), None before there are any.
    """

    t: Level
    x: Tensor
    past: list[tuple[Level, list[Tensor]]]
    guesses: list[Tensor]
    off: Tensor | None


@dataclass(frozen=True)
class Blended(Solver):
    """Exponential Adams-Bashforth-Moulton in x0 and in eps - x0 at once, each sample by its share.

    Both predictions Q_k are taken for polynomials in the wide clock (see ``Multistep``). From the
    values there are form k predicts P_k(s); with the value at s its corrector says C_k(s). Of each
    sample, with the root mean square over its coordinates,

        log d_k = keep log d_k(before) + (1 - keep) log rms(C_k - P_k)
        share_k = d_k^-power / sum of all d_j^-power
        x(s) = sum of share_k C_k,     x(next) = sum of share_k P_k(next)

    x0 is the one that hardly changes where data has atoms or narrow modes, eps - x0 where it is
    smooth in many dimensions (docs/benchmarks.md); their errors often differ in sign, so that a
    blend is better than either. Every form has the order from values of that order, and shares
    add to one: so the blend has it. The first step, about which nothing is known, is that of x0:
    where it is as long as the others, what it leaves is of order 3, as in ``Multistep``.

    One network call a step. A sample's shares are made of its own states alone, and nothing is
    read from the device. ValueError for eta > 0.

    order:      values of the predictor.  corrector: values of the corrector, at least 2.
    power:      how sharply the better form is preferred; 0 gives all the same share.
    keep:       how much of log d is that of the steps before.
    euler_at_final: the last step is of order 1, in x0: see ``Multistep``.

    The shares are ours, a local error estimate as of predictor-corrector pairs (Milne's device;
    Hairer, Norsett & Wanner, III.1) put to choosing; the steps are Lu et al.'s (2022b, prop. 4.1)
    exact integral.
    """

    order: int = 4
    corrector: int = 4
    power: float = 1.0
    keep: float = 0.5
    euler_at_final: bool = False
    presets: ClassVar = {}  # by the name "blended" a chooser sets it for a budget

    def __post_init__(self) -> None:
        whole("Blended's order", self.order, 1)
        check_corrector("Blended", self.corrector)
        if not self.corrector:
            raise ValueError(
                "Blended chooses by what its corrector says: corrector is at least 2, not 0."
            )
        if not number("power", self.power) >= 0:
            raise ValueError(f"power must be at least 0, but it is {self.power!r}.")
        if not 0 <= number("keep", self.keep) < 1:
            raise ValueError(f"keep must be at least 0 and below 1, but it is {self.keep!r}.")

    @property
    def traits(self) -> Traits:
        """The corrector's order, on the flow alone."""
        order = corrected(self.order, self.corrector)
        known = exponential(min(order, 2) if self.euler_at_final else order)
        return replace(
            known,
            any_eta=False,
            why_not_linear="it weights its predictions by how well they predicted each sample",
        )

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Known | None = None) -> Step:
        """One step; memory is a ``Known``."""
        said: LinearPrediction = p.model(x, t)
        value = [form.view(said) for form in FORMS]
        past, off = [(t, value)], None
        if memory is not None:
            r, x_r, before, guesses, off = memory
            known = [before[0], (t, value), *before[1:]][: self.corrector]
            better = leaps(p, x_r, r, t, known)
            off = self.smoothed(off, discrepancies(better, guesses))
            past = [(t, value), *before][: max(self.order, self.corrector - 1)]
            x = self.blend(better, off)
        guesses = leaps(p, x, t, s, past[: self.order])
        if self.euler_at_final and p.left == 0:
            x_s = leaps(p, x, t, s, past[:1])[0]
        else:
            x_s = self.blend(guesses, off)
        return Step(x_s, Known(t, x, past, guesses, off))

    def smoothed(self, before: Tensor | None, off: Tensor) -> Tensor:
        """log d, (b, forms)."""
        return off if before is None else self.keep * before + (1 - self.keep) * off

    def blend(self, states: Sequence[Tensor], off: Tensor | None) -> Tensor:
        """The states of all forms by their shares; the first alone where there are none."""
        if off is None:
            return states[0]
        shares = torch.softmax(-self.power * off, 1).unbind(1)
        total = expand(shares[0], states[0]) * states[0]
        for share, state in zip(shares[1:], states[1:], strict=True):
            total = total + expand(share, state) * state
        return total


def leaps(
    p: Reverse, x: Tensor, t: Level, s: Level, known: Sequence[tuple[Level, list[Tensor]]]
) -> list[Tensor]:
    """From x at t to s by each form, with these values in the wide clock."""
    nodes, ends = [node for node, _ in known], list[Tensor]()
    for form, values in zip(FORMS, zip(*(each for _, each in known), strict=True), strict=True):
        weights = lagrange(p, form, nodes, t, s, "wide")
        ends.append(advance(p, form, x, t, s, weights, values))
    return ends


def discrepancies(better: Sequence[Tensor], guesses: Sequence[Tensor]) -> Tensor:
    """log rms(C_k - P_k) of each sample, (b, forms); what is zero counts as the least number."""
    each = [
        (c - g).reshape(len(c), -1).square().mean(1).sqrt()
        for c, g in zip(better, guesses, strict=True)
    ]
    off = torch.stack(each, 1)
    return off.clamp(min=torch.finfo(off.dtype).tiny).log()

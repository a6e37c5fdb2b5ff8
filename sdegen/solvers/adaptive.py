"""Adaptive solving: steps that follow the error, one length for all or one for each sample."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.sde.level import Instant
from sdegen.solvers.classical import between, level_at, reading
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import Clock
from sdegen.solvers.solver import Solver, Status, Step, Tally

SAFETY, SMALLEST, LARGEST = 0.9, 0.2, 5.0
FIRST, SHORTEST = 1e-2, 1e-9
"""Of a step, as parts of the whole way.  Below the shortest, the tolerance cannot be met."""


Known = tuple[Tensor, ...]
"""What a method knows at a place and need not ask the network for, (k, *) each."""


class Attempt(NamedTuple):
    """A step that may yet be rejected: all of shape (k, *).

    x: where it ended.  error: an estimate of its error.  here: what is known where it began, with
    which another try from there begins.  there: what is known where it ended, if anything is.
    order: the power of the step's length by which the error falls, a number or (k,), if it is not
    the solver's ``error_order``.
    """

    x: Tensor
    error: Tensor
    here: Known
    there: Known | None = None
    order: float | Tensor | None = None

    def begins(self, accepted: Tensor, together: bool) -> Known | None:
        """What each sample's next attempt begins with, None if the network has to be asked.

        Samples with steps of their own know it only if all do, whatever became of the others.
        """
        if self.there is None:
            return self.here if together and not bool(accepted.any()) else None
        return tuple(
            torch.where(accepted.to(new.device).reshape(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(self.there, self.here, strict=True)
        )


def some(known: Known | None, rows: Tensor) -> Known | None:
    """Of some samples."""
    return None if known is None else tuple(each[rows.to(each.device)] for each in known)


class Adaptive(Solver):
    """Steps between two levels of the walk as long as the tolerance allows.

    A step is accepted when the root-mean-square over a sample of error / size is at most 1, where
    size is atol + rtol |x|, |x| the larger of both ends. The next one's length follows by PI
    control (Hairer & Wanner II, IV.2). All samples share the step that the worst of them asks for;
    ``per_sample`` gives each its own, so that no sample's result depends on the others: more
    network calls, of a batch that shrinks as samples arrive.

    max_nfe: network calls allowed on a sample. A sample that did not arrive is NaN, with the
    reason in the status: BUDGET; NONFINITE, a NaN or an infinite value, upon which it leaves the
    batch; STALLED, steps of less than 1e-9 of the way. ValueError for a tolerance or a budget that
    is not positive.
    """

    rtol: float
    atol: float
    max_nfe: int
    per_sample: bool
    evals, adaptive, nonlinear = 0, True, "it chooses its own steps"

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0):
            raise ValueError(
                f"Tolerances must be positive, but rtol = {self.rtol!r}, atol = {self.atol!r}."
            )
        if not self.max_nfe >= 1:
            raise ValueError(f"max_nfe must be at least 1, but it is {self.max_nfe!r}.")

    stages: int
    """Network calls of an attempt that begins with nothing known."""
    longest = LARGEST
    """How much longer than a step the next may be."""
    clock: Clock
    """What steps are measured in."""

    @property
    def error_order(self) -> float:
        """The error estimate of a step falls as this power of its length."""
        return self.order

    @abstractmethod
    def attempt(
        self, p: Reverse, x: Tensor, t: Instant, s: Instant, known: Known | None
    ) -> Attempt:
        """One step from t to s for samples x (k, *), at levels of shape () or (k,)."""

    def size(self, x: Tensor, trial: Attempt) -> Tensor:
        """What an error is measured by, (k, *)."""
        return self.atol + self.rtol * torch.maximum(x.abs(), trial.x.abs())

    def errors(self, x: Tensor, trial: Attempt) -> Tensor:
        """Each sample's error beside its tolerance, (k,) on the host; infinite if not finite."""
        ratio = (trial.error / self.size(x, trial)).detach().reshape(len(x), -1)
        rms = ratio.double().square().mean(1).sqrt()
        bad = ~(rms.isfinite() & trial.x.isfinite().reshape(len(x), -1).all(1))
        return rms.masked_fill(bad, torch.inf).cpu()

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """From t to s; memory is the length of the last step, with which a longer walk goes on."""
        start, end = reading(self.clock, t), reading(self.clock, s)
        b, way = len(x), end - start
        u, h = start.repeat(b), (FIRST * way if memory is None else memory).repeat(b)
        before = torch.ones(b, dtype=torch.float64)
        nfe, status = torch.zeros(b, dtype=torch.int64), torch.zeros(b, dtype=torch.int8)
        active, known = torch.arange(b), None
        while len(active):
            there = u[active] + h[active]
            last = (end - there) / way < SHORTEST
            there = torch.where(last, end, there)
            cost = self.stages - (known is not None)
            stopped = torch.where(nfe[active] + cost > self.max_nfe, int(Status.BUDGET), 0)
            stuck = ~last & (h[active] / way < SHORTEST)
            stopped[stuck] = int(Status.STALLED)
            if bool(stopped.any()):
                status[active] = stopped.to(torch.int8)
                going = stopped == 0
                known, active = some(known, going), active[going]
                continue
            rows = active.to(x.device)
            everyone = len(active) == b
            q, y = (p, x) if everyone else (p.take(rows), x[rows])
            calls = p.model.nfe
            trial = self.attempt(
                q, y, self.level(p, u[active], t, s), self.level(p, there, t, s), known
            )
            nfe[active] += p.model.nfe - calls
            error = self.errors(y, trial)
            alive = error.isfinite()
            if not self.per_sample:
                error = error.where(alive, 0).max().where(alive, error)
            fine = error <= 1
            # Not in place: a gradient may want the states that were.
            x = x.index_copy(0, rows[fine.to(x.device)], trial.x[fine.to(x.device)])
            known = trial.begins(fine, not self.per_sample)
            order = self.error_order if trial.order is None else trial.order
            grow = self.factor(error.clamp(1e-8, 1e8), before[active], fine, order)
            h[active] = (there - u[active]) * grow
            u[active] = torch.where(fine, there, u[active])
            before[active] = torch.where(fine, error.clamp(min=1e-8), before[active])
            status[active] = torch.where(alive, 0, int(Status.NONFINITE)).to(torch.int8)
            going = alive & ~(fine & last)
            known, active = some(known, going), active[going]
        lost = (status != 0).to(x.device).reshape(-1, *[1] * (x.ndim - 1))
        x = x.masked_fill(lost, torch.nan)
        return Step(x, h.abs().min() * way.sign(), Tally(nfe, status.to(x.device)))

    def factor(
        self, error: Tensor, before: Tensor, accepted: Tensor, order: float | Tensor
    ) -> Tensor:
        """How much longer each next step is, (k,), for errors that fall by this order."""
        power = 1 / torch.as_tensor(order, dtype=error.dtype)
        # Errors settle at safety^order, where a step is 0.9 of the longest; with the factor
        # outside they would at a sixth of the tolerance.
        goal = SAFETY ** (1 / power)
        pi = (error / goal) ** (-0.7 * power) * (before / goal) ** (0.4 * power)
        again = SAFETY * error ** (-power)
        return torch.where(accepted, pi.clamp(SMALLEST, self.longest), again.clamp(SMALLEST, 1.0))

    def level(self, p: Reverse, u: Tensor, t: Instant, s: Instant) -> Instant:
        """The level where the clock shows u, never outside the step; one for all if shared."""
        at = level_at(p, self.clock, u if self.per_sample else u[0])
        return p.sde(between(at.t, t, s))

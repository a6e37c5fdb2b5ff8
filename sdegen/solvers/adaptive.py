"""Adaptive solving: steps that follow the error, one length for all or one for each sample."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from sdegen.checks import number, whole
from sdegen.model.denoiser import cost_of
from sdegen.sde.level import Instant
from sdegen.solvers.classical import clock_reading, level_at, within_step
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

    x: where it ended.  error: an estimate of its error.  known_before: what is known where it
    began, with which another try from there begins.  known_after: what is known where it ended,
    if anything is.  order: the power of the step's length by which the error falls, a number or
    (k,).
    """

    x: Tensor
    error: Tensor
    known_before: Known
    known_after: Known | None
    order: float | Tensor

    def next_known(self, accepted: Tensor, together: bool) -> Known | None:
        """What each sample's next attempt begins with, None if the network has to be asked.

        Samples with steps of their own know it only if all do, whatever became of the others.
        """
        if self.known_after is None:
            return self.known_before if together and not bool(accepted.any()) else None
        return tuple(
            torch.where(accepted.to(after.device).reshape(-1, *[1] * (after.ndim - 1)), after, was)
            for after, was in zip(self.known_after, self.known_before, strict=True)
        )


def take_known(known: Known | None, chosen: Tensor) -> Known | None:
    """What is known of the samples chosen, by their places or by a mask."""
    return None if known is None else tuple(each[chosen.to(each.device)] for each in known)


def check_control(solver: Adaptive) -> None:
    """Refuse tolerances and a budget with which no step could be taken."""
    check_tolerances(solver.rtol, solver.atol)
    whole("max_nfe", solver.max_nfe, 1)


def check_tolerances(rtol: float, atol: float) -> None:
    """Refuse tolerances that are not positive."""
    if not (number("rtol", rtol) > 0 and number("atol", atol) > 0):
        raise ValueError(f"Tolerances must be positive, but rtol = {rtol!r}, atol = {atol!r}.")


class Adaptive(Solver):
    """Steps between two levels of the walk as long as the tolerance allows.

    A step is accepted when the root-mean-square over a sample of error / size is at most 1, where
    size is atol + rtol |x|, |x| the larger of both ends. The next one's length follows by PI
    control (Hairer & Wanner II, IV.2). By default each sample has steps of its own, so that none
    depends on the others, and none takes more than it needs: half the network calls on a sample in
    batches of 256, of a batch that shrinks as samples arrive. ``per_sample=False``: all share the
    step that the worst of them asks for, so that coefficients are made once for all.

    max_nfe: network evaluations allowed on a sample between two levels of the walk, of which a
    guided model's call may be several. A sample that did not arrive is NaN, with the reason in the
    status: BUDGET; NONFINITE, a NaN or an infinite value, upon which it leaves the batch; STALLED,
    steps of less than 1e-9 of the way. ValueError for a tolerance or a budget that is not
    positive.
    """

    rtol: float
    atol: float
    max_nfe: int
    per_sample: bool
    longest: ClassVar[float] = LARGEST
    """How much longer than a step the next may be."""

    @property
    @abstractmethod
    def stages(self) -> int:
        """Network calls of an attempt that begins with nothing known."""

    @property
    @abstractmethod
    def clock(self) -> Clock:
        """What steps are measured in."""

    @abstractmethod
    def attempt(
        self, p: Reverse, x: Tensor, t: Instant, s: Instant, known: Known | None
    ) -> Attempt:
        """One step from t to s for samples x (k, *), at levels of shape () or (k,)."""

    @abstractmethod
    def size(self, largest: Tensor) -> Tensor:
        """What an error is measured by, (k, *), where |x| is at most this at both ends."""

    def errors(self, x: Tensor, trial: Attempt) -> Tensor:
        """Each sample's error beside its tolerance, (k,) on the host; infinite if not finite."""
        largest = torch.maximum(x.abs(), trial.x.abs())
        ratio = (trial.error / self.size(largest)).detach().reshape(len(x), -1)
        rms = ratio.double().square().mean(1).sqrt()
        bad = ~(rms.isfinite() & trial.x.isfinite().reshape(len(x), -1).all(1))
        return rms.masked_fill(bad, torch.inf).cpu()

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """From t to s; memory is the length of each sample's last step, (b,), or of all together,
        (), with which a longer walk goes on."""
        start, end = (clock_reading(p, self.clock, level) for level in (t, s))
        b, way = len(x), end - start
        first = (FIRST * way).abs() if memory is None else memory
        u, h = start.repeat(b), first.expand(b) * way.sign()
        error_before = torch.ones(b, dtype=torch.float64)
        nfe, status = torch.zeros(b, dtype=torch.int64), torch.zeros(b, dtype=torch.int8)
        active, known = torch.arange(b), None
        while len(active):
            goal = u[active] + h[active]
            # What would be left is too short for a step of its own: go to the very end, which
            # rounding must not miss either.
            last = (end - goal) / way < SHORTEST
            goal = torch.where(last, end, goal)
            # Who cannot pay for another attempt, or whose steps no longer lead anywhere, leaves
            # before the network is asked. The last step may be short: it is the walk's doing.
            cost = (self.stages - (known is not None)) * cost_of(p.model)
            stopped = torch.where(nfe[active] + cost > self.max_nfe, int(Status.BUDGET), 0)
            stuck = ~last & (h[active] / way < SHORTEST)
            stopped[stuck] = int(Status.STALLED)
            if bool(stopped.any()):
                status[active] = stopped.to(torch.int8)
                unfinished = stopped == 0
                known, active = take_known(known, unfinished), active[unfinished]
                continue
            places = active.to(x.device)
            # The equation of all is the one that was given: no copy, and no index into labels.
            everyone = len(active) == b
            q, y = (p, x) if everyone else (p.take(places), x[places])
            calls = p.model.nfe
            trial = self.attempt(
                q, y, self.level(q, u[active], t, s), self.level(q, goal, t, s), known
            )
            # Counted, not assumed: what is known may have spared a call.
            nfe[active] += p.model.nfe - calls
            error = self.errors(y, trial)
            alive = error.isfinite()
            if not self.per_sample:
                # One length for all is set by the worst; a lost sample must not set it, and keeps
                # its own infinite error.
                error = error.where(alive, 0).max().where(alive, error)
            accepted = error <= 1
            # Not in place: a gradient may want the states that were.
            arrived = accepted.to(x.device)
            x = x.index_copy(0, places[arrived], trial.x[arrived])
            known = trial.next_known(accepted, not self.per_sample)
            # An error of zero would ask for infinite steps, an infinite one for none.
            longer = self.factor(
                error.clamp(1e-8, 1e8), error_before[active], accepted, trial.order
            )
            # From the step really taken, which the end may have cut.
            h[active] = (goal - u[active]) * longer
            u[active] = torch.where(accepted, goal, u[active])
            # The control remembers accepted steps alone: a rejected one is not on the way.
            error_before[active] = torch.where(
                accepted, error.clamp(min=1e-8), error_before[active]
            )
            status[active] = torch.where(alive, 0, int(Status.NONFINITE)).to(torch.int8)
            unfinished = alive & ~(accepted & last)
            known, active = take_known(known, unfinished), active[unfinished]
        lost = (status != 0).to(x.device).reshape(-1, *[1] * (x.ndim - 1))
        x = x.masked_fill(lost, torch.nan)
        longest = h.abs()
        if not self.per_sample:  # of those that arrived, if any did: a lost one has none to give
            longest = longest.where((status == 0) | (status != 0).all(), torch.inf).min()
        return Step(x, longest, Tally(nfe, status.to(x.device)))

    def factor(
        self, error: Tensor, error_before: Tensor, accepted: Tensor, order: float | Tensor
    ) -> Tensor:
        """How much longer each next step is, (k,), for errors that fall by this order."""
        power = 1 / torch.as_tensor(order, dtype=error.dtype)
        # Errors settle at safety^order, where a step is 0.9 of the longest; with the factor
        # outside they would at a sixth of the tolerance.
        goal = SAFETY ** (1 / power)
        pi = (error / goal) ** (-0.7 * power) * (error_before / goal) ** (0.4 * power)
        # After a rejection the error at hand alone counts, and the step never grows.
        again = SAFETY * error ** (-power)
        return torch.where(accepted, pi.clamp(SMALLEST, self.longest), again.clamp(SMALLEST, 1.0))

    def level(self, p: Reverse, u: Tensor, t: Instant, s: Instant) -> Instant:
        """The level where the clock shows u, never outside the step; one for all if shared."""
        at = level_at(p, self.clock, u if self.per_sample else u[0])
        return p.sde(within_step(at.t, t, s))

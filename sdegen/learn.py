"""Solvers tuned to a model: the walk and the weights that come closest to the exact flow.

With few network calls a solver is a handful of numbers: when it calls the network, and how it
weights what came back. Both are differentiable, so that they can be fitted to a fine solution of
the same model: a few dozen numbers to many starts. Watson et al. (2022) and Xue et al. (2024) fit
walks, Frankel et al. (2025) coefficients too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, pairwise

import torch
from torch import Tensor

from sdegen.grids import GRIDS, finite
from sdegen.march import sample
from sdegen.probe import Choice, Probe, check_model, compared, errors, reference, starts
from sdegen.reverse import Reverse
from sdegen.score import ScoreModel, predict_x0
from sdegen.sde import Level, LinearSDE
from sdegen.solvers.exponential import DataForm
from sdegen.solvers.solver import Solver
from sdegen.table import combined, dense
from sdegen.trace import Call, trace
from sdegen.tuned import Gain, Tuned

FORM = DataForm()
RESAMPLES = 200
RIVALS = 2
"""Untuned solvers that tuning begins from; the better of their ends is kept."""


class Learner:
    """A multistep solver with one call per step, its walk and its table with gradients.

    The walk's n steps in lam are the parts of the whole that a softmax gives. The solver is traced
    on that walk; where coefficients are learned too, each weight of x0 in its table gets a free
    number added, as a part of the step's own total weight.
    """

    def __init__(
        self, model: ScoreModel, solver: Solver, times: Tensor, coefficients: bool
    ) -> None:
        assert isinstance(model.sde, LinearSDE)
        self.model, self.sde, self.base = model, model.sde, solver
        lam = finite(self.sde, self.sde(times).lam)
        self.first, self.last, self.ends = lam[0], lam[-1], times[[0, -1]]
        n = len(times) - 1
        self.gaps = lam.diff().div(self.last - self.first).log().requires_grad_()
        self.free = torch.zeros(n, n, dtype=torch.float64, requires_grad=coefficients)
        self.parameters = [self.gaps, self.free] if coefficients else [self.gaps]

    def levels(self) -> list[Level]:
        """The walk, its ends as they are."""
        parts = self.gaps.softmax(0).cumsum(0)[:-1]
        inner = self.sde.time(self.first + (self.last - self.first) * parts)
        times = torch.cat([self.ends[:1], inner, self.ends[1:]])
        return self.sde(times).unbind()  # type: ignore[return-value]

    def rows(self, levels: Sequence[Level]) -> Tensor:
        """The table, (n, 1 + n): x_s less sigma_s / sigma_t x_t, by the start and every x0."""
        tape = trace(self.base, self.sde, levels, 0.0, target=predict_x0)
        known, _ = dense(tape)
        calls = [register for register in tape.registers if isinstance(register, Call)]
        states = [combined(call.input, known) for call in calls[1:]] + [known[tape.states[-1]]]
        states = [row[:-1] for row in (known[0], *states)]  # without the constant
        p, rows = Reverse(self.model), []
        for i, (t, s) in enumerate(pairwise(levels)):
            own = states[i + 1] - s.sigma / t.sigma * states[i]
            free = self.free[i, : i + 1] * FORM.total(p, t, s)
            rows.append(torch.cat([own[:1], own[1 : i + 2] + free, own[i + 2 :]]))
        return torch.stack(rows)

    def run(self, x: Tensor) -> Tensor:
        """The samples (b, *) from starts x (b, *)."""
        levels, known = self.levels(), [x]
        for (t, s), row in zip(pairwise(levels), self.rows(levels), strict=True):
            known.append(self.model(x, t).x0)
            x = s.sigma / t.sigma * x
            for w, value in zip(row, known, strict=False):
                x = x + w * value
        return x

    @torch.no_grad()
    def solver(self) -> Tuned:
        """As it stands."""
        levels = self.levels()
        times, alpha, sigma = (
            tuple(float(getattr(level, name)) for level in levels)
            for name in ("t", "alpha", "sigma")
        )
        rows = self.rows(levels).tolist()
        weights = tuple(tuple(row[: i + 2]) for i, row in enumerate(rows))
        return Tuned(times, weights, alpha, sigma, str(self.sde))


def tune(
    model: ScoreModel,
    *,
    nfe: int,
    shape: Sequence[int],
    coefficients: bool = False,
    seeds: int = 512,
    iterations: int = 300,
    fine: int = 200,
    seed: int = 0,
    watch: Callable[[int, float], None] | None = None,
) -> Tuned:
    """The solver of ``nfe`` network calls that comes closest to the model's own flow.

    shape:        of one sample, (*).
    coefficients: learn the weights too, and not the walk alone.
    seeds:        starts to learn from; as many again decide when to stop, and another as many
                  measure the gain.
    iterations:   of the optimiser: a quarter of Adam from the best standard walk, then L-BFGS.
    fine:         steps of UniPC-3 that the exact flow is taken from.
    watch:        called with the iteration and the median error on the held-out seeds.

    The loss is the mean over starts of the root-mean-square error at the end. What is kept is what
    was best on the held-out seeds. The cost is about 3 nfe x seeds x iterations network calls.
    ValueError for a model that returns NaN or gives no gradient, for nfe < 2, an SDE without
    marginals, and fewer seeds than ten times what is learned needs.
    """
    if nfe < 2:
        raise ValueError(f"A walk of {nfe} call has nothing to tune: give nfe >= 2.")
    check_model(model, seeds, least=16)
    x, held, fresh = (starts(model, shape, seeds, seed, k * seeds) for k in range(3))
    count = nfe - 1 + (nfe * (nfe + 1) // 2 if coefficients else 0)
    values = x[0].numel()
    if seeds * values < 10 * count:
        raise ValueError(
            f"{seeds} seeds of {values} values are too few for {count} free numbers: give at "
            f"least {-(-10 * count // values)} seeds."
        )
    check_gradient(model, x)
    exact, known = (reference(model, states, fine) for states in (x, held))
    best, kept = math.inf, None
    for learner in rivals(model, compared(model, held, known, nfe), coefficients):
        for i in chain([0], fit(learner, x, exact, iterations)):
            error = score(learner, held, known)
            if watch is not None:
                watch(i, error)
            if error < best:
                best, kept = error, learner.solver()
    assert kept is not None
    return replace(kept, gain=measure(model, kept, fresh, fine))


def rivals(model: ScoreModel, choice: Choice, coefficients: bool) -> list[Learner]:
    """The best of the untuned that call the network once a step, on their best walks."""
    found: dict[Solver, Probe] = {}
    for probe in choice.probes:
        if probe.solver.evals == 1:
            found.setdefault(probe.solver, probe)
    return [
        Learner(model, solver, GRIDS[probe.walk](model.sde, choice.nfe), coefficients)
        for solver, probe in list(found.items())[:RIVALS]
    ]


@torch.no_grad()
def score(learner: Learner, x: Tensor, exact: Tensor) -> float:
    """The median error; infinite where there is none."""
    median = float(errors(learner.run(x), exact).median())
    return median if median == median else float("inf")


def fit(learner: Learner, x: Tensor, exact: Tensor, iterations: int) -> Iterator[int]:
    """Adam for a quarter of the iterations, then L-BFGS, with a pause every now and then."""

    def closure() -> float:
        # An error of zero has no slope.
        squares = (learner.run(x) - exact).square().reshape(len(x), -1).mean(1)
        loss = (squares + 1e-24).sqrt().mean()
        slopes = torch.autograd.grad(loss, learner.parameters)
        for each, slope in zip(learner.parameters, slopes, strict=True):
            each.grad = slope
        torch.nn.utils.clip_grad_norm_(learner.parameters, 1.0)
        return float(loss.detach())

    warm = iterations // 4
    adam = torch.optim.Adam(learner.parameters, lr=0.02)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(warm, 1))
    for i in range(1, warm + 1):
        adam.step(closure)
        slower.step()
        if i % 10 == 0:
            yield i
    lbfgs = torch.optim.LBFGS(
        learner.parameters,
        max_iter=10,
        history_size=30,
        tolerance_grad=1e-12,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )
    for i in range(warm + 10, iterations + 1, 10):
        lbfgs.step(closure)
        yield i


def check_gradient(model: ScoreModel, x: Tensor) -> None:
    """Refuse a network through which no gradient passes."""
    start = x[:1].clone().requires_grad_()
    if not model.rows(torch.tensor([0]), len(x)).call(start, model.sde(model.sde.T)).requires_grad:
        raise ValueError(
            "The network's output has no gradient with respect to its input: is it called under "
            "no_grad, or detached?"
        )


def measure(model: ScoreModel, tuned: Tuned, x: Tensor, fine: int) -> Gain:
    """Tuned and untuned side by side on fresh starts (b, *)."""
    exact = reference(model, x, fine)
    coarse = reference(model, x, fine // 2)
    choice = compared(model, x, exact, len(tuned.weights))
    best = choice.probes[0]
    mine = errors(sample(model, x, solver=tuned), exact)
    other = errors(sample(model, x, solver=best.solver, nfe=choice.nfe, walk=best.walk), exact)
    picks = torch.randint(len(x), (RESAMPLES, len(x)), generator=torch.Generator().manual_seed(0))
    ratios = mine[picks].median(1).values / other[picks].median(1).values
    low, high = ratios.quantile(torch.tensor([0.05, 0.95], dtype=ratios.dtype)).tolist()
    floor = float(errors(coarse, exact).median())
    return Gain(float(mine.median()), float(other.median()), str(best), low, high, floor, len(x))

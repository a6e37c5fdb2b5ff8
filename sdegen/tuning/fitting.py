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
from functools import partial
from itertools import chain, pairwise

import torch
from torch import Tensor

from sdegen.checks import flag, whole
from sdegen.model.denoiser import Denoiser, cost_of
from sdegen.model.prediction import predict_x0
from sdegen.programs.registers import Call
from sdegen.programs.table import combined, dense
from sdegen.programs.trace import trace
from sdegen.sampling.march import sample
from sdegen.sampling.plan import calls_of
from sdegen.sampling.recipes import recommended
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE, has_coordinates
from sdegen.solvers.equation import Reverse
from sdegen.solvers.exponential import DataForm
from sdegen.solvers.solver import Solver
from sdegen.solvers.tuned import Gain, Tuned, over
from sdegen.tuning.probes import Choice, Probe, check_model, compared, errors, reference, starts
from sdegen.walks.grids import GRIDS, finite

FORM = DataForm()
RESAMPLES = 200
LEAST = 1e-3
"""No step of a walk is shorter than this part of the mean one, so that none climbs."""
BAD = 1e30
"""The loss where there is none: large, and yet a number that a line search can work with."""
RIVALS = 2
"""Untuned solvers that tuning begins from; the best that was seen on the way is kept."""


class Learner:
    """A multistep solver with one call per step, its walk and its table with gradients.

    The walk's n steps in lam are the parts of the whole that a softmax gives. The solver is traced
    on that walk; where coefficients are learned too, each weight of x0 in its table gets a free
    number added, as a part of the step's own total weight.
    """

    def __init__(self, model: Denoiser, solver: Solver, times: Tensor, coefficients: bool) -> None:
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
        parts = (1.0 - LEAST) * self.gaps.softmax(0) + LEAST / len(self.gaps)
        inner = self.sde.time(self.first + (self.last - self.first) * parts.cumsum(0)[:-1])
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

    def run(self, model: Denoiser, x: Tensor) -> Tensor:
        """The samples (b, *) from starts x (b, *)."""
        levels, known = self.levels(), [x]
        for (t, s), row in zip(pairwise(levels), self.rows(levels), strict=True):
            known.append(model(x, t).x0)
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
    model: Denoiser,
    *,
    nfe: int,
    shape: Sequence[int],
    coefficients: bool = False,
    seeds: int = 512,
    iterations: int = 300,
    fine: int = 200,
    seed: int = 0,
    batch: int = 128,
    watch: Callable[[int, int, float], None] | None = None,
) -> Tuned:
    """The solver of ``nfe`` network calls that comes closest to the model's own flow.

    shape:        of one sample, (*).
    coefficients: learn the weights too, and not the walk alone.
    seeds:        starts to learn from; as many again decide when to stop, and another as many
                  measure the gain.
    iterations:   of the optimiser: a quarter of Adam from the recommended solver and from the best
                  other of ``choose``'s probes, each on its best walk, then L-BFGS.
    fine:         steps of UniPC-3 that the exact flow is taken from.
    batch:        starts whose gradient is taken at once, all nfe calls kept: what bounds memory.
    watch:        called now and then with the iterations done, their total, and the median error
                  on the held-out seeds.

    The loss is the mean over starts of the root-mean-square error at the end. What is kept is what
    was best on the held-out seeds. The cost is about 3 nfe x seeds x iterations network calls.
    Conditions that a model was given are (seeds, *), or the same for all samples.
    ValueError for a model that returns NaN or gives no gradient, for nfe < 2, fine < 2 nfe, an SDE
    without marginals or whose levels differ between coordinates, and fewer seeds than ten times
    what is learned needs.
    """
    nfe = calls_of(model, whole("nfe", nfe))
    if nfe < 2:
        raise ValueError(f"A walk of {nfe} call has nothing to tune: give nfe >= 2.")
    seeds, iterations = whole("seeds", seeds), whole("iterations", iterations)
    batch = whole("batch", batch)
    flag("coefficients", coefficients)
    if whole("fine", fine) < 2 * nfe:
        raise ValueError(
            f"fine = {fine} steps are no reference for {nfe} network calls: give at least "
            f"{2 * nfe}."
        )
    check_model(model, seeds, least=16)
    if watch is not None and not callable(watch):
        raise ValueError(f"watch is called as watch(done, of, error), but it is {watch!r:.60}.")
    if has_coordinates(model.sde):
        raise ValueError(
            "tune learns a walk and weights for levels that are the same for all coordinates, but "
            f'those of {type(model.sde).__name__} differ: use solver="auto".'
        )
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
    learners = rivals(model, compared(model, held, known, nfe), coefficients)
    for k, learner in enumerate(learners):
        for i in chain([0], fit(learner, x, exact, iterations, batch)):
            error = median_error(learner, held, known)
            if watch is not None:
                watch(k * iterations + i, len(learners) * iterations, error)
            if error < best:
                best, kept = error, learner.solver()
    assert kept is not None
    return replace(kept, gain=measure(model, kept, fresh, fine))


def rivals(model: Denoiser, choice: Choice, coefficients: bool) -> list[Learner]:
    """The recommended solver and the best of the others, on their best walks."""
    found: dict[Solver, Probe] = {}
    usual = recommended(choice.nfe)["solver"]
    for probe in sorted(choice.probes, key=lambda probe: probe.solver != usual):
        found.setdefault(probe.solver, probe)
    return [
        Learner(model, solver, GRIDS[probe.walk](model.sde, choice.nfe), coefficients)
        for solver, probe in list(found.items())[:RIVALS]
    ]


@torch.no_grad()
def median_error(learner: Learner, x: Tensor, exact: Tensor) -> float:
    """The median error; infinite where there is none."""
    median = float(errors(learner.run(learner.model, x), exact).median())
    return median if median == median else float("inf")


def fit(learner: Learner, x: Tensor, exact: Tensor, iterations: int, batch: int) -> Iterator[int]:
    """Adam for a quarter of the iterations, then L-BFGS, with a pause every now and then.

    The walk alone at first; coefficients, where they are learned, in the second half.
    """
    rows = torch.arange(len(x)).split(batch)
    parts = [(learner.model.take(i), x[i], exact[i]) for i in rows]

    def closure(known: list[Tensor]) -> float:
        for each in known:
            each.grad = torch.zeros_like(each)
        total = 0.0
        for model, start, end in parts:
            squares = (learner.run(model, start) - end).square().reshape(len(end), -1).mean(1)
            loss = (squares + 1e-24).sqrt().sum() / len(x)  # an error of zero has no slope
            for each, slope in zip(known, torch.autograd.grad(loss, known), strict=True):
                each.grad += slope  # type: ignore[operator]
            total += float(loss.detach())
        fine = all(bool(each.grad.isfinite().all()) for each in known)  # type: ignore[union-attr]
        if fine and math.isfinite(total):
            return total
        for each in known:
            each.grad = torch.zeros_like(each)
        return BAD

    walk, warm, half = learner.parameters[:1], iterations // 4, iterations // 2
    adam = torch.optim.Adam(walk, lr=0.02)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(adam, max(warm, 1))
    for i in range(1, warm + 1):
        adam.step(partial(closure, walk))
        slower.step()
        if i % 10 == 0:
            yield i
    coefficients = len(learner.parameters) > 1
    stages = [(walk, warm, half if coefficients else iterations)]
    if coefficients:
        stages.append((learner.parameters, half, iterations))
    for known, first, last in stages:
        lbfgs = torch.optim.LBFGS(
            known,
            max_iter=10,
            history_size=30,
            tolerance_grad=1e-12,
            tolerance_change=1e-14,
            line_search_fn="strong_wolfe",
        )
        for i in range(first + 10, last + 1, 10):
            lbfgs.step(partial(closure, known))
            yield i


def check_gradient(model: Denoiser, x: Tensor) -> None:
    """Refuse a network through which no gradient passes."""
    start = x[:1].clone().requires_grad_()
    if not model.take(torch.tensor([0])).output(start, model.sde(model.sde.T)).requires_grad:
        raise ValueError(
            "The network's output has no gradient with respect to its input: is it called under "
            "no_grad, or detached?"
        )


def measure(model: Denoiser, tuned: Tuned, x: Tensor, fine: int) -> Gain:
    """Tuned and untuned side by side on fresh starts (b, *)."""
    exact = reference(model, x, fine)
    coarse = reference(model, x, fine // 2)
    choice = compared(model, x, exact, len(tuned.weights))
    best, budget = choice.probes[0], choice.nfe * cost_of(model)
    mine = errors(sample(model, x, solver=tuned), exact)
    other = errors(sample(model, x, solver=best.solver, nfe=budget, walk=best.walk), exact)
    picks = torch.randint(len(x), (RESAMPLES, len(x)), generator=torch.Generator().manual_seed(0))
    medians = (each[picks].median(1).values.tolist() for each in (mine, other))
    ratios = torch.tensor([over(*pair) for pair in zip(*medians, strict=True)]).double()
    low, high = ratios.quantile(torch.tensor([0.05, 0.95], dtype=ratios.dtype)).tolist()
    floor = float(errors(coarse, exact).median())
    return Gain(float(mine.median()), float(other.median()), str(best), low, high, floor, len(x))

"""Orders, measured: how fast a solver's errors fall as its steps shrink.

On problems whose score is exact. The flow's order is that of the path of eta = 0 on a mixture; the
weak order that of the law on Gaussian data, exactly and without sampling; the strong order that of
the path on one Brownian motion.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sdegen.exact.distributions import Gaussian, Mixture, exact_model
from sdegen.noise.brownian import Brownian
from sdegen.noise.source import Noise
from sdegen.sampling.march import solve
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE
from sdegen.solvers.adaptive import Adaptive
from sdegen.solvers.classical import RK5
from sdegen.solvers.equation import Eta, Reverse
from sdegen.solvers.solver import Solver
from sdegen.walks.grids import log_snr
from sdegen.walks.walk import levels

MEANS, STDS, WEIGHTS = [[-1.0, 0.3], [0.8, -0.6], [0.3, 1.0]], [0.5, 0.4, 0.6], [0.3, 0.45, 0.25]


def mixture() -> Mixture:
    """Three modes that overlap, so that convergence is seen from a few dozen steps on."""
    return Mixture(MEANS, STDS, WEIGHTS)


def slope(errors: Sequence[float], ratio: float = 2.0) -> float:
    """The order between the last two of errors at step sizes that fall by a ratio."""
    return [math.log(a / b, ratio) for a, b in pairwise(errors)][-1]


def flow_order(solver: Solver, sde: LinearSDE, steps: Sequence[int] = (128, 256)) -> float:
    """Of the path on the probability flow of a mixture, equal steps in lam."""
    model, x = exact_model(mixture(), sde), starts(sde, 16)
    exact = solve(model, x, solver=RK5("lam"), steps=1024).x
    ends = [solve(model, x, solver=solver, steps=n, eta=0.0, seed=0).x for n in steps]
    return slope([rms(end - exact) for end in ends])


def attempt_order(solver: Adaptive, sde: LinearSDE, steps: Sequence[int] = (128, 256)) -> float:
    """Of an adaptive solver's own step, taken at equal steps in lam without control."""
    model, x = exact_model(mixture(), sde), starts(sde, 16)
    exact, p = solve(model, x, solver=RK5("lam"), steps=1024).x, Reverse(model)
    errors = []
    for n in steps:
        y, known = x, None
        for t, s in pairwise(levels(sde, log_snr(sde, n))):
            y, _, _, known, _ = solver.attempt(p, y, t, s, known)
        errors.append(rms(y - exact))
    return slope(errors)


def weak_order(
    solver: Solver, sde: LinearSDE, eta: Eta | None = None, steps: Sequence[int] = (128, 256)
) -> float:
    """Of mean and variance on Gaussian data, wide and narrow."""
    errors = []
    for n in steps:
        mean, var = law(solver, sde, n, eta)
        errors.append(float(mean.abs().sum() + var.abs().sum()))
    return slope(errors)


def strong_order(
    solver: Solver,
    sde: LinearSDE,
    eta: Eta | None = None,
    steps: Sequence[int] = (64, 128),
    finest: int = 512,
) -> float:
    """Of the path on a mixture and one Brownian motion, against many steps of the same solver.

    By the median of the samples' errors: one that ends in another mode decides a mean.
    """
    model, x = exact_model(mixture(), sde), starts(sde, 48)
    fine = log_snr(sde, finest)

    def end(n: int) -> Tensor:
        noise = Brownian(0, sde.T)
        return solve(model, x, solver=solver, walk=fine[:: finest // n], eta=eta, noise=noise).x

    exact = end(finest)
    return slope([float((end(n) - exact).norm(dim=1).median()) for n in steps])


def law(
    solver: Solver,
    sde: LinearSDE,
    walk: int | Tensor,
    eta: Eta | None = None,
    mean: Sequence[float] = (0.3, -0.2),
    var: Sequence[float] = (0.25, 1e-4),
) -> tuple[Tensor, Tensor]:
    """Exact errors of a sampler's mean (d,) and, relative, variance (d,) on Gaussian data.

    On a Gaussian a sampler is affine in x_T and in each of its draws: row 0 of a batch starts at
    zero, row 1 at one, and row k + 2 gets draw k alone. Their differences are its coefficients,
    and so its law. Of the two coordinates by default one is wide, one narrow: the narrow one shows
    errors made at small sigma. walk: times, or a number of equal steps in lam.
    """
    m, v = (torch.tensor(each, dtype=torch.float64) for each in (mean, var))
    model = exact_model(Gaussian(m, v), sde)
    times = log_snr(sde, walk) if isinstance(walk, int) else walk
    top, bottom = ends(sde)
    count, probe = Impulses(), Impulses()
    one = torch.zeros(1, len(m), dtype=torch.float64)
    solve(model, one, solver=solver, eta=eta, steps=2, noise=count)
    x = torch.zeros(count.k * (len(times) - 1) // 2 + 2, len(m), dtype=torch.float64)
    x[1] = 1
    y = solve(model, x, solver=solver, eta=eta, walk=times, noise=probe).x
    unit = y[1:] - y[0]
    got_mean = y[0] + unit[0] * top.alpha * m
    got_var = unit[0] ** 2 * (top.alpha**2 * v + top.sigma**2) + unit[1:].square().sum(0)
    exact_var = bottom.alpha**2 * v + bottom.sigma**2
    return got_mean - bottom.alpha * m, got_var / exact_var - 1


class Impulses(Noise):
    """One-hot noise: draw k is one in row k + 2 of the batch alone; ``k`` counts the draws."""

    def __init__(self) -> None:
        self.k = 0

    def __call__(self, x: Tensor, t: Level, s: Level) -> Tensor:  # type: ignore[override]
        """The next draw."""
        z = torch.zeros_like(x)
        self.k += 1
        z[self.k + 1 :][:1] = 1
        return z


def ends(sde: LinearSDE) -> tuple[Level, Level]:
    """The levels at T and at t_min."""
    top, bottom = sde(torch.tensor([sde.T, sde.t_min], dtype=torch.float64)).unbind()
    assert isinstance(top, Level) and isinstance(bottom, Level)
    return top, bottom


def starts(sde: LinearSDE, n: int) -> Tensor:
    """States (n, 2) at T of the mixture, the same ones whatever the SDE."""
    generator = torch.Generator().manual_seed(1)
    top, x0 = ends(sde)[0], mixture().sample(n, generator)
    return top.alpha * x0 + top.sigma * torch.randn(n, 2, generator=generator, dtype=x0.dtype)


def rms(x: Tensor) -> float:
    """Root mean square."""
    return float(x.square().mean().sqrt())

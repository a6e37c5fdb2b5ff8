"""Convergence made measurable: how far a chain's law is from the data's, and what bounds it.

On Gaussian data of independent coordinates a solver's step is affine, gain x + shift + noise, so
its law is known without sampling, step by step. KL(p || p_hat) at the end has three parts, Chen et
al. (2023b), theorem 2, each with a bound:

    start           KL(p_T || prior)
    score           1/2 INT g^2 E |score - score_hat|^2 dt  =  INT E |eps - eps_hat|^2 dlam
    discretisation  of steps as they are, all in one: sum of E KL(p(x_s | x_t) || p_hat(x_s | x_t))

By Girsanov's theorem the second is the limit of the third for small steps, eta = 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from sdegen.exact.distributions import Gaussian
from sdegen.exact.orders import Impulses, ends
from sdegen.model.denoiser import Denoiser
from sdegen.noise.source import Noise
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE, linear
from sdegen.solvers.equation import Reverse
from sdegen.solvers.quadrature import integrate
from sdegen.solvers.solver import Solver, check, check_own_walk
from sdegen.walks.walk import Walk

DRAWS = 16
"""The most that a step may draw."""


class Normal(NamedTuple):
    """N(mean, diag var), (d,) each in float64."""

    mean: Tensor
    var: Tensor

    def kl(self, other: Normal) -> float:
        """KL(self || other), nats."""
        ratio, off = self.var / other.var, (self.mean - other.mean).square() / other.var
        return float(0.5 * (ratio - 1 - ratio.log() + off).sum())


class Affine(NamedTuple):
    """x -> gain x + shift + N(0, var), (d,) each: what a step does to each coordinate."""

    gain: Tensor
    shift: Tensor
    var: Tensor

    def of(self, law: Normal) -> Normal:
        """The law of what comes out."""
        return Normal(self.gain * law.mean + self.shift, self.gain**2 * law.var + self.var)

    def kl(self, other: Affine, law: Normal) -> float:
        """E KL(self(x) || other(x)) over x of a law, nats."""
        gap = Affine(self.gain - other.gain, self.shift - other.shift, 0 * self.var).of(law)
        ratio = self.var / other.var
        off = (gap.mean**2 + gap.var) / other.var
        return float(0.5 * (ratio - 1 - ratio.log() + off).sum())


def affine(move: Callable[[Tensor, Noise], Tensor], d: int) -> Affine:
    """What a move of states (b, d) with noise does, read from zero, from ones and from each draw
    alone: exact where it is affine and no coordinate sees another."""
    noise = Impulses()
    x = torch.zeros(DRAWS + 2, d, dtype=torch.float64)
    x[1] = 1
    y = move(x, noise)
    if noise.k > DRAWS:
        raise ValueError(f"A step has {DRAWS} draws at most here, but this one had {noise.k}.")
    return Affine(y[1] - y[0], y[0], (y[2:] - y[0]).square().sum(0))


def chain_of(
    solver: Solver, model: Denoiser, walk: Walk, d: int, eta: float | None = None
) -> list[Affine]:
    """What each step of a walk does to states (b, d), by the solver's eta or another.

    ValueError for a solver whose steps are not linear, and one that remembers earlier steps.
    """
    p = Reverse(model, solver.eta if eta is None else eta)
    check(solver, p)
    check_own_walk(solver, walk)
    if solver.traits.why_not_linear:
        raise ValueError(f"{solver} has no law in closed form: {solver.traits.why_not_linear}.")

    def of(t: Level, s: Level) -> Affine:
        def move(x: Tensor, noise: Noise) -> Tensor:
            step = solver.step(replace(p, noise=noise), x, t, s)
            if step.memory is not None:
                raise ValueError(
                    f"{solver} remembers earlier steps: its law is exact.law's, of a whole walk."
                )
            return step.x

        return affine(move, d)

    return [of(walk[j], walk[j + 1]) for j in range(walk.steps)]


def end_of(chain: Sequence[Affine], start: Normal) -> Normal:
    """The law at the end of a chain that starts with a law."""
    for step in chain:
        start = step.of(start)
    return start


def marginal(data: Gaussian, level: Level) -> Normal:
    """The law of x_t; ValueError for data whose coordinates depend on each other."""
    cov = torch.as_tensor(data.cov, dtype=torch.float64)
    if cov.ndim != 1:
        raise ValueError(f"Coordinates are independent here: give variances (d,), not {cov}.")
    mean = torch.as_tensor(data.mean, dtype=torch.float64)
    return Normal(level.alpha * mean, level.alpha**2 * cov + level.sigma**2)


def prior_of(sde: LinearSDE, d: int) -> Normal:
    """Where a sampler starts."""
    mean, std = sde.prior.like(torch.empty(1, d, dtype=torch.float64))
    one = torch.ones(d, dtype=torch.float64)
    return Normal(mean.reshape(-1) * one, (std.reshape(-1) * one) ** 2)


def reverse_of(data: Gaussian, t: Level, s: Level) -> Affine:
    """p(x_s | x_t) of the reverse process itself, eta = 1, for a step of any size."""
    here, there = marginal(data, t), marginal(data, s)
    gain = t.alpha / s.alpha * there.var / here.var
    return Affine(gain, there.mean - gain * here.mean, there.var - gain**2 * here.var)


def path_kl(chain: Sequence[Affine], data: Gaussian, walk: Walk) -> float:
    """KL of whole paths, sum of E KL(p(x_s | x_t) || p_hat(x_s | x_t)), from p_T on: a bound on
    that of their ends, by the data-processing inequality."""
    total = 0.0
    for j, step in enumerate(chain):
        t, s = walk[j], walk[j + 1]
        total += reverse_of(data, t, s).kl(step, marginal(data, t))
    return total


def girsanov(sde: LinearSDE, error: Callable[[Level], Tensor]) -> float:
    """INT E |eps - eps_hat|^2 dlam from T to t_min, of the error () at a level: what a wrong score
    costs at most, however small the steps, eta = 1."""
    top, bottom = ends(linear(sde, "Girsanov's bound", "it is an integral over lam"))

    def at(lam: Tensor) -> Tensor:
        return error(sde(sde.time(lam)))

    return float(integrate(at, top.lam, bottom.lam))

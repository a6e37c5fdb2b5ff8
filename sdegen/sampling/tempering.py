"""Denoising MCMC: chains over states and levels, which solvers take down from where they are.

    p(y, i) ~ p_i(y),        y = x / alpha,  p_i the law of x0 + rho_i z

Kim & Ye (2022). A sweep is a Langevin step at the chain's own level and a draw of the level given
the state. At much noise a chain goes from mode to mode; at little, few steps are left to data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import accepted, number, whole
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.noise.source import Noise, Seeded
from sdegen.sampling.march import sample
from sdegen.sampling.plan import HOW
from sdegen.sde.level import Level, expand
from sdegen.sde.process import linear
from sdegen.walks.walk import Walk


@dataclass(frozen=True, eq=False)
class Tempered:
    """States y = x / alpha (b, *), the number of each one's level on the walk (b,), and network
    calls a chain."""

    y: Tensor
    index: Tensor
    nfe: int


@torch.no_grad()
def denoising_gibbs(
    model: Denoiser,
    y: Tensor,
    *,
    walk: Walk,
    log_prob: Callable[[Tensor, Level], Tensor],
    sweeps: int,
    step: float = 0.25,
    index: Tensor | None = None,
    seed: int | Sequence[int] | None = None,
    noise: Noise | None = None,
) -> Tempered:
    """Chains from states y = x / alpha (b, *): one network call a sweep.

    walk:     levels that fall, equal steps in lam for the paper's density 1 / sigma of levels.
    log_prob: of states x (b, *) at a level, (b,), up to one constant: exact, or a classifier's of
              levels.
    step:     of Langevin's, in rho^2: y - step rho eps + sqrt(2 step) rho z. Its law is off by
              step / 2 of the noise's variance at most.
    index:    where chains begin on the walk, (b,); by default at its start.
    noise:    a source, or its seed; by default Seeded(0).

    Chains go on from what they return. ValueError for a walk that climbs or reaches no noise.
    """
    linear(model.sde, "denoising_gibbs", "its levels are those of alpha and sigma")
    refuse_flow_only(model, "denoising_gibbs")
    whole("sweeps", sweeps)
    if not 0 < number("step", step) < 1:
        raise ValueError(f"step lies between 0 and 1, but it is {step!r}.")
    levels = check_falling(walk)
    source = noise if noise is not None else Seeded(0 if seed is None else seed)
    place = torch.zeros(len(y), dtype=torch.int64) if index is None else index.cpu()
    begun = model.nfe
    for k in range(sweeps):
        at = model.sde(walk.times[place])
        assert isinstance(at, Level)
        rho = expand(at.rho, y)
        eps = model(expand(at.alpha, y) * y, at).eps
        z = source.stream(f"langevin {k}")(y, levels[0], levels[-1])
        y = y - step * rho * eps + (2 * step) ** 0.5 * rho * z
        logs = [log_prob(v.alpha * y, v) + y[0].numel() * v.alpha.log() for v in levels]
        place = drawn(torch.stack([log.cpu().double() for log in logs], 1), source, k, levels[0])
    return Tempered(y, place, model.nfe - begun)


def denoised(model: Denoiser, chains: Tempered, walk: Walk, **how: Any) -> tuple[Tensor, float]:
    """Where ``sample`` takes chains down the rest of their walk (b, *), and its calls a chain.

    how: as ``sample``'s, but for walk, steps and t. Chains at one level go together.
    """
    accepted("denoised", how, HOW - {"walk", "steps", "nfe", "t"})
    x, spent = torch.empty_like(chains.y), 0
    for i in chains.index.unique().tolist():
        own = (chains.index == i).nonzero().flatten()
        begun, at = model.nfe, walk[i]
        state = at.alpha * chains.y[own]
        if i == walk.steps:
            x[own] = model(state, at).x0
        else:
            rest = walk.times[i:]
            x[own] = sample(model, state, walk=rest, t=float(rest[0]), **how)
        spent += (model.nfe - begun) * len(own)
    return x, spent / len(x)


def drawn(logs: Tensor, source: Noise, k: int, at: Level) -> Tensor:
    """A level of each chain by its log-weights (b, n): the largest with Gumbel noise."""
    z = source.stream(f"levels {k}")(logs, at, at)
    return (logs - (-torch.special.log_ndtr(z)).log()).argmax(1)


def check_falling(walk: Walk) -> list[Level]:
    """The levels of a walk; ValueError for one that climbs, or has a level without noise."""
    levels = [level for level in walk.levels if isinstance(level, Level)]
    if walk.climbs or not all(float(level.sigma) > 0 for level in levels):
        raise ValueError(f"Chains live on levels that fall and have noise, but this is {walk}.")
    return levels

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
from sdegen.noise.brownian import Brownian
from sdegen.noise.source import Noise, Seeded, check_noise, whole_seed
from sdegen.sampling.choice import resolved
from sdegen.sampling.gradients import allowed, with_graph
from sdegen.sampling.march import sample
from sdegen.sampling.plan import HOW
from sdegen.sde.level import Level, expand
from sdegen.sde.process import SDE, linear
from sdegen.solvers.solver import Solver
from sdegen.walks.walk import Walk


@dataclass(frozen=True, eq=False)
class Tempered:
    """States y = x / alpha (b, *), the number of each one's level on the walk (b,), and network
    calls and sweeps of each chain so far."""

    y: Tensor
    index: Tensor
    nfe: int = 0
    sweeps: int = 0


@torch.no_grad()
def denoising_gibbs(
    model: Denoiser,
    start: Tensor | Tempered,
    *,
    walk: Walk,
    log_prob: Callable[[Tensor, Level], Tensor],
    sweeps: int,
    step: float = 0.25,
    seed: int | Sequence[int] | None = None,
    noise: Noise | None = None,
) -> Tempered:
    """Chains after so many sweeps more, each a network call.

    start:    states y = x / alpha (b, *) at the walk's first level; or chains that go on, where
              sweeps that follow have new noise of the same seed: 5 and 5 are 10, to the bit.
    walk:     levels that fall, equal steps in lam for the paper's density 1 / sigma of levels.
    log_prob: of states x (b, *) at a level, (b,), up to one constant: exact, or a classifier's of
              levels.
    step:     of Langevin's, in rho^2: y - step rho eps + sqrt(2 step) rho z. Of data that are a
              point a chain at one level ends with the variance 2 / (2 - step) rho^2, by
              step / (2 - step) too much; of Gaussian data it has less too much.
    noise:    a source, or its seed; by default Seeded(0).

    ValueError for a walk that climbs or reaches no noise, chains that are not on it, a log_prob
    without a finite number.
    """
    linear(model.sde, "denoising_gibbs", "its levels are those of alpha and sigma")
    refuse_flow_only(model, "denoising_gibbs")
    whole("sweeps", sweeps)
    if not 0 < number("step", step) < 1:
        raise ValueError(f"step lies between 0 and 1, but it is {step!r}.")
    if seed is not None and noise is not None:
        raise ValueError("Give a seed or a noise source, not both.")
    walk, levels = falling(model.sde, walk)
    chains = checked(start, levels)
    given = None if noise is None else check_noise(noise).begun()

    def draw(name: str, like: Tensor, t: Level, s: Level) -> Tensor:
        # A seed's streams are made anew: none of them is kept, of sweeps that never come again.
        source = Seeded(0 if seed is None else seed) if given is None else given
        return source.stream(name)(like, t, s)

    y, place, begun, end = chains.y, chains.index.cpu().long(), model.nfe, chains.sweeps + sweeps
    for k in range(chains.sweeps, end):
        at = model.sde(walk.times[place])
        assert isinstance(at, Level)
        rho = expand(at.rho, y)
        eps = model(expand(at.alpha, y) * y, at).eps
        z = draw(f"langevin {k}", y, levels[0], levels[-1])
        y = y - step * rho * eps + (2 * step) ** 0.5 * rho * z
        logs = log_weights(log_prob, y, levels)
        place = drawn(logs, draw(f"levels {k}", logs, levels[0], levels[0]))
    return Tempered(y, place, chains.nfe + model.nfe - begun, end)


def denoised(model: Denoiser, chains: Tempered, walk: Walk, **how: Any) -> tuple[Tensor, float]:
    """Where ``sample`` takes chains down the rest of their walk (b, *), and its calls a chain.

    how: as ``sample``'s, but for walk, steps and t. Chains at one level go together, but chain i
         has the noise of sample i of a batch, whoever is with it. A source given as ``noise`` must
         know samples by their places, as Brownian does.
    """
    accepted("denoised", how, HOW - {"walk", "steps", "nfe", "t"})
    linear(model.sde, "denoised", "its levels are those of alpha and sigma")
    walk, levels = falling(model.sde, walk)
    chains = checked(chains, levels)
    x, spent, graph = torch.empty_like(chains.y), 0, allowed(how.get("graph"))
    with torch.set_grad_enabled(graph):
        for i in chains.index.unique().tolist():
            own = (chains.index == i).nonzero().flatten()
            begun, part = model.nfe, model.take(own)
            state = levels[i].alpha * chains.y[own]
            if i == walk.steps:
                end = part(state, levels[i]).x0
                x[own] = with_graph(end) if graph else end
            else:
                rest = walk.times[i:]
                told = with_noise_of(own, len(x), how, model.sde)
                x[own] = sample(part, state, walk=rest, t=float(rest[0]), **told)
            spent += (model.nfe - begun) * len(own)
    return x, spent / len(x)


def with_noise_of(own: Tensor, b: int, how: dict[str, Any], sde: SDE) -> dict[str, Any]:
    """``sample``'s arguments for some of b chains, by their places (k,), with their own noise."""
    seed, noise, places = how.get("seed"), how.get("noise"), own.tolist()
    if isinstance(noise, Noise):
        return {**how, "noise": noise.take(own)}
    if seed is None or noise is not None:
        return how
    if not isinstance(seed := whole_seed(seed), int):
        if len(seed) != b:
            raise ValueError(f"{len(seed)} seeds were given for {b} chains.")
        return {**how, "seed": [seed[i] for i in places]}
    solver = resolved(how.get("solver"))
    path = isinstance(solver, Solver) and solver.traits.needs_path
    source = Brownian(seed, sde.T, places) if path else Seeded(seed, places)
    return {**how, "seed": None, "noise": source}


def log_weights(
    log_prob: Callable[[Tensor, Level], Tensor], y: Tensor, levels: list[Level]
) -> Tensor:
    """log p_i(y) of each chain at each level, (b, n), up to one constant."""
    logs = []
    for level in levels:
        log = log_prob(level.alpha * y, level)
        if not isinstance(log, Tensor) or log.shape != y.shape[:1]:
            said = tuple(log.shape) if isinstance(log, Tensor) else log
            raise ValueError(
                f"log_prob gives a tensor of a number for each chain, ({len(y)},), but it gave "
                f"{said!r}."
            )
        logs.append(log.cpu().double() + y[0].numel() * level.alpha.log())
    table = torch.stack(logs, 1)
    if not bool((good := table.amax(1).isfinite()).all()):  # NaN, inf, or -inf at every level
        i = int((~good).nonzero()[0])
        raise ValueError(
            "log_prob must be a number at each level, and finite at one, but of chain "
            f"{i} it is {table[i].tolist()}."
        )
    return table


def drawn(logs: Tensor, z: Tensor) -> Tensor:
    """A level of each chain by its log-weights (b, n) and a normal draw: the largest with Gumbel
    noise."""
    return (logs - (-torch.special.log_ndtr(z)).log()).argmax(1)


def falling(sde: SDE, walk: Walk) -> tuple[Walk, list[Level]]:
    """A walk's times on an SDE, and the levels there; ValueError for one that climbs, or has a
    level without noise."""
    walk = Walk(sde, walk.times)
    levels = [level for level in walk.levels if isinstance(level, Level)]
    if walk.climbs or not all(float(level.sigma) > 0 for level in levels):
        raise ValueError(f"Chains live on levels that fall and have noise, but this is {walk}.")
    return walk, levels


def checked(start: Tensor | Tempered, levels: list[Level]) -> Tempered:
    """Chains that go on, or that begin at the first level; ValueError for what are none."""
    y = start.y if isinstance(start, Tempered) else start
    if not isinstance(y, Tensor) or not y.is_floating_point() or y.ndim < 1 or len(y) == 0:
        said = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else repr(y)
        raise ValueError(f"Chains have floating-point states y (b, *), b >= 1, not {said}.")
    if bool((sick := ~y.reshape(len(y), -1).isfinite().all(1)).any()):
        raise ValueError(f"States must be finite, but chain {int(sick.nonzero()[0])}'s is not.")
    if not isinstance(start, Tempered):
        return Tempered(y, torch.zeros(len(y), dtype=torch.int64))
    index, last = start.index, len(levels) - 1
    whole_numbers = isinstance(index, Tensor) and index.dtype in (torch.int64, torch.int32)
    if (
        not whole_numbers
        or index.shape != y.shape[:1]
        or not 0 <= index.min() <= index.max() <= last
    ):
        raise ValueError(
            f"index has the number of each chain's level, ({len(y)},) whole numbers from 0 to "
            f"{last}, but it is {index!r:.200}."
        )
    return start

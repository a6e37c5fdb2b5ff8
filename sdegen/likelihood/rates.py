"""Lossy compression by Gaussian diffusion: what sending x_t costs, and how far off what is made
of it is.  Theis et al. (2022).

Instead of x0 its noisy x_t is sent, which costs, level by level, what the bound of a chain has
until there (``bounds``):

    rate        KL(q(x_T | x0) || prior) + sum of E KL(q(x_s | x_t, x0) || p(x_s | x_t)),  nats
    distortion  E |x0 - r(x_t)|^2,  r the mean E[x0 | x_t], or where a solver goes from x_t

Data N(m, diag v) with snr = 1 / rho^2 have, on a chain of small steps, rate
1/2 sum log(1 + snr v) and distortions  D = sum v / (1 + snr v)  of the mean,  2 D  of a draw from
p(x0 | x_t), and  sum 2 v (1 - sqrt(snr v / (1 + snr v)))  of the flow: D, as noise falls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from sdegen.checks import number, whole
from sdegen.likelihood.bounds import (
    Variance,
    chain,
    check_variance,
    data_as_seen,
    prior_term,
    step_variance,
    whole_walk,
)
from sdegen.likelihood.ground import source_of
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.model.prediction import LinearPrediction
from sdegen.noise.source import Noise
from sdegen.sampling.march import sample
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE
from sdegen.solvers import DDIM, UniPC
from sdegen.solvers.solver import Solver
from sdegen.solvers.variances import kl
from sdegen.walks.grids import WalkLike, log_snr
from sdegen.walks.walk import Walk

Decoder = Solver | None
"""What makes data of x_t: E[x0 | x_t], None, or a solver on the rest of the walk."""

DECODERS: Mapping[str, Decoder] = MappingProxyType(
    {"mean": None, "ancestral": DDIM(eta=1.0), "flow": UniPC()}
)
"""Theis et al.'s three: the least squared error, DiffC-A and DiffC-F."""


@dataclass(frozen=True, eq=False)
class Point:
    """What it costs to send x_t of each of b samples, and what it is worth.

    level: of x_t.  rate: nats, (b,) in float64.  mse: of each decoder, per dimension, (b,).
    """

    level: Level
    rate: Tensor
    mse: Mapping[str, Tensor]


@torch.no_grad()
def rate_distortion(
    model: Denoiser,
    x: Tensor,
    *,
    decoders: Mapping[str, Decoder] = DECODERS,
    steps: int | None = None,
    walk: WalkLike | None = log_snr,
    points: int = 8,
    variance: Variance = "small",
    seed: int | Sequence[int] | None = None,
    noise: Noise | None = None,
) -> list[Point]:
    """Rates and distortions of data x (b, *) at levels of a chain's walk, from noise to data.

    points:   how many levels, at equal numbers of steps, the last at t_min.
    decoders: by name; a solver goes down the rest of the walk, ending with E[x0 | x].
    variance: of the model's steps, as in ``discrete_elbo``, whose terms the rates are. With that
              of the data given x_t, ``Residual()`` of a trained head or an exact one, steps of any
              length cost no more than small ones.

    Each step has one draw of x_t. ValueError as of ``discrete_elbo``, and for points beyond the
    steps.
    """
    refuse_flow_only(model, "rate_distortion")
    check_variance(variance)
    x0, source = data_as_seen(model, x, None), source_of(seed, noise)
    stops = whole_walk("rate_distortion", model, steps, walk)
    whole("points", points, 1, stops.steps)
    ends = {round(stops.steps * (k + 1) / points) for k in range(points)}
    rate, found = prior_term(model, x0), []
    for j, (x_t, seen, t, s) in enumerate(chain(model, x0, source, stops)):
        if j in ends:
            found.append(Point(t, rate, judged(model, x0, x_t, j, stops, decoders, source)))
        rate = rate + step_rate(seen, x0, t, s, variance).reshape(len(x0), -1).sum(1).cpu()
    last = stops[-1]
    x_t = linear_of(model).mix(x0, last, source.stream("noise at t_min")(x0, last, last))
    mse = judged(model, x0, x_t, stops.steps, stops, decoders, source)
    return [*found, Point(last, rate, mse)]


def step_rate(
    seen: LinearPrediction, x0: Tensor, t: Level, s: Level, variance: Variance
) -> Tensor:
    """KL(q(x_s | x_t, x0) || p(x_s | x_t)) of each coordinate, (b, *), nats."""
    log_v = step_variance(variance, seen, t, s).log()
    return kl(seen.x0, log_v, x0, t, s)


def judged(
    model: Denoiser,
    x0: Tensor,
    x_t: Tensor,
    j: int,
    walk: Walk,
    decoders: Mapping[str, Decoder],
    noise: Noise,
) -> dict[str, Tensor]:
    """Mean squared errors (b,) of what decoders make of x_t at the j-th level of a walk."""
    return {
        name: (decoded(model, x_t, j, walk, decoder, noise.stream(name)) - x0)
        .reshape(len(x0), -1)
        .square()
        .mean(1)
        .cpu()
        for name, decoder in decoders.items()
    }


def decoded(
    model: Denoiser, x_t: Tensor, j: int, walk: Walk, decoder: Decoder, noise: Noise
) -> Tensor:
    """What a decoder makes of states x_t (b, *) at the j-th level of a walk."""
    if decoder is None or j == walk.steps:
        return model(x_t, walk[j]).x0
    rest = walk.times[j:]
    return sample(
        model, x_t, solver=decoder, walk=rest, t=float(rest[0]), denoise=True, noise=noise
    )


def even_walk(model: Denoiser, x: Tensor, bits: float, *, steps: int = 200, seed: int = 0) -> Walk:
    """A walk from T to t_min on which each step costs about as many bits, as the chunks of a
    message should: by the rates of data x (b, *) on so many equal steps in lam.

    ValueError for bits that are not above 0.
    """
    if not number("bits", bits) > 0:
        raise ValueError(f"bits a step must be above 0, but they are {bits!r}.")
    fine = rate_distortion(model, x, decoders={}, steps=steps, points=steps, seed=seed)
    known = torch.stack([point.rate.mean() for point in fine]) / math.log(2)
    lam = torch.stack([point.level.lam for point in fine])
    wanted = torch.arange(1, int(known[-1] / bits) + 1, dtype=torch.float64) * bits
    right = torch.searchsorted(known, wanted).clamp(1, len(known) - 1)
    share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
    sde = linear_of(model)
    inside = sde.time(torch.lerp(lam[right - 1], lam[right], share.clamp(0, 1)))
    inside = inside[(inside > sde.t_min) & (inside < sde.T)]
    ends = torch.tensor([sde.T, sde.t_min], dtype=torch.float64)
    return Walk(sde, torch.cat([ends[:1], inside, ends[1:]]))


def linear_of(model: Denoiser) -> LinearSDE:
    """The model's SDE."""
    assert isinstance(model.sde, LinearSDE)
    return model.sde

"""The variational side: bounds on the likelihood from denoising alone, no divergence, no solver.

log p(x) >= -(prior + diffusion + reconstruction), Kingma et al. (2021), eq. 11, in nats:

    prior           KL of x_T given x against the SDE's prior
    diffusion       INT of E |eps - eps_hat|^2 over lam, from T to t_min, their eqs. 17-18; or the
                    sum over n steps of DDPM, Ho et al. (2020), eq. 5
    reconstruction  E of -log p(x | x_t) at t_min
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sdegen.checks import whole
from sdegen.likelihood.bits import check_images, scale_and_shift
from sdegen.likelihood.flow import check_whole_way
from sdegen.likelihood.ground import (
    check_data,
    check_range,
    failed_samples,
    level_at_T,
    level_at_t_min,
    nonfinite,
    source_of,
    states_at_t_min,
    warn_of_failures,
)
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.model.prediction import LinearPrediction
from sdegen.noise.source import Noise, Seeded
from sdegen.sde.level import Level, expand
from sdegen.sde.process import SDE, LinearSDE, has_coordinates, linear
from sdegen.solvers import DDIM
from sdegen.solvers.budget import walk_for
from sdegen.solvers.variances import Head, decoder, kl, parts
from sdegen.walks.grids import WalkLike, log_snr
from sdegen.walks.walk import Walk

Variance = Literal["small", "large"] | Head
"""Of the model's steps: DDPM's two guesses, or what a network's second output says."""


@dataclass(frozen=True, eq=False)
class Elbo:
    """The three terms of a batch of b, nats, (b,) each in float64; the sum's standard error.

    All NaN for a sample in which a NaN or an infinite value turned up.
    """

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor
    error: Tensor
    nfe: int

    @property
    def value(self) -> Tensor:
        """The bound on log p(x), (b,)."""
        return -(self.prior + self.diffusion + self.reconstruction)

    @property
    def status(self) -> Tensor:
        """Values of ``Status``, (b,)."""
        return nonfinite(self.value)

    @property
    def failed(self) -> list[int]:
        """The places of samples that have no bound."""
        return failed_samples(self.status)

    def bits(self, d: int) -> Tensor:
        """Bits per dimension of d, (b,)."""
        return -self.value / (d * math.log(2))


@dataclass(frozen=True, eq=False)
class LamTimes:
    """Times for the diffusion integral, by a density over lam that is constant on k equal bins.

    weights: of the bins, (k,), any positive numbers. The best are proportional to the root of the
    mean square of the integrand there: ``fitted`` measures it.
    """

    weights: Tensor

    def __call__(self, u: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """lam and the density there, for u in [0, 1] of any shape, on [first, last]."""
        p = (self.weights / self.weights.sum()).to(u)
        k = len(p)
        edges = torch.cat([p.new_zeros(1), p.cumsum(0)])
        edges[-1] = 1.0
        i = (torch.searchsorted(edges, u.contiguous(), right=True) - 1).clamp(0, k - 1)
        inside = ((u - edges[i]) / p[i]).clamp(0, 1)
        return first + (last - first) * (i + inside) / k, p[i] * k / (last - first)


def fitted(
    model: Denoiser, x: Tensor, *, bins: int = 32, draws: int = 128, seed: int = 0
) -> LamTimes:
    """The times that cut the variance of this model's bound most, measured on data x (b, *).

    Its network calls are ``draws`` of the batch, at least one for each of the bins. Samples in
    which a NaN turns up are left out, with a warning; ValueError where none is left.
    """
    whole("bins", bins, 1)
    whole("draws", draws, bins)
    first, last = end_levels(model.sde)
    even = LamTimes(torch.ones(bins, dtype=torch.float64))
    x0 = states_at_t_min(model, check_data(model, x), False)
    lam, _, values = integrand(model, x0, even, draws, Seeded(seed))
    fine = values.isfinite().all(0)
    warn_of_failures("integrands", nonfinite(values.sum(0)))
    if not bool(fine.any()):
        raise ValueError("No sample's integrand is finite: there is nothing to fit times to.")
    lam, values = lam[:, fine], values[:, fine]
    place = ((lam - first.lam) / (last.lam - first.lam) * bins).long().clamp(0, bins - 1).flatten()
    total = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, values.square().flatten())
    count = torch.bincount(place, minlength=bins).clamp(min=1)
    root = (total / count).sqrt()
    return LamTimes(root.clamp(min=1e-3 * float(root.max())))


def elbo(
    model: Denoiser,
    x: Tensor,
    *,
    draws: int = 32,
    times: LamTimes | None = None,
    levels: int | None = None,
    seed: int | Sequence[int] | None = None,
    noise: Noise | None = None,
) -> Elbo:
    """The continuous-time bound of data x (b, *), for any linear SDE.  Kingma et al. (2021).

    draws:  network calls, at stratified times, and of the reconstruction as many draws: sample
            i's j-th time is uniform in the j-th of ``draws`` equal parts of ``times``'
            distribution; the error is that of unstratified ones, and so an upper bound.
    times:  default uniform in lam; ``fitted`` makes better ones.
    levels: None: x is real data, p(x | x_t) = N(x_t / alpha, rho^2), a bound on its density.
            Otherwise x is torch.uint8 below levels, 2 k / (levels - 1) - 1 to the model, and
            p(x | x_t) the softmax of the values' Gaussian log-densities: on its probability.

    A sample in which a NaN or an infinite value turns up is NaN, and a warning names it.
    ValueError for an SDE without marginals, without signal left at T or noise at t_min, draws < 2,
    data of another type, and data outside the model's ``data_range``.
    """
    refuse_flow_only(model, "elbo")
    x0 = data_as_seen(model, x, levels)
    found = continuous_bound(
        model, x0, source_of(seed, noise), draws=draws, times=times, levels=levels
    )
    warn_of_failures("bounds", found.status)
    return found


@torch.no_grad()
def continuous_bound(
    model: Denoiser,
    x0: Tensor,
    noise: Noise,
    *,
    draws: int,
    times: LamTimes | None = None,
    levels: int | None = None,
) -> Elbo:
    """``elbo`` of float64 data x0 (b, *) wherever it lies, without a warning."""
    times = LamTimes(torch.ones(1, dtype=torch.float64)) if times is None else times
    whole("draws", draws, 2)  # of one alone there is no telling the error
    before = model.nfe
    _, density, values = integrand(model, x0, times, draws, noise)
    each, last = values / density, reconstruction_term(model, x0, levels, noise, draws)
    error = ((each.var(0) + last.var(0)) / draws).sqrt()
    return sum_of(prior_term(model, x0), each.mean(0), last.mean(0), error, model.nfe - before)


@torch.no_grad()
def integrand(
    model: Denoiser, x0: Tensor, times: LamTimes, draws: int, noise: Noise
) -> tuple[Tensor, Tensor, Tensor]:
    """lam, its density, and |eps - eps_hat|^2 there, (draws, b) each."""
    first, last = end_levels(model.sde)
    now, one = level_at_t_min(model.sde), x0.new_zeros(len(x0), 1)
    z = torch.cat([noise.stream(f"times {j}")(one, now, now) for j in range(draws)], 1).T
    u = 0.5 * torch.erfc(-z.cpu() / math.sqrt(2))
    u = (torch.arange(draws, dtype=torch.float64)[:, None] + u) / draws
    lam, density = times(u, first.lam, last.lam)
    sde, values = model.sde, []
    assert isinstance(sde, LinearSDE)
    for j, at in enumerate(lam):
        level = sde(sde.time(at).clamp(sde.t_min, sde.T))
        eps = noise.stream(f"noise {j}")(x0, now, now)
        off = model(sde.mix(x0, level, eps), level).eps - eps
        values.append(off.reshape(len(x0), -1).square().sum(1).cpu())
    return lam, density, torch.stack(values)


def discrete_elbo(
    model: Denoiser,
    x: Tensor,
    *,
    steps: int | None = None,
    walk: WalkLike | None = log_snr,
    variance: Variance = "small",
    levels: int | None = None,
    decoded: bool = False,
    seed: int | Sequence[int] | None = None,
    noise: Noise | None = None,
) -> Elbo:
    """The bound of DDPM on a walk of n steps, one network call each.  Ho et al. (2020), eq. 5.

    Step from t to s: KL of q(x_s | x_t, x) against N(mu_hat, v), both Gaussian. variance: "small",
    v is the posterior's own, and a step (e^{2 lam_s} - e^{2 lam_t}) |x - x0_hat|^2 / 2; "large",
    that of the forward kernel: the two ends of Nichol & Dhariwal (2021), sec. 3.1; a ``Head``,
    what the network's second output says. ``error`` is
    NaN: all steps are summed, each with one draw.  Otherwise as ``elbo``, the last term too: for
    values a softmax of Gaussians.  decoded: the last step goes to the values themselves, as
    theirs, eq. 13: the network's x0_hat and the step's variance, rho_s^2 or rho_t^2 for small and
    large, integrated over each value's bin (``solvers.decoder``), in place of its KL and of that
    term.  ValueError for decoded without levels.
    """
    if decoded and levels is None:
        raise ValueError("decoded is of data that have levels: give levels=256, for bytes.")
    refuse_flow_only(model, "discrete_elbo")
    x0 = data_as_seen(model, x, levels)
    found = discrete_bound(
        model,
        x0,
        source_of(seed, noise),
        steps=steps,
        walk=walk,
        variance=variance,
        levels=levels,
        decoded=decoded,
    )
    warn_of_failures("bounds", found.status)
    return found


@torch.no_grad()
def discrete_bound(
    model: Denoiser,
    x0: Tensor,
    noise: Noise,
    *,
    steps: int | None,
    walk: WalkLike | None = log_snr,
    variance: Variance = "small",
    levels: int | None = None,
    decoded: bool = False,
) -> Elbo:
    """``discrete_elbo`` of float64 data x0 (b, *) wherever it lies, without a warning."""
    learned = None if isinstance(variance, str) else variance
    check_variance(variance)
    before = model.nfe
    walk = whole_walk("discrete_elbo", model, steps, walk)
    total = torch.zeros(len(x0), dtype=torch.float64)
    for _, seen, t, s in chain(model, x0, noise, walk):
        if decoded and levels is not None and s is walk[-1]:
            guess = -2 * (s if variance == "small" else t).lam
            log_v = (
                learned.log_decoded(seen, t, s) if learned else torch.as_tensor(expand(guess, x0))
            )
            last = decoder(seen.x0, log_v, x0, levels).reshape(len(x0), -1).sum(1).cpu()
            continue
        log_v = step_variance(variance, seen, t, s).log()
        total = total + kl(seen.x0, log_v, x0, t, s).reshape(len(x0), -1).sum(1).cpu()
    if not decoded:
        last = reconstruction_term(model, x0, levels, noise, 1)[0]
    unknown = torch.full_like(total, math.nan)
    return sum_of(prior_term(model, x0), total, last, unknown, model.nfe - before)


# ------------------------------------------------------------------------------------- the steps


def whole_walk(who: str, model: Denoiser, steps: int | None, walk: WalkLike | None) -> Walk:
    """The walk of a chain from T to t_min; ValueError for one that goes another way."""
    if steps is None and (walk is None or isinstance(walk, str) or callable(walk)):
        raise ValueError(f"{who} takes steps, their number, or a walk given as times.")
    end_levels(model.sde)
    return check_whole_way(walk_for(DDIM(), model.sde, steps=steps, walk=walk))


def chain(
    model: Denoiser, x0: Tensor, noise: Noise, walk: Walk
) -> Iterator[tuple[Tensor, LinearPrediction, Level, Level]]:
    """Of every step from t to s: x_t of data x0 (b, *), drawn anew, what the model says, t, s."""
    sde, now = model.sde, end_levels(model.sde)[1]
    assert isinstance(sde, LinearSDE)
    for j in range(walk.steps):
        t, s = walk[j], walk[j + 1]
        x_t = sde.mix(x0, t, noise.stream(f"noise {j}")(x0, now, now))
        yield x_t, model(x_t, t), t, s


def step_variance(variance: Variance, seen: LinearPrediction, t: Level, s: Level) -> Tensor:
    """Of the model's step from t to s at mean_eta = 1: DDPM's small or large, (), or a head's,
    (b, *)."""
    if not isinstance(variance, str):
        return variance.variance(seen, t, s, 1.0)
    return parts(t, s, 1.0)[0] * (s if variance == "small" else t).sigma ** 2


def check_variance(variance: Variance) -> None:
    """ValueError for what is neither "small", "large" nor a head."""
    if isinstance(variance, str) and variance not in ("small", "large"):
        raise ValueError(f"variance must be 'small' or 'large', but it is {variance!r}.")


# ------------------------------------------------------------------------------------- the terms


def sum_of(prior: Tensor, diffusion: Tensor, last: Tensor, error: Tensor, nfe: int) -> Elbo:
    """The bound of these terms, (b,) each, NaN where one of them is not finite."""
    failed = nonfinite(prior + diffusion + last) != 0
    a, b, c, e = (v.masked_fill(failed, math.nan) for v in (prior, diffusion, last, error))
    return Elbo(a, b, c, e, nfe)


def end_levels(sde: SDE) -> tuple[Level, Level]:
    """The levels at T and t_min; ValueError for an SDE without marginals, without signal left at
    the one or noise at the other."""
    sde = linear(sde, "A variational bound", "use log_prob, which needs neither")
    if has_coordinates(sde):
        raise ValueError(
            "A variational bound is an integral over one lam, but levels of "
            f"{type(sde).__name__} differ between coordinates: use log_prob."
        )
    last = level_at_t_min(sde)
    assert isinstance(last, Level)
    return level_at_T(sde), last


def data_as_seen(model: Denoiser, x: Tensor, levels: int | None) -> Tensor:
    """Data as the model sees it, (b, *) in float64."""
    end_levels(model.sde)
    if levels is None:
        return states_at_t_min(model, check_data(model, x), False)
    check_images(x, levels)
    scale, shift = scale_and_shift(levels, centred=True)
    return check_range(model, x.to(model.device).double() * scale + shift)


def prior_term(model: Denoiser, x0: Tensor) -> Tensor:
    """KL of N(alpha x, sigma^2) at T against the prior, (b,)."""
    top = end_levels(model.sde)[0]
    return model.sde.prior.kl_from(expand(top.alpha, x0) * x0, top.sigma).cpu()


def reconstruction_term(
    model: Denoiser, x0: Tensor, levels: int | None, noise: Noise, draws: int
) -> Tensor:
    """Draws (draws, b) of -log p(x | x_t) at t_min."""
    at: Level = end_levels(model.sde)[1]
    if levels is None:
        return entropy(at, x0[0].numel()).expand(draws, len(x0))
    grid = torch.arange(levels, dtype=x0.dtype, device=x0.device) * (2 / (levels - 1)) - 1
    k, own = ((x0 + 1) * (levels - 1) / 2).round().long(), noise.stream("reconstruction")
    found = []
    for _ in range(draws):
        y = x0 + expand(at.rho, x0) * own(x0, at, at)
        logits = -0.5 * (y[..., None] - grid) ** 2 / at.rho.to(y.device) ** 2
        log_p = logits.log_softmax(-1).gather(-1, k[..., None])
        found.append(-log_p.reshape(len(x0), -1).sum(1).cpu())
    return torch.stack(found)


def entropy(at: Level, d: int) -> Tensor:
    """E of -log p(x | x_t) for p(x | x_t) = N(x_t / alpha, rho^2) in d dimensions: the same for
    every x, ()."""
    return d * (0.5 * math.log(2 * math.pi * math.e) - at.lam)

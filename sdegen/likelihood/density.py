"""Likelihoods: the probability flow is a normalising flow, whose density any solver follows.

Along dx/dt = v(x, t) a sample's log-density falls by div v. In y = x / alpha, rho = sigma / alpha
every linear SDE has the flow dy/drho = eps, so that  d log p / drho = -alpha tr(d eps / dx).
A state here is a sample and, beside it, what its density gained: (b, 1 + k, *), one part for each
of k estimates of the divergence. To a solver that is a state like any other, of a model that
predicts these parts too: so every ODE solver, in any clock, gives a likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, log1p

from sdegen.checks import accepted
from sdegen.likelihood.divergence import Divergence, Kind, depends
from sdegen.likelihood.flow import along, check_whole_way, flow_plan
from sdegen.likelihood.ground import (
    check_data,
    failed_samples,
    level_at_T,
    level_at_t_min,
    source_of,
    states_at_t_min,
    warn_of_failures,
)
from sdegen.model.denoiser import Around, Denoiser
from sdegen.model.prediction import LinearPrediction, Target, predict_velocity
from sdegen.noise.source import Noise
from sdegen.sampling.plan import WAY, Way, calls_and_status
from sdegen.sde.level import Instant, expand, with_marginals
from sdegen.sde.process import SDE, LinearSDE, has_coordinates
from sdegen.solvers import AdaptiveMultistep, AdaptiveRK, Solver
from sdegen.solvers.equation import Reverse

if TYPE_CHECKING:
    from typing_extensions import Unpack

FEW = 2
"""Up to so many dimensions a probe the divergence is exact by default: in up to four, for two
probes, it took 0.9 to 1.5 times as long (an MLP, batches of 16 and 512, one CPU thread)."""
ALIKE = 1e-7
"""Estimates of a log-density that differ by less, beside it, are the same to rounding."""
OWN = frozenset({"divergence", "probes", "chunk", "seed", "noise", "scaled"})
"""What ``log_prob`` takes beside a way."""


@dataclass(frozen=True, eq=False)
class LogProb:
    """Log-densities of a batch of b.

    value:  nats, (b,) float64; NaN where the solve failed.
    error:  the standard error of each, (b,): 0 for an exact divergence; NaN where it cannot be
            told: from a single probe, and from probes that all say the same, as random signs may
            in few dimensions. Of k probes it is itself an estimate: value and truth lie apart by
            Student's t of k - 1 degrees of freedom, within three errors 80 % of the time for
            k = 2, 96 % for 5.
    z:      where the flow takes the data, x_T (b, *).
    nfe:    network calls, (b,); status: values of ``Status``, (b,).
    vjps:   products with the network's transposed Jacobian, for the batch at once.
    """

    value: Tensor
    error: Tensor
    z: Tensor
    nfe: Tensor
    status: Tensor
    vjps: int = 0

    @property
    def failed(self) -> list[int]:
        """The places of samples whose solve failed."""
        return failed_samples(self.status)


def log_prob(
    model: Denoiser,
    x: Tensor,
    *,
    divergence: Kind | None = None,
    probes: int | None = None,
    chunk: int | None = None,
    seed: int | Sequence[int] | None = None,
    noise: Noise | None = None,
    scaled: bool = True,
    **how: Unpack[Way],
) -> LogProb:
    """log p(x) in nats of data x (b, *) under the model's flow.  Song et al. (2021), app. D.2.

    solver: any that follows the flow; default ``AdaptiveMultistep`` to 1e-5, 1e-6 with an exact
            divergence, or, where the SDE has no marginals, ``AdaptiveRK`` in t. Fixed solvers take
            steps, nfe or walk as ``solve`` does, here from t_min up to T.
    divergence, probes, chunk: see ``Divergence``, default 2 probes and 64 rows. By default exact
            in up to twice as many dimensions as probes, where it costs about as much, and of
            random signs beyond. Probes stay the same along a solve.
    seed:   of the probes, default 0: an int (sample i has stream (seed, i)) or one int per sample,
            whose value then does not depend on the batch around it (nor do its steps); or
            ``noise``, a source.
    scaled: the flow ends at t_min, where x_t = alpha x0 + sigma z. True: the density at x of
            x0 + rho z, rho = sigma / alpha: the data's own, smoothed by the noise that is left,
            which is off by rho^2 / 2 times the Laplacian of p. False: that of x_t at x itself, as
            Song et al. have it; for SDEs without marginals there is no other.

    Where x requires gradients the values have them, through every step of the solver. float64
    throughout, but for the network. One network call per evaluation, and a backward pass a probe.
    ValueError for integer data, data outside the model's ``data_range``, a stochastic solver,
    probes < 1 or of an exact divergence, chunks of one that is estimated, and a network whose
    output does not depend on its input, as far as autograd sees. A sample whose solve fails is
    NaN, and a warning names it; the others are not affected.
    """
    accepted("log_prob", how, WAY | OWN)
    found = density(
        model,
        check_data(model, x),
        source_of(seed, noise),
        divergence=divergence,
        probes=probes,
        chunk=chunk,
        scaled=scaled,
        **how,
    )
    warn_of_failures("likelihoods", found.status)
    return found


def density(
    model: Denoiser,
    x: Tensor,
    noise: Noise,
    *,
    divergence: Kind | None = None,
    probes: int | None = None,
    chunk: int | None = None,
    scaled: bool = True,
    **how: Unpack[Way],
) -> LogProb:
    """``log_prob`` of data wherever it lies, without a warning: ``status`` says what failed."""
    sde, trace = model.sde, trace_of(divergence, probes, chunk, x[0].numel())
    y, at = states_at_t_min(model, x, scaled), level_at_t_min(sde)
    if isinstance(sde, LinearSDE):
        level_at_T(sde)
    lifted = lift(model, trace, y, noise.stream("probe"), at)
    before, products = model.nfe, model.vjps
    with torch.set_grad_enabled(x.requires_grad):
        state = torch.cat([y[:, None], y.new_zeros(len(y), trace.estimates, *y.shape[1:])], 1)
        plan = flow_plan(model, y, how, default_solver(sde, trace))
        check_whole_way(plan.walk)
        check_clock(plan.solver, sde)
        end, tallies = along(plan, lifted, state, upward=True)
        z, gains = end[:, 0], end[:, 1:].reshape(len(x), trace.estimates, -1).sum(2)
        gain = gained(sde, gains, at, plan.walk[0], y, scaled)
        value = sde.prior.log_prob(z)[:, None] + gain
    together = 0 if tallies else model.nfe - before
    calls, status = calls_and_status(value.detach(), tallies, together)
    value = value.masked_fill((status != 0)[:, None], math.nan)
    error = standard_error(value, trace)
    return LogProb(value.mean(1), error, z, calls, status, model.vjps - products)


def trace_of(kind: Kind | None, probes: int | None, chunk: int | None, n: int) -> Divergence:
    """How the divergence of n dimensions is found, of what was said of it; ValueError for what
    would go unheard."""
    usual = Divergence()
    chosen = Divergence(
        usual.kind if kind is None else kind,
        usual.probes if probes is None else probes,
        usual.chunk if chunk is None else chunk,
    )
    if kind is None and n <= FEW * chosen.probes:  # which its probes have said
        return replace(chosen, kind="exact")
    if kind == "exact" and probes is not None:
        raise ValueError(
            f"probes = {probes!r} says nothing of divergence='exact', which has no probes: leave "
            "out one of them."
        )
    if chosen.kind != "exact" and chunk is not None:
        usually = "" if kind else f", which is the usual one in {n:,} dimensions"
        raise ValueError(
            f"chunk = {chunk!r} is how many rows divergence='exact' finds at once, and says "
            f"nothing of divergence={chosen.kind!r}{usually}: leave chunk out, or give "
            "divergence='exact'."
        )
    return chosen


def default_solver(sde: SDE, trace: Divergence) -> Solver:
    """To Song et al.'s tolerances, or a tenth of them where no probe's luck hides the solver's
    error: their Dormand-Prince where there are no marginals, elsewhere Adams' methods in lam,
    which need fewer calls and are closer."""
    tol = 1e-6 if trace.kind == "exact" else 1e-5
    return (AdaptiveMultistep if one_level(sde) else AdaptiveRK)(rtol=tol, atol=tol)


def one_level(sde: SDE) -> bool:
    """Whether a density can be followed in lam: of one level, the same for all coordinates."""
    return isinstance(sde, LinearSDE) and not has_coordinates(sde)


def check_clock(solver: Solver, sde: SDE) -> None:
    """Refuse a solver in lam where a density is followed in t."""
    if has_coordinates(sde) and solver.traits.needs_marginals:
        raise ValueError(
            f"{solver} works with alpha and sigma, but a density where levels differ between "
            f"coordinates, as those of {type(sde).__name__}, is followed in t: use AdaptiveRK(), "
            "Heun() or another that needs neither."
        )


def standard_error(values: Tensor, trace: Divergence) -> Tensor:
    """Of the mean of a sample's estimates (b, k), (b,); NaN where one of them is."""
    if trace.kind == "exact":
        return (0 * values.detach()[:, 0]).abs()  # NaN where a value is
    if values.shape[1] == 1:
        return torch.full_like(values.detach()[:, 0], math.nan)
    spread, size = values.detach().std(1), values.detach().abs().amax(1).clamp(min=1.0)
    # In two dimensions two draws of signs are one, up to sign, half of the time: agreement is no
    # evidence then.
    return (spread / math.sqrt(values.shape[1])).masked_fill(spread <= ALIKE * size, math.nan)


# ------------------------------------------------------------------- the state and its density


def lift(model: Denoiser, trace: Divergence, x: Tensor, noise: Noise, at: Instant) -> Reverse:
    """The flow of samples and of their densities."""
    probes = trace.draw(x, noise, at)
    if one_level(model.sde):
        return Reverse(Lifted(model, trace, probes))
    return LiftedFlow(model, trace=trace, probes=probes)


def with_gradients(model: Denoiser, x: Tensor, t: Any) -> tuple[Any, Tensor, bool]:
    """A prediction made with gradients, the state it was made at, and whether they are wanted."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        y = x if x.requires_grad else x.detach().requires_grad_()
        seen = model(y, t)
        if not depends(seen.F, y):
            raise ValueError(
                "The network's output has no gradient with respect to its input, which a "
                "divergence needs: does it detach its input, or run under no_grad or "
                "inference_mode?"
            )
        return seen, y, graph


@dataclass(frozen=True, eq=False)
class Lifted(Around):
    """A score model of states (b, 1 + k, *): the sample, and n times what its density gained.

    n^2 = alpha^2 + sigma^2, so that the parts are no worse conditioned than the sample. The gain
    is measured beside that of standard normal data, d/2 log(1 + rho^2), whose part in a solver's
    error is thereby none. It is said by its velocity, to which x0 and eps follow.
    """

    model: Denoiser
    trace: Divergence
    probes: Tensor

    @property
    def data_range(self) -> None:
        """Of states, which lie anywhere."""
        return None

    @property
    def target(self) -> Target:
        """The velocity, in which the parts beside the sample are said too."""
        return predict_velocity

    def take(self, index: Tensor) -> Lifted:
        """For some samples of the batch."""
        return replace(self, model=self.model.take(index), probes=self.probes[index])

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """The velocity alone, (b, 1 + k, *)."""
        return self(x, level).F

    def __call__(self, x: Tensor, t: Any) -> LinearPrediction:
        """Velocities: of the sample, and of n l, where dl/drho is

        alpha tr(d eps / dx) - d rho / (1 + rho^2), the same share of it at every coordinate.
        """
        seen, y, graph = with_gradients(self.model, x[:, 0], t)
        level = with_marginals(seen.level)
        alpha, sigma, d_alpha, d_sigma = level.alpha, level.sigma, level.d_alpha, level.d_sigma
        n2 = alpha**2 + sigma**2
        with torch.enable_grad():
            rest = expand(alpha, y) * seen.eps - expand(alpha * sigma / n2, y) * y
        parts = spread_evenly(self.trace(rest, y, self.probes, graph), y)
        self.model.count(vjps=self.trace.products(y[0].numel()))
        d_rho = (alpha * d_sigma - sigma * d_alpha) / alpha**2
        d_n = (alpha * d_alpha + sigma * d_sigma) / n2  # over n
        parts = expand(n2.sqrt() * d_rho, x) * parts + expand(d_n, x) * x[:, 1:]
        velocity = torch.cat([seen.velocity[:, None], parts], 1)
        velocity = velocity if graph else velocity.detach()
        return LinearPrediction(x, velocity, level, d_alpha, d_sigma)


def spread_evenly(total: Tensor, x: Tensor) -> Tensor:
    """Sums (b, k) as states (b, k, *), the same share at every coordinate of x (b, *).

    So that a tolerance of the solver's means nats per dimension.
    """
    share = total.to(x) / x[0].numel()
    return share.reshape(*share.shape, *[1] * (x.ndim - 1)).expand(*share.shape, *x.shape[1:])


@dataclass(frozen=True)
class LiftedFlow(Reverse):
    """The same in SDE time: dx/dt = v and div v beside it.  For SDEs that have no marginals, or
    levels that differ between coordinates, for which one lam stands as little."""

    trace: Divergence = field(kw_only=True)
    probes: Tensor = field(kw_only=True)

    def take(self, index: Tensor) -> LiftedFlow:
        """For some samples of the batch."""
        return replace(self, model=self.model.take(index), probes=self.probes[index])

    def drift(self, x: Tensor, t: Instant) -> Tensor:
        """The sample's drift and its divergence, (b, 1 + k, *)."""
        seen, y, graph = with_gradients(self.model, x[:, 0], t)
        with torch.enable_grad():
            v = seen.drift(0.0)
        both = torch.cat([v[:, None], spread_evenly(self.trace(v, y, self.probes, graph), y)], 1)
        self.model.count(vjps=self.trace.products(y[0].numel()))
        return both if graph else both.detach()


def gained(sde: SDE, w: Tensor, at: Instant, top: Instant, y: Tensor, scaled: bool) -> Tensor:
    """log p at t_min less log p at T, (b, k), from the sums w (b, k) of a solve's last parts, for
    states y (b, *) at t_min."""
    if not isinstance(sde, LinearSDE):
        return w
    first, last, n = with_marginals(at), with_marginals(top), y[0].numel()
    if has_coordinates(sde):  # each of which x_t has stretched by its own alpha
        stretched = torch.ones_like(y) * expand(first.alpha.log(), y)
        return w + stretched.reshape(len(y), -1).sum(1)[:, None] if scaled else w
    usual = n / 2 * (log1p(last.rho**2) - log1p(first.rho**2))
    # In y = x / alpha; x_T and, unless y itself is asked for, x_t have densities of their own.
    change = n * last.alpha.log() - (0.0 if scaled else n * first.alpha.log())
    return w / (last.alpha**2 + last.sigma**2).sqrt() + usual + change

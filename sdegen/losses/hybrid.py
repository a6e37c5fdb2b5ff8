"""The loss of a mean and a variance.  Nichol & Dhariwal (2021)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sdegen.checks import number, whole
from sdegen.likelihood.bits import scale_and_shift
from sdegen.losses.dsm import check_data, regression
from sdegen.losses.times import Draw, LossHistory, independent
from sdegen.losses.weightings import Weighting
from sdegen.model.denoiser import refuse_flow_only
from sdegen.model.prediction import LinearPrediction
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE, linear, refuse_learned
from sdegen.solvers.variances import Head, Range, Square, check_head, decoder, kl
from sdegen.walks.grids import Grid, log_snr

BETWEEN = 16
"""Places between two levels of a grid at which a step of ``variance_loss`` may begin."""


def hybrid_loss(
    model: Any,
    x0: Tensor,
    *,
    head: Head,
    steps: int = 1000,
    share: float = 1e-3,
    weighting: str | Weighting = "sigma2",
    grid: Grid = log_snr,
    levels: int | None = None,
    history: LossHistory | None = None,
    draw: Draw = independent,
    generator: torch.Generator | None = None,
) -> Tensor:
    """L_simple + share steps L_head, one loss per sample (b,).  Nichol & Dhariwal (2021), eq. 16.

    At a random step t -> s of grid(sde, steps): the squared error of the mean in eps, weighted,
    and what ``head`` is trained on, the mean a constant to it: one call. L_head times the number
    of steps is an estimate of their sum, as ``Range``'s is of the bound, in nats per dimension.

    levels:  of data that have so many values, 2 k / (levels - 1) - 1: the last step's term of
             ``Range`` is then ``decoder``'s, as theirs is; None: a KL like the others.
    history: where steps are drawn; None: uniformly.
    model: of two heads.  ValueError for one head, for a grid that ends without noise where the
    head is ``Range``, for levels of another head or that the data have not, and for data as
    ``dsm_loss`` has it.
    """
    number("share", share, 0)
    check_head(head, "hybrid_loss")
    refuse_levels(x0, levels, head)
    sde, times = of_grid(model, x0, "hybrid_loss", grid, whole("steps", steps))
    refuse_no_noise(sde, times, head)
    place = draw(len(x0), x0.device, generator)
    ratio = torch.ones_like(place)
    if history is not None:
        place, ratio = history(place)
    i = (place * steps).long().clamp(max=steps - 1)
    drawn = asked(model, x0, times[i], times[i + 1], generator)
    said, t, s = drawn.said, drawn.t, drawn.s
    mean = regression(model, drawn.x, t, x0, drawn.z, weighting, F=said.F)
    each = head.loss(said, x0, drawn.z, t, s)
    if levels is not None:
        last = (i == steps - 1).reshape(-1, *[1] * (x0.ndim - 1))
        log_v = torch.where(last, head.log_decoded(said, t, s), 0.0)
        each = torch.where(last, decoder(said.x0.detach(), log_v, x0, levels), each)
    loss = mean + share * steps * each.reshape(len(x0), -1).mean(1)
    if history is not None:
        history.seen(place, loss)
    return ratio.to(loss) * loss


def variance_loss(
    model: Any,
    x0: Tensor,
    *,
    head: Head,
    steps: int = 25,
    grid: Grid = log_snr,
    draw: Draw = independent,
    generator: torch.Generator | None = None,
) -> Tensor:
    """What a second output is trained on where the mean is trained already, (b,).

    The terms of the bound, in nats per dimension: of a step that begins anywhere on
    grid(sde, steps) and is one of its steps long, the KL that the bound of ``steps`` steps is a
    sum of, times their number, the mean a constant. Over the variance it is least at
    small + w^2 E[(x0 - x0_hat)^2 | x_t] whatever the step, so that ``Residual`` comes to
    E[(eps - eps_hat)^2 | x_t]; below 0, where it has no slope, it must not begin (``Joined``).

    Of ``Square`` its own mean of (z^2 - more)^2, least at E[eps^2 | x_t], as Bao et al. (2022b)
    have it: where its variance would be below 0 and is taken for 0, the bound has no slope.

    ValueError as of ``hybrid_loss``.
    """
    check_head(head, "variance_loss")
    sde, times = of_grid(model, x0, "variance_loss", grid, whole("steps", steps) * BETWEEN)
    refuse_no_noise(sde, times, Range())
    n = len(times) - BETWEEN
    i = (draw(len(x0), x0.device, generator) * n).long().clamp(max=n - 1)
    drawn = asked(model, x0, times[i], times[i + BETWEEN], generator)
    if isinstance(head, Square):
        own = head.loss(drawn.said, x0, drawn.z, drawn.t, drawn.s)
        return own.reshape(len(x0), -1).mean(1)
    log_v = head.variance(drawn.said, drawn.t, drawn.s, 1.0).log()
    each = kl(drawn.said.x0.detach(), log_v, x0, drawn.t, drawn.s)
    return steps * each.reshape(len(x0), -1).mean(1)


class Drawn(NamedTuple):
    """A step from t to s, a state at t, its noise, and what the model says there."""

    t: Level
    s: Level
    z: Tensor
    x: Tensor
    said: LinearPrediction


def asked(
    model: Any, x0: Tensor, t: Tensor, s: Tensor, generator: torch.Generator | None
) -> Drawn:
    """The model at states of data x0 (b, *) at times t (b,)."""
    now, then = model.sde(t), model.sde(s)
    z = torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)
    x = model.sde.mix(x0, now, z)
    return Drawn(now, then, z, x, model(x, now))


def of_grid(model: Any, x0: Tensor, who: str, grid: Grid, steps: int) -> tuple[LinearSDE, Tensor]:
    """The SDE, and the times of a grid where data x0 (b, *) are; refuses data that are none."""
    check_data(x0)
    sde = linear(model.sde, who, "use dsm_loss")
    refuse_learned(sde, who)
    refuse_flow_only(model, who)
    return sde, grid(sde, steps).to(x0.device)


def refuse_no_noise(sde: LinearSDE, times: Tensor, head: Head) -> None:
    """ValueError for ``Range`` where the last level has no noise."""
    if isinstance(head, Range) and float(sde(times[-1].cpu()).sigma) == 0:
        raise ValueError(
            "The last step of this grid goes to data without noise, where DDPM's small variance "
            "is 0 and Range has no logarithm: end the SDE above it, at a t_min > 0."
        )


def refuse_levels(x0: Tensor, levels: int | None, head: Head) -> None:
    """ValueError for levels that a head has no use for, and, where looking is free, for data that
    are of others."""
    if levels is None:
        return
    whole("levels", levels, 2)
    if not isinstance(head, Range):
        raise ValueError(
            f"levels is of the bound, on which Range is trained, but {type(head).__name__} is "
            "trained on squares: leave it out."
        )
    if x0.device.type != "cpu":
        return
    scale, shift = scale_and_shift(levels, centred=True)
    k = (x0.double() - shift) / scale
    if (
        bool(((k - k.round()).abs() > 1e-3).any())
        or not -0.5 < float(k.min()) <= float(k.max()) < levels - 0.5
    ):
        raise ValueError(
            f"Data of {levels} levels are 2 k / {levels - 1} - 1, k = 0 to {levels - 1}, but "
            "these have other values: say how many levels they have, or leave levels out."
        )

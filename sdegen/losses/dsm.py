"""Denoising score matching: what a score model is trained on.

A loss has two choices that are usually mixed up: the weighting w(t), a factor of the squared error
in eps, and the distribution that t is drawn from. Every classical objective is a pair of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sdegen.checks import one_of, tensor
from sdegen.guidance.wrapped import fits
from sdegen.losses.couplings import (
    Coupling,
    independent_noise,
    refuse_coupling,
    refuse_reordered,
)
from sdegen.losses.times import Draw, Times, independent, uniform_time
from sdegen.losses.weightings import WEIGHTINGS, Weighting
from sdegen.model.denoiser import Denoiser
from sdegen.sde.level import TINY, Level, expand, spread
from sdegen.sde.process import SDE, LinearSDE, check_given, diffusion_of, refuse_learned

Distance = Callable[[Tensor, Tensor], Tensor]
"""Of differences (b, *) from what is wanted, and of the data wanted (b, *): one a sample (b,). A
square of what it is given: of a multiple by k it is k^2 as large."""

# ------------------------------------------------------------------------------- the loss


def dsm_loss(
    model: Denoiser,
    x0: Tensor,
    *,
    weighting: str | Weighting | None = None,
    times: Times = uniform_time,
    draw: Draw = independent,
    where: Tensor | None = None,
    couple: Coupling = independent_noise,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Denoising score matching, one loss per sample: (b,).  Song et al. (2021), eq. 7.

        w(t) mean_i (eps_model(x_t, t) - eps)_i^2,      x_t = alpha x0 + sigma eps

    x0:        data (b, *), floating point and finite, b >= 1.
    weighting: "sigma2" (default), "eps", "likelihood", "velocity", "edm", "min_snr",
               "truncated_snr", "straight", or a function of the Level that weights the squared
               error in eps, () or (b,), or that of each coordinate.
    times:     where t is drawn: ``uniform_time``, ``LogNormalTime()``, ``likelihood_time``.
    draw:      ``independent`` or ``low_discrepancy`` uniforms behind t.
    where:     booleans that broadcast to x0, with the batch's axis: the mean is of the coordinates
               where they are true, 0 of a sample without any. None: of all.
    couple:    which z goes with which x0: ``independent_noise``, ``MinibatchOT()``, or ``stored``
               pairs. Any but the first is for models that say ``flow_only=True``.

    The mean over coordinates times d/2 is the paper's 1/2 |.|^2. The error is taken in the
    network's own target and then weighted, so nothing cancels at small sigma. An SDE without
    marginals is trained on |G^T (score - target)|^2, the likelihood weighting.

    ValueError for data that is empty or not floating point, a ``where`` of another kind or shape,
    for an SDE without marginals or whose schedule would learn, or for noise that is coupled with
    data where the model is not of a flow alone, or is told more of each sample than the coupling
    respects; and, where looking costs no synchronisation (on the CPU), for NaN or infinite data.
    """
    check_data(x0)
    check_given(model.sde)
    refuse_learned(model.sde, "dsm_loss")
    refuse_coupling(couple, model)
    u = draw(len(x0), x0.device, generator)
    data = x0
    x0, z = couple(x0, getattr(model, "conditions", {}).get("y"), generator)
    refuse_reordered(x0, data, model)
    refuse_part(where, x0, model.sde)
    t, ratio = times(model.sde, u)
    if not isinstance(model.sde, LinearSDE):
        if weighting not in (None, "likelihood"):
            raise ValueError(
                f"{type(model.sde).__name__} has no marginals: it can be trained with "
                f"weighting='likelihood', not {weighting!r}."
            )
        return ratio.to(x0) * general_error(model, x0, t, z)
    level = model.sde(t)
    x = model.sde.mix(x0, level, z)
    return ratio.to(x0) * regression(model, x, level, x0, z, weighting or "sigma2", where)


def regression(
    model: Denoiser,
    x: Tensor,
    level: Level,
    x0: Tensor,
    eps: Tensor,
    weighting: str | Weighting,
    where: Tensor | None = None,
    F: Tensor | None = None,
    distance: Distance | None = None,
) -> Tensor:
    """w(t) mean_i (eps_model(x, t) - eps)_i^2, (b,), for x = alpha x0 + sigma eps (b, *).

    The error is taken in the network's own target, a x0 + b eps, and then weighted.  F: the
    network's output there, where it has been asked already.  distance: of the error and x0, the
    mean square where None; at one x the errors in x0, eps and F are multiples of each other.
    """
    weigh = weighting if callable(weighting) else one_of(weighting, "weighting", WEIGHTINGS)
    # At an end a weight and a target are 0 and infinite: the level just inside has both.
    inside = level.inside()
    a, b = (finite(c) for c in model.target(inside))
    size = torch.maximum(a.abs(), b.abs()).detach().clamp(min=1.0)  # a large target's own unit
    F = model.output(x, level) if F is None else F
    off = expand(1 / size, x0) * F - expand(a / size, x0) * x0 - expand(b / size, x0) * eps
    # d eps / d F at fixed x, see model/prediction.py.
    slope = size * inside.alpha / (inside.alpha * b - inside.sigma * a)
    weight = spread(weigh(inside), slope.ndim) * slope**2
    if distance is not None:
        return weight.to(x0) * distance(off, x0)
    if weight.ndim > 1:  # of each coordinate, which the mean must not come before
        return mean_where(expand(weight, x0) * off.square(), where)
    return weight.to(x0) * mean_where(off.square(), where)


def mean_where(error: Tensor, where: Tensor | None) -> Tensor:
    """The mean of a sample's errors (b, *) where they count, (b,)."""
    if where is None:
        return error.reshape(len(error), -1).mean(1)
    counted = where.to(error.device).expand(error.shape).reshape(len(error), -1)
    kept = torch.where(counted, error.reshape(len(error), -1), 0)  # what is infinite elsewhere too
    return kept.sum(1) / counted.sum(1).clamp(min=1)


def refuse_part(where: Tensor | None, x0: Tensor, sde: SDE) -> None:
    """ValueError where a loss cannot be that of a part of the data."""
    if where is None:
        return
    if not isinstance(sde, LinearSDE):
        raise ValueError(
            f"The loss on {type(sde).__name__}, which has no marginals, mixes coordinates by its "
            "G: it is of all of them, and takes no where."
        )
    if not isinstance(where, Tensor) or where.dtype is not torch.bool:
        said = where.dtype if isinstance(where, Tensor) else repr(where)
        raise ValueError(f"where is boolean, true where the error counts, but it is {said}.")
    fits(where, x0, "where")


def finite(c: Tensor | float) -> Tensor:
    """A target's coefficient, no larger than the inverse of the least sigma."""
    return torch.as_tensor(c, dtype=torch.float64).clamp(-1 / TINY, 1 / TINY)


def general_error(model: Denoiser, x0: Tensor, t: Tensor, z: Tensor) -> Tensor:
    """mean_i (G^T (score - target))_i^2 for an SDE that gives its own kernel, (b,)."""
    x, target = model.sde.perturb(x0, t, z)
    error, G = model(x, t).score - target, diffusion_of(model.sde, x, t)
    weighted = (G.mT @ error.unsqueeze(-1)).squeeze(-1) if model.sde.matrix else G * error
    return weighted.square().reshape(len(x0), -1).mean(1)


def check_data(x0: Tensor) -> None:
    """Refuse what is not a batch of finite floating-point data."""
    if not tensor("Data", x0).is_floating_point():
        raise ValueError(
            f"Data must be floating point, but it is {x0.dtype}: scale integer images to [-1, 1] "
            "first, as sdegen.data.from_uint8 does."
        )
    if x0.ndim < 1 or math.prod(x0.shape) == 0:
        raise ValueError(f"Data must be a batch (b, *) with b >= 1, but it is {tuple(x0.shape)}.")
    if x0.device.type == "cpu" and not bool(x0.isfinite().all()):
        bad = int((~x0.isfinite()).reshape(len(x0), -1).any(1).nonzero()[0])
        raise ValueError(f"Data must be finite, but sample {bad} of the batch is not.")

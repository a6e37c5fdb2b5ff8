"""What every likelihood stands on: data, the two ends of the time, and samples that failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import tensor, warn
from sdegen.model.denoiser import Denoiser
from sdegen.noise.source import Noise, Seeded, check_noise
from sdegen.sde.level import NO_SIGNAL, Instant, Level, expand, float64_time
from sdegen.sde.process import SDE, LinearSDE
from sdegen.solvers.solver import Status


def level_at_t_min(sde: SDE) -> Instant:
    """Where data is; ValueError where no noise is left there."""
    at = sde(float64_time(sde.t_min))
    if isinstance(at, Level) and not bool((at.sigma > 0).all()):
        raise ValueError(
            f"At t_min = {sde.t_min:g} no noise is left, and so no score: begin the SDE later, as "
            f"{type(sde).__name__}(t_min=1e-5) does."
        )
    return at


def level_at_T(sde: LinearSDE) -> Level:
    """Where noise is; ValueError where nothing is left there of the data's density."""
    top = sde(float64_time(sde.T))
    if bool((top.lam < NO_SIGNAL).any()):
        raise ValueError(
            f"At t = {float(top.t):g} no signal is left of the data, whose density cannot be "
            "carried there: end the SDE earlier, as FlowSDE(T=0.999) does."
        )
    return top


def check_batch(what: str, x: Any) -> Tensor:
    """x itself; ValueError unless it is a batch of floating-point numbers."""
    if tensor(what, x).ndim < 1 or x.numel() == 0:
        raise ValueError(
            f"{what} is a batch (b, *) with b >= 1, but its shape is {tuple(x.shape)}."
        )
    if not x.is_floating_point():
        raise ValueError(
            f"{what} is of floating-point numbers, but it is {x.dtype}; integer images: use "
            "bits_per_dim, or elbo with levels."
        )
    result: Tensor = x
    return result


def check_data(model: Denoiser, x: Any) -> Tensor:
    """x itself; ValueError unless it is a batch of what the model was trained on."""
    return check_range(model, check_batch("Data", x))


def check_range(model: Denoiser, x: Tensor) -> Tensor:
    """Data x (b, *) itself; ValueError where it leaves the model's ``data_range``, as NaN does
    not."""
    known = model.data_range
    if known is None:
        return x
    low, high = known
    more = 1e-6 * (high - low)  # of rounding
    out = ((x < low - more) | (x > high + more)).reshape(len(x), -1).any(1)
    if bool(out.any()):
        i = int(out.nonzero()[0])
        raise ValueError(
            f"The model was trained on data in [{low:g}, {high:g}], but sample {i} reaches "
            f"from {float(x[i].min()):g} to {float(x[i].max()):g}: scale it as the training "
            "data was."
        )
    return x


def states_at_t_min(model: Denoiser, x: Tensor, scaled: bool) -> Tensor:
    """Data x (b, *) as float64 states at t_min: alpha x, or x itself."""
    at = level_at_t_min(model.sde)
    return states_at(model, x, at) if scaled else x.to(model.device, torch.float64)


def states_at(model: Denoiser, x: Tensor, at: Instant) -> Tensor:
    """Data x (b, *) as float64 states at a level: alpha x, or x where the SDE has no alpha."""
    y = x.to(model.device, torch.float64)
    return expand(at.alpha, y) * y if isinstance(at, Level) else y


def source_of(seed: int | Sequence[int] | None, noise: Noise | None) -> Noise:
    """A source of probes and of what else a likelihood draws: seeded, with 0 by default."""
    if seed is not None and noise is not None:
        raise ValueError("Give a seed or a noise source, not both.")
    return Seeded(0 if seed is None else seed) if noise is None else check_noise(noise).begun()


def failed_samples(status: Tensor) -> list[int]:
    """The places of samples that failed, of values of ``Status`` (b,)."""
    places: list[int] = status.nonzero().flatten().tolist()
    return places


def nonfinite(values: Tensor) -> Tensor:
    """NONFINITE where a number is not finite, OK elsewhere, (b,)."""
    return torch.where(values.isfinite(), int(Status.OK), int(Status.NONFINITE)).to(torch.int8)


def warn_of_failures(what: str, status: Tensor) -> None:
    """Name the samples that failed, and why, from values of ``Status`` (b,)."""
    if failed := failed_samples(status):
        reasons = sorted({Status(each).name for each in status.tolist() if each})
        warn(f"The {what} of samples {failed} are NaN: {', '.join(reasons)}.")

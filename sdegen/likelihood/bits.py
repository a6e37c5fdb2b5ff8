"""Bits per dimension: the likelihood of data that has finitely many values, as images have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import one_of, tensor, warn, whole
from sdegen.likelihood.density import density
from sdegen.likelihood.ground import check_range, failed_samples, source_of, warn_of_failures
from sdegen.model.denoiser import Denoiser
from sdegen.noise.source import Noise
from sdegen.sde.level import float64_time
from sdegen.solvers import AdaptiveRK

PROTOCOLS: dict[str, dict[str, Any]] = {
    "song": {
        "solver": AdaptiveRK(clock="t", rtol=1e-5, atol=1e-5),
        "divergence": "rademacher",
        "probes": 1,
        "scaled": False,
        "centred": False,
        "repeats": 5,
        "t_min": 1e-5,
    }
}
"""Song et al. (2021), app. D.2 and E: RK45 in t to 1e-5, one probe of random signs, x itself as a
state at t_min, bytes spread over (u + byte) / 256, five passes over the data. t_min is the SDE's
own: where it is another, a warning says so. Here the tolerance is kept by the worst sample of the
batch, not by its mean."""


@dataclass(frozen=True, eq=False)
class Bits:
    """Bits per dimension of a batch of b, lower is better: an upper bound of the data's own.

    value:  (b,) float64, NaN where the solve of a pass failed.
    error:  standard error (b,), over the repeats, which differ in dequantisation and probes: NaN
            with one pass, from which it cannot be told.
    nfe:    network calls, (b,).  status: values of ``Status``, the worst of the passes, (b,).
    """

    value: Tensor
    error: Tensor
    nfe: Tensor
    status: Tensor

    @property
    def failed(self) -> list[int]:
        """The places of samples whose solve failed."""
        return failed_samples(self.status)

    @property
    def mean(self) -> float:
        """Over the samples that did not fail."""
        return float(self.value[self.value.isfinite()].mean())

    @property
    def mean_error(self) -> float:
        """Of ``mean``, as an estimate for the distribution that the samples come from; NaN where
        there are less than two."""
        known = self.value[self.value.isfinite()]
        return float(known.std()) / math.sqrt(len(known)) if len(known) > 1 else math.nan


def bits_per_dim(
    model: Denoiser,
    x: Tensor,
    *,
    levels: int = 256,
    repeats: int | None = None,
    importance: int = 1,
    centred: bool | None = None,
    protocol: str | None = None,
    seed: int | Sequence[int] | None = None,
    noise: Noise | None = None,
    **how: Any,
) -> Bits:
    """-log2 P(x) / d of images x (b, *) of whole numbers below ``levels``, in torch.uint8.

    The probability of a value is the density's integral over its bin, of which uniform
    dequantisation (Theis et al., 2016) gives a bound: the mean of log p at x + u, u uniform over
    the bin, and the logarithm of the bin's volume in the units that the model sees, [-1, 1].

    centred:    value k is 2 k / (levels - 1) - 1, as ``from_uint8`` has it, in the middle of its
                bin (default). False: bins fill [-1, 1], as Song et al. have it.
    repeats:    passes with other u and probes, averaged; default 1.
    importance: u's of one pass, of which log-mean-exp gives a tighter bound, Burda et al. (2016);
                with the exact divergence alone, since it would count a probe's luck as likelihood.
    protocol:   "song" for the settings of Song et al. (2021), see ``PROTOCOLS``; each can be
                overridden. Their t_min, 1e-5, is for the SDE to have: a warning where it has not.
    how:        ``log_prob``'s settings.

    Samples whose solve failed are NaN, and one warning names them. ValueError for anything but
    torch.uint8, values that are not below ``levels``, or outside the model's ``data_range``,
    numbers of passes below 1, and importance weights of estimated likelihoods.
    """
    preset = {} if protocol is None else one_of(protocol, "protocol", PROTOCOLS)
    chosen = {"repeats": repeats, "centred": centred, **how}
    given = {"repeats": 1, "centred": True, **preset}
    t_min = given.pop("t_min", model.sde.t_min)
    given |= {name: value for name, value in chosen.items() if value is not None}
    if given.get("divergence") == "exact" and how.get("probes") is None:
        given.pop("probes", None)  # the protocol's
    repeats, centred = given.pop("repeats"), given.pop("centred")
    check_images(x, levels)
    for name, value in (("repeats", repeats), ("importance", importance)):
        whole(name, value, 1)
    if importance > 1 and given.get("divergence") != "exact":
        raise ValueError(
            "importance > 1 averages likelihoods, not their logarithms: of estimates that is no "
            'bound. Give divergence="exact".'
        )
    if not math.isclose(model.sde.t_min, t_min):
        warn(
            f'The protocol "{protocol}" has t_min = {t_min:g}, but this SDE has '
            f"{model.sde.t_min:g}, whose values are others: give it t_min={t_min:g}."
        )
    source, (scale, shift) = source_of(seed, noise), scale_and_shift(levels, centred)
    check_range(model, x.to(torch.float64) * scale + shift)
    passes, calls = [], torch.zeros(len(x), dtype=torch.int64)
    status = torch.zeros(len(x), dtype=torch.int8)
    for r in range(repeats):
        logs = []
        for k in range(importance):
            own = source.stream(f"pass {r}.{k}")
            y, more = spread_over_bins(model, x, levels, own, centred)
            found = density(model, y, own, **given)  # a bin goes beyond the values' own range
            logs.append(found.value)
            calls += found.nfe
            status = status.maximum(found.status.cpu())
        passes.append(torch.stack(logs).logsumexp(0) - math.log(importance))
    warn_of_failures("bits per dimension", status)
    nats = torch.stack(passes) / (x[0].numel() * math.log(2))
    one = torch.full_like(nats[0], math.nan)
    error = one if repeats == 1 else nats.std(0) / math.sqrt(repeats)
    return Bits(-nats.mean(0) - more, error, calls, status)


def spread_over_bins(
    model: Denoiser, x: Tensor, levels: int, noise: Noise, centred: bool = True
) -> tuple[Tensor, float]:
    """Values x (b, *) somewhere in their bins, as the model sees them; log2 of a bin's width."""
    at, like = model.sde(float64_time(model.sde.T)), torch.empty(x.shape, dtype=torch.float64)
    z = noise.stream("dequantise")(like.to(model.device), at, at)
    u = 0.5 * torch.erfc(-z / math.sqrt(2)) - 0.5  # a normal draw's own quantile is uniform
    scale, shift = scale_and_shift(levels, centred)
    return (x.to(z) + u) * scale + shift, math.log2(scale)


def scale_and_shift(levels: int, centred: bool) -> tuple[float, float]:
    """The middle of value k's bin is scale k + shift, and scale its width."""
    return (2 / (levels - 1), -1.0) if centred else (2 / levels, 1 / levels - 1)


def check_images(x: Tensor, levels: int) -> None:
    """Refuse what is not whole numbers from 0 to levels - 1."""
    if tensor("Images", x).dtype != torch.uint8 or x.ndim < 2 or x.numel() == 0:
        raise ValueError(
            f"Images of whole numbers are torch.uint8 (b, *) with b >= 1, but these are {x.dtype} "
            f"of shape {tuple(x.shape)}: to_uint8 maps [-1, 1] to bytes; of data that is not "
            "discrete use log_prob, or elbo without levels."
        )
    whole("levels", levels, 2, 256)
    if int(x.max()) >= levels:
        raise ValueError(f"Values are below levels = {levels}, but the largest is {int(x.max())}.")

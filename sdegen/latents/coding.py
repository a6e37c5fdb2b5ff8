"""Latents of about zero mean and unit variance: an autoencoder, and the scale of its latents."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from sdegen.data.classes import plain
from sdegen.data.items import batched, split


class Coder(Protocol):
    """An autoencoder: q(z | x) = N(mean, std^2) at every value of z, and D(z), the mean of
    p(x | z)."""

    def posterior(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), (b, channels, *) each, of data x (b, *)."""

    def decode(self, z: Tensor, /) -> Tensor:
        """The mean of p(x | z), (b, *)."""


@dataclass(frozen=True, eq=False)
class Latent:
    """Data as states of a diffusion model, (z - shift) scale, and back.  Rombach et al. (2022),
    appendix G.

    coder: whose z these are.  shift, scale: (channels,), of z's first axis; ``fit_scale`` measures
    them.  ValueError for a shift and a scale of other shapes, that are not finite, or a scale that
    is not above 0.
    """

    coder: Coder
    shift: Tensor
    scale: Tensor

    def __post_init__(self) -> None:
        for name in ("shift", "scale"):
            value = getattr(self, name)
            if value.ndim != 1 or value.shape != self.shift.shape:
                raise ValueError(
                    f"{name} is of shape {tuple(value.shape)}, but shift and scale are "
                    f"(channels,), here {tuple(self.shift.shape)}."
                )
            if not bool(value.isfinite().all()):
                raise ValueError(f"{name} is {value.tolist()}, but it must be finite.")
        if not bool((self.scale > 0).all()):
            raise ValueError(f"scale is {self.scale.tolist()}, but it must be above 0.")

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the states of data x, (b, channels, *) each."""
        mean, std = self.coder.posterior(x)
        shift, scale = self.like(mean)
        return (mean - shift) * scale, std * scale

    def encode(
        self,
        x: Tensor,
        z: Tensor | float | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """States (b, channels, *) of data x (b, *): mean + std z.

        z: normal numbers like a state, or 0 for the means; drawn by default, from ``generator``.
        """
        mean, std = self.posterior(x)
        if z is None:
            z = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + std * z

    def decode(self, states: Tensor) -> Tensor:
        """Data (b, *) of states (b, channels, *)."""
        shift, scale = self.like(states)
        return self.coder.decode(states / scale + shift)

    def like(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """shift and scale as z (b, channels, *) is; ValueError where it has other channels."""
        k = len(self.shift)
        if z.ndim < 2 or z.shape[1] != k:
            raise ValueError(
                f"These latents have {k} channels, (b, {k}, *), but a state of shape "
                f"{tuple(z.shape)} was given."
            )
        shape = (k, *[1] * (z.ndim - 2))
        return self.shift.to(z).reshape(shape), self.scale.to(z).reshape(shape)


def fit_scale(coder: Coder, data: Any, batch: int = 256) -> Latent:
    """The latents of a coder, to zero mean and unit variance in every channel.

        shift = E z          scale = 1 / sqrt(Var[mean(x)] + E std(x)^2)

    over every place of the whole of the data, in float64: of one batch, as is usual, it would be
    another number in every run.

    data: a data set with a length, of the kinds that ``split`` takes apart, ``batch`` at a time.
    ValueError for a stream, which has no whole, and for a channel that says nothing.
    """
    count, total, squares, noise = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for mean, std, _ in posteriors(coder, data, batch):
        m, s = (each.double().cpu().transpose(0, 1).flatten(1) for each in (mean, std))
        # Each batch beside what was seen: sums of squares of large means would cancel.
        here, n = m.mean(1), m.shape[1]
        within = (m - here[:, None]).square().sum(1)
        if not count:
            count, total, squares, noise = n, here, within, s.square().sum(1)
            continue
        off = here - total
        squares = squares + within + off.square() * (count * n / (count + n))
        total = total + off * (n / (count + n))
        noise, count = noise + s.square().sum(1), count + n
    variance = (squares + noise) / count
    silent = (variance <= 0) | ~variance.isfinite()
    if bool(silent.any()):
        k = int(silent.nonzero()[0])
        raise ValueError(
            f"Channel {k} of the latents has a variance of {float(variance[k])}: this autoencoder "
            "is not trained, or has more channels than it uses."
        )
    return Latent(coder, total, variance.rsqrt())


@torch.no_grad()
def posteriors(
    coder: Coder, data: Any, batch: int = 256
) -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
    """Mean and standard deviation of the latents of a data set, and its conditions, batch by
    batch and in its order; ValueError for a stream, and for data without items."""
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        raise ValueError("Latents are of a data set with a length, not of a stream.")
    if not len(data):
        raise ValueError("The data set has no items.")
    data, device = plain(data), device_of(coder)
    for first in range(0, len(data), batch):
        items = [data[i] for i in range(first, min(first + batch, len(data)))]
        x, given = split(batched(items))
        mean, std = coder.posterior(x.to(device))
        yield mean, std, given


def device_of(coder: Any) -> torch.device:
    """Where a coder's weights lie; the CPU where it has none."""
    weights = next(coder.parameters(), None) if isinstance(coder, torch.nn.Module) else None
    return torch.device("cpu") if weights is None else weights.device

"""A coupling that is learned with the flow.  Lee et al. (2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sdegen.checks import number
from sdegen.losses.dsm import check_data, dsm_loss
from sdegen.losses.times import Draw, Times, independent, uniform_time
from sdegen.losses.weightings import Weighting


class Learned(nn.Module):
    """Flow matching whose noise an encoder draws near its data, z ~ q(z | x0) = N(m, diag s^2).

        loss + beta KL(q(z | x0) || N(0, I)) / d,    z = m(x0) + s(x0) e,  e ~ N(0, I)

    Lee et al. (2023), eq. 9: the paths are straighter the more z says of x0, and sampling, which
    begins with N(0, I), is the further off: beta weighs the one against the other.

    encoder: x0 (b, c, *) -> (b, 2 c, *), m and log s on axis 1.  It is trained with the model, as
             the loss's own parameters, and not needed afterwards.
    beta:    above 0, in units of the loss, both per dimension.
    weighting, times, draw: as ``dsm_loss`` has them.

    Models of it are of a flow alone, ``flow_only=True``. ValueError for another one, for data as
    ``dsm_loss`` has it, and an encoder whose output is of another shape.
    """

    def __init__(
        self,
        encoder: nn.Module,
        beta: float = 1.0,
        *,
        weighting: str | Weighting | None = None,
        times: Times = uniform_time,
        draw: Draw = independent,
    ) -> None:
        super().__init__()
        if not number("beta", beta) > 0:
            raise ValueError(
                f"beta must be above 0, or noise tells everything of its data, but it is {beta!r}."
            )
        self.encoder, self.beta = encoder, beta
        self.weighting, self.times, self.draw = weighting, times, draw

    def forward(self, model: Any, x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The loss (b,) of data x0 (b, *)."""
        check_data(x0)
        m, log_s = self.law(x0)

        def couple(
            x0: Tensor, y: Tensor | None, generator: torch.Generator | None
        ) -> tuple[Tensor, Tensor]:
            e = torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)
            return x0, m + log_s.exp() * e

        loss = dsm_loss(
            model,
            x0,
            weighting=self.weighting,
            times=self.times,
            draw=self.draw,
            couple=couple,
            generator=generator,
        )
        kl = 0.5 * (m.square() + (2 * log_s).exp() - 1) - log_s
        return loss + self.beta * kl.reshape(len(x0), -1).mean(1)

    def law(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log of the standard deviation of z given x0, (b, *) each."""
        said = self.encoder(x0)
        if x0.ndim < 2 or said.shape != (len(x0), 2 * x0.shape[1], *x0.shape[2:]):
            raise ValueError(
                f"An encoder of data {tuple(x0.shape)} says a mean and a logarithm for each "
                f"coordinate, twice the channels on axis 1, but it said {tuple(said.shape)}."
            )
        m, log_s = said.chunk(2, dim=1)
        return m, log_s


class Encoder(nn.Module):
    """Means and log standard deviations of vectors x0 (b, dim): a small MLP, (b, 2 dim).

    It begins at the independent coupling, m = 0 and s = 1. ValueError for other data.
    """

    def __init__(self, dim: int, width: int = 64) -> None:
        super().__init__()
        self.dim = dim
        last = nn.Linear(width, 2 * dim)
        nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
        first, middle = nn.Linear(dim, width), nn.Linear(width, width)
        self.layers = nn.Sequential(first, nn.SiLU(), middle, nn.SiLU(), last)

    def forward(self, x0: Tensor) -> Tensor:
        """(b, 2 dim)."""
        if x0.shape[1:] != (self.dim,):
            raise ValueError(
                f"This encoder is of vectors (b, {self.dim}), but the data are "
                f"{tuple(x0.shape)}: say their dim (loss.encoder.dim), or give a network of your "
                "own, (b, c, *) -> (b, 2 c, *)."
            )
        said: Tensor = self.layers(x0)
        return said

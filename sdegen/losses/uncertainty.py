"""A loss that is brought to one size at every level by what it learns of itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.checks import whole
from sdegen.model.denoiser import Around
from sdegen.model.labels import label_c_noise, scalar
from sdegen.networks.magnitude import Fourier
from sdegen.sde.level import Instant
from sdegen.sde.process import linear

ENDS = 2.0
"""Labels ln(sigma / alpha) / 4 are cut at these: beyond them, at e^8, there is no data or noise
alone."""


class Uncertainty(nn.Module):
    """A loss L (b,) weighted by what it usually is at each level.  Karras et al. (2024b), eq.
    14-16; Kendall et al. (2018).

        L / e^u + u,      u(level) of a linear layer on Fourier features of ln(sigma / alpha) / 4

    Its minimum in u is e^u = E[L | level]: then the loss is 1 + u, and its gradient is of the same
    size at all levels, however L is weighted.  u is 0 at first; it is trained with the model and
    is no part of it.  At rest (``eval``) it is L alone, which compares with other losses.

    loss:  of (model, x0, ...), whose first call of the model that has a gradient tells the level;
           where none has one, under no_grad, the last.
    count: of features.

    ValueError for a loss that calls no model, or at levels of an SDE without marginals.
    """

    def __init__(self, loss: Callable[..., Tensor], count: int = 64) -> None:
        super().__init__()
        self.loss = loss
        self.waves = Fourier(whole("count", count))
        self.weight = nn.Parameter(torch.zeros(count + 1))  # of the features, and of 1

    def u(self, level: Instant, sde: Any) -> Tensor:
        """The logarithm of the mean loss at a level, of times () or (b,)."""
        label = scalar(label_c_noise, sde)(level).clamp(-ENDS, ENDS)
        waves = self.waves(label.reshape(-1)).to(self.weight)
        u = waves @ self.weight[:-1] / len(self.weight) ** 0.5 + self.weight[-1]
        return u.reshape(label.shape)

    def forward(self, model: Any, x0: Tensor, **how: Any) -> Tensor:
        """The weighted loss (b,) of data x0 (b, *)."""
        sde = linear(model.sde, "Uncertainty", "use its loss alone")
        seen: list[tuple[bool, Any]] = []
        found = self.loss(Watched(model, seen), x0, **how)
        if not seen:
            raise ValueError(
                "Uncertainty weights a loss by the level at which it calls the model, but this "
                "one calls none: use it alone."
            )
        if not self.training:
            return found
        # A call without one makes a target, or a state to be asked at, at a level of its own.
        at = next((level for learns, level in seen if learns), seen[-1][1])
        u = self.u(at if isinstance(at, Instant) else sde(torch.as_tensor(at)), sde).to(found)
        return found / u.exp() + u


class Watched(Around):
    """A model that notes at which levels it is called, and whether gradients are made of it."""

    model: Any

    def __init__(self, model: Any, seen: list[tuple[bool, Any]]) -> None:
        self.model, self.seen = model, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def __call__(self, x: Tensor, level: Any) -> Any:
        self.seen.append((torch.is_grad_enabled(), level))
        return self.model(x, level)

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of the model inside."""
        self.seen.append((torch.is_grad_enabled(), level))
        found: Tensor = self.model.output(x, level)
        return found

    def given(self, *shared: Any, **conditions: Any) -> Watched:
        """The model inside with conditions, noted alike."""
        return Watched(self.model.given(*shared, **conditions), self.seen)

    def take(self, index: Tensor) -> Watched:
        """The model inside of some samples, noted alike."""
        return Watched(self.model.take(index), self.seen)

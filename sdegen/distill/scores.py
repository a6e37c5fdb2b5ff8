"""Score distillation: whatever makes a state is moved to where a model would have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import number
from sdegen.losses.dsm import check_data
from sdegen.losses.times import Draw, Times, independent
from sdegen.losses.weightings import Weighting
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.sde.level import Level, expand, spread
from sdegen.sde.process import SDE, linear


@dataclass(frozen=True)
class Within:
    """t uniform on a part of [t_min, T], from share ``low`` to share ``high`` of it.

    Near its ends nothing is learned of what a state should be: little noise has no gradient far
    from data, much of it has one to the mean.  Poole et al. (2023), section 3.1.
    """

    low: float = 0.02
    high: float = 0.98

    def __post_init__(self) -> None:
        if not 0 <= number("low", self.low) < number("high", self.high) <= 1:
            raise ValueError(
                f"Shares of the time are 0 <= low < high <= 1, not {self.low:g} and {self.high:g}."
            )

    def __call__(self, sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        """Times and factors."""
        share = self.low + (self.high - self.low) * u
        return sde.t_min + share * (sde.T - sde.t_min), torch.ones_like(u)


def variance(level: Level) -> Tensor:
    """sigma^2, DreamFusion's w(t)."""
    return level.sigma**2


def sds_loss(
    model: Denoiser,
    x: Tensor,
    *,
    times: Times = Within(),
    weighting: Weighting = variance,
    draw: Draw = independent,
    generator: torch.Generator | None = None,
) -> Tensor:
    """|g|^2 / 2 of states x (b, *), (b,), whose gradient in x is g itself:

        g = w(t) (eps_model(x_t, t) - eps),      x_t = alpha x + sigma eps

    x = render(theta) is what anything that can be differentiated makes: its parameters then move
    down E[w sigma / alpha KL(N(alpha x, sigma^2) | p_t)], to the modes, and not over the
    distribution. No gradient goes through the model.  Poole et al. (2023), eq. 3 and app. A.4.

    model:  asked in one call at x_t: guided, as by ``CFG``, it is guidance of what is made. It
            should be at rest (``model.eval()``).
    times, weighting, draw: as of ``dsm_loss``, but that a weight is of eps's error, not of its
            square; DreamFusion's are the defaults.

    The sum over coordinates, as it is theirs: the loss's ``mean`` over views divides g by their
    number. ValueError for states that are no floating-point batch, an SDE without marginals, and a
    model of a flow alone.
    """
    refuse_flow_only(model, "Score distillation")
    sde = linear(model.sde, "Score distillation", "take a LinearSDE")
    check_data(x.detach())
    g = direction(model, sde, x.detach(), times, weighting, draw, generator)
    return 0.5 * (x - x.detach() + g).square().reshape(len(x), -1).sum(1)


@torch.no_grad()
def direction(
    model: Denoiser,
    sde: Any,
    x: Tensor,
    times: Times,
    weighting: Weighting,
    draw: Draw,
    generator: torch.Generator | None,
) -> Tensor:
    """g (b, *) at one t and one z of each state."""
    t, ratio = times(sde, draw(len(x), x.device, generator))
    z = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    level = sde(t)
    p = model(sde.mix(x, level, z), level)
    weight = spread(ratio, level.sigma.ndim) * weighting(level)
    g: Tensor = expand(weight, x) * (p.eps - z)
    return g

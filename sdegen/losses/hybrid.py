"""The loss of a mean and a variance.  Nichol & Dhariwal (2021)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdegen.checks import number, whole
from sdegen.losses.dsm import check_data, regression
from sdegen.losses.times import Draw, independent
from sdegen.losses.weightings import Weighting
from sdegen.sde.process import linear
from sdegen.solvers.variances import Head, Range
from sdegen.walks.grids import Grid, log_snr


def hybrid_loss(
    model: Any,
    x0: Tensor,
    *,
    head: Head,
    steps: int = 1000,
    share: float = 1e-3,
    weighting: str | Weighting = "sigma2",
    grid: Grid = log_snr,
    draw: Draw = independent,
    generator: torch.Generator | None = None,
) -> Tensor:
    """L_simple + share steps L_head, one loss per sample (b,).  Nichol & Dhariwal (2021), eq. 16.

    At a random step t -> s of grid(sde, steps): the squared error of the mean in eps, weighted,
    and what ``head`` is trained on, the mean a constant to it: one call. L_head times the number
    of steps is an estimate of their sum, as ``Range``'s is of the bound.

    (The last step's term is a KL like the others, where the paper has its decoder.)
    model: of two heads.  ValueError for one head, for a grid that ends without noise where the
    head is ``Range``, and for data as ``dsm_loss`` has it.
    """
    check_data(x0)
    number("share", share, 0)
    sde = linear(model.sde, "hybrid_loss", "use dsm_loss")
    times = grid(sde, whole("steps", steps)).to(x0.device)
    if isinstance(head, Range) and float(sde(times[-1].cpu()).sigma) == 0:
        raise ValueError(
            "The last step of this grid goes to data without noise, where DDPM's small variance "
            "is 0 and Range has no logarithm: end the SDE above it, at a t_min > 0."
        )
    u = draw(len(x0), x0.device, generator)
    z = torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)
    i = (u * steps).long().clamp(max=steps - 1)
    t, s = sde(times[i]), sde(times[i + 1])
    x = sde.mix(x0, t, z)
    said = model(x, t)
    mean = regression(model, x, t, x0, z, weighting, F=said.F)
    of_head = head.loss(said, x0, z, t, s).reshape(len(x0), -1).mean(1)
    return mean + share * steps * of_head

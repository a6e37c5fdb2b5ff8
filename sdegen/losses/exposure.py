"""States in training as a sampler meets them: off the path, by what a model gets wrong."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdegen.checks import number
from sdegen.losses.dsm import check_data, refuse_part, regression
from sdegen.losses.times import Draw, Times, independent, uniform_time
from sdegen.losses.weightings import Weighting
from sdegen.sde.level import Level, expand
from sdegen.sde.process import LinearSDE, has_coordinates, linear, refuse_learned


def perturbed(
    model: Any,
    x0: Tensor,
    *,
    gamma: float = 0.1,
    weighting: str | Weighting = "sigma2",
    times: Times = uniform_time,
    draw: Draw = independent,
    where: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``dsm_loss`` (b,) at states with more noise than the network is told of.  Ning et al.
    (2023), alg. 1.

        w(t) mean_i (F - a x0 - b z)_i^2 in eps,      x = alpha x0 + sigma (z + gamma xi)

    with z, xi ~ N(0, I) and the network's own target a x0 + b z, which keeps z.  gamma is 0.1 in
    the paper; with 0 it is ``dsm_loss``, bit for bit.  On Gaussian data of variance v the minimum
    of an eps network is  sigma x / (alpha^2 v + sigma^2 (1 + gamma^2)).

    ValueError for gamma < 0, an SDE without marginals, and what ``dsm_loss`` refuses of data.
    """
    check_data(x0)
    gamma, sde = number("gamma", gamma, 0), linear(model.sde, "perturbed", "use dsm_loss")
    refuse_learned(sde, "perturbed")
    refuse_part(where, x0, sde)
    u = draw(len(x0), x0.device, generator)
    z = normal(x0, generator)
    t, ratio = times(sde, u)
    level = sde(t)
    x = sde.mix(x0, level, z + gamma * normal(x0, generator) if gamma else z)
    return ratio.to(x0) * regression(model, x, level, x0, z, weighting, where)


def exposed(
    model: Any,
    x0: Tensor,
    *,
    p: float = 0.5,
    gap: float = 0.2,
    weighting: str | Weighting = "sigma2",
    times: Times = uniform_time,
    draw: Draw = independent,
    where: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """``dsm_loss`` (b,), of a share p of the samples at states that the model itself has made.
    Deng et al. (2023), sec. 3.3, scheduled sampling.

        x_t = alpha_t x0 + sigma_t z,   lam_t = lam_s - gap
        x_s' = DDIM's step of the model from t to s, without a gradient
        w(s) mean_i (eps_model(x_s', s) - eps')_i^2,   eps' = (x_s' - alpha_s x0) / sigma_s

    so that x0 stays what is wanted.  Where the model is exact and the data Gaussian, x_s' has the
    law of x_s up to gap^2; its x0 is that of x_t, by which the minimum is off by a multiple of
    gap.  One more call of the network; with p = 0 none, and ``dsm_loss``, bit for bit.

    ValueError for p outside [0, 1], gap <= 0, an SDE without marginals or whose levels differ
    between coordinates, and what ``dsm_loss`` refuses of data.
    """
    check_data(x0)
    if not 0 <= number("p", p) <= 1:
        raise ValueError(f"p lies in [0, 1], but it is {p!r}.")
    if not number("gap", gap) > 0:
        raise ValueError(f"gap, a step in lam, must be positive, but it is {gap!r}.")
    sde = linear(model.sde, "exposed", "use dsm_loss")
    if has_coordinates(sde):
        raise ValueError(
            f"exposed steps in one lam of each sample, but the levels of {type(sde).__name__} "
            "differ between coordinates: use dsm_loss."
        )
    refuse_learned(sde, "exposed")
    refuse_part(where, x0, sde)
    u = draw(len(x0), x0.device, generator)
    z = normal(x0, generator)
    t, ratio = times(sde, u)
    level = sde(t)
    x = sde.mix(x0, level, z)
    if p > 0:
        before = sde(earlier(sde, level, gap))
        made = stepped(model, sde.mix(x0, before, z), before, level)
        chosen = torch.rand(len(x0), device=x0.device, generator=generator) < p
        off = (made - expand(level.alpha, x0) * x0) * expand(1 / level.inside().sigma, x0)
        chosen = chosen.reshape(-1, *[1] * (x0.ndim - 1))
        x, z = torch.where(chosen, made, x), torch.where(chosen, off, z)
    return ratio.to(x0) * regression(model, x, level, x0, z, weighting, where)


def earlier(sde: LinearSDE, level: Level, gap: float) -> Tensor:
    """The times (b,) whose lam is less by ``gap``, T at most."""
    return torch.maximum(sde.time(level.lam - gap), level.t).clamp(max=sde.T)


@torch.no_grad()
def stepped(model: Any, x: Tensor, t: Level, s: Level) -> Tensor:
    """DDIM's step of states x (b, *) from t to s.  Song, Meng & Ermon (2021), eq. 12."""
    said = model(x, t)
    found: Tensor = expand(s.alpha, x) * said.x0 + expand(s.sigma, x) * said.eps
    return found


def normal(x0: Tensor, generator: torch.Generator | None) -> Tensor:
    """z ~ N(0, I) of x0's shape and type."""
    return torch.randn(x0.shape, device=x0.device, generator=generator, dtype=x0.dtype)

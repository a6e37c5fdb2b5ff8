"""Noised to a level, and drawn again from there: SDEdit, Boomerang, purification."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sdegen.checks import number, tensor
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.noise.source import Seeded, check_noise
from sdegen.sampling.march import sample
from sdegen.sde.process import LinearSDE, linear


def resample(
    model: Denoiser,
    x: Tensor,
    *,
    t: float | None = None,
    rho: float | None = None,
    **how: Any,
) -> Tensor:
    """x_t = alpha_t x + sigma_t z of data x (b, *), and what the reverse equation makes of it.

    Meng et al. (2022), SDEdit; Luzi et al. (2022), Boomerang; Nie et al. (2022), DiffPure. With
    eta = 1 it is a draw of p(x0 | x_t), which leaves the data's law as it is. Of N(m, v) the
    correlation of x and what comes back is k = alpha^2 v / (alpha^2 v + sigma^2) for eta = 1 and
    sqrt(k) for eta = 0.

    t:   how far it is noised; or ``rho``, sigma / alpha there. In (t_min, T].
    how: as ``sample``'s, but for a walk of times, which begins where t says. The noise of x_t is a
         stream of its own of the seed's or the source's. ``graph=True`` keeps gradients by x.

    ValueError for neither or both of t and rho, or one that is not on the way, and for an SDE
    without marginals.
    """
    sde = linear(model.sde, "resample", "give sample a state of yours and its time")
    refuse_flow_only(model, "resample")
    t = time_of(sde, t, rho)
    if not tensor("Data", x).is_floating_point() or not x.ndim:
        said = x.dtype if x.ndim else repr(x)
        raise ValueError(f"Data is floating point, (b, *), but x is {said}.")
    top, low_level = sde(t), sde(sde.t_min)
    seed, noise = how.get("seed"), how.get("noise")
    if noise is not None:
        noise = check_noise(noise).begun()
    elif seed is not None:
        noise = Seeded(seed)
    with torch.no_grad():
        like = x.detach()
        z = (
            torch.randn_like(like)
            if noise is None
            else noise.stream("resample")(like, top, low_level)
        )
    return sample(model, sde.mix(x, top, z), t=t, **how)


def time_of(sde: LinearSDE, t: float | None, rho: float | None) -> float:
    """The time that t says, or rho = sigma / alpha; ValueError for neither, both, or one that is
    not in (t_min, T]."""
    if (t is None) == (rho is None):
        raise ValueError(f"Give one of t and rho, but t = {t} and rho = {rho}.")
    if rho is not None:
        clock = sde.reference
        lam = -torch.tensor(number("rho", rho, 0.0), dtype=torch.float64).log()
        low, high = (float(clock(end).rho) for end in (sde.t_min, sde.T))
        if not low < rho <= high:
            raise ValueError(f"rho lies in ({low:g}, {high:g}] on {sde}, but it is {rho!r}.")
        t = float(clock.time(lam))
    assert t is not None
    if not sde.t_min < number("t", t) <= sde.T:
        raise ValueError(f"t lies in ({sde.t_min:g}, {sde.T:g}], but it is {t!r}.")
    return t

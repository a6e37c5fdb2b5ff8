"""A bound on the likelihood of data from the likelihood of their latents.

    log p(x) >= E_q(z | x) [log p(x | z) + log p_SDE(z) - log q(z | x)]

Kingma & Welling (2014), eq. 2, with a diffusion model as the prior: Vahdat et al. (2021), eq. 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from sdegen.checks import number, one_of, whole
from sdegen.latents.coding import Latent
from sdegen.likelihood.bounds import elbo
from sdegen.likelihood.density import log_prob
from sdegen.likelihood.ground import (
    check_batch,
    failed_samples,
    level_at_t_min,
    nonfinite,
    source_of,
)
from sdegen.model.denoiser import Denoiser
from sdegen.noise.source import Noise

LOG_2PI = math.log(2 * math.pi)

Prior = Literal["flow", "elbo"]


@dataclass(frozen=True, eq=False)
class LatentElbo:
    """The three terms of a batch of b, nats, (b,) each in float64; the sum's standard error.

    reconstruction: E log p(x | z).  prior: E log p_SDE(z).  entropy: -E log q(z | x).
    All NaN for a sample in which a NaN or an infinite value turned up. nfe: network calls in all.
    """

    reconstruction: Tensor
    prior: Tensor
    entropy: Tensor
    error: Tensor
    nfe: int

    @property
    def value(self) -> Tensor:
        """The bound on log p(x), (b,)."""
        return self.reconstruction + self.prior + self.entropy

    @property
    def status(self) -> Tensor:
        """Values of ``Status``, (b,)."""
        return nonfinite(self.value)

    @property
    def failed(self) -> list[int]:
        """The places of samples that have no bound."""
        return failed_samples(self.status)

    def bits(self, d: int) -> Tensor:
        """Bits per dimension of d, (b,)."""
        return -self.value / (d * math.log(2))


@torch.no_grad()
def latent_elbo(
    model: Denoiser,
    latent: Latent,
    x: Tensor,
    *,
    prior: Prior = "elbo",
    std: float | None = None,
    draws: int = 8,
    seed: int | Sequence[int] | None = None,
    noise: Noise | None = None,
    **how: Any,
) -> LatentElbo:
    """The bound on the log-density of data x (b, *), of ``draws`` z for each.

    Latents and their density are those of scaled states, in which the model lives: the scale
    appears in log p_SDE and in log q, and cancels. p(x | z) is N(decode(z), std^2).

    prior: log p_SDE(z) by "flow", its density, ``log_prob``, or "elbo", its bound, ``elbo``, which
           is cheaper and below it.  how: their settings.
    std:   of p(x | z), by default what the autoencoder has learned, exp(log_noise).
    seed:  of the draws, default 0; or ``noise``, a source.

    The bound is exact where q(z | x) is the true posterior. ValueError for a coder whose q has no
    spread, as codes of a codebook, which is no density, and for one that has no std of its own
    where none is given.
    """
    call = one_of(prior, "prior", {"flow": log_prob, "elbo": elbo})
    whole("draws", draws)
    x, source, s = check_batch("Data", x), source_of(seed, noise), spread(latent, x, std)
    mean, width = latent.posterior(x)
    if bool((width <= 0).any()):  # a NaN is its sample's own
        raise ValueError(
            "This coder's q(z | x) has no spread, as codes have none: of such latents there is no "
            "density, and no bound."
        )
    at, before = level_at_t_min(model.sde), model.nfe
    terms = []
    for j in range(draws):
        z = source.stream(f"posterior {j}")(mean, at, at)
        states = mean + width * z
        off = (x - latent.decode(states)).double() / s
        terms.append(
            torch.stack(
                [
                    -summed(0.5 * off**2 + s.log() + 0.5 * LOG_2PI),
                    prior_of(call, model, states, source.stream(f"prior {j}"), how),
                    summed(0.5 * z.double() ** 2 + width.double().log() + 0.5 * LOG_2PI),
                ]
            )
        )
    found = torch.stack(terms)  # (draws, 3, b)
    failed = ~found.isfinite().all(0).all(0)
    a, b, c = found.mean(0).masked_fill(failed, math.nan)
    known = found.sum(1).std(0) / math.sqrt(draws) if draws > 1 else torch.full_like(a, math.nan)
    return LatentElbo(a, b, c, known.masked_fill(failed, math.nan), model.nfe - before)


def prior_of(
    call: Callable[..., Any], model: Denoiser, z: Tensor, noise: Noise, how: dict[str, Any]
) -> Tensor:
    """log p_SDE of states z (b, *), or its bound, (b,) on the CPU."""
    value: Tensor = call(model, z, noise=noise, **how).value
    return value.cpu()


def spread(latent: Latent, x: Tensor, std: float | None) -> Tensor:
    """The standard deviation of p(x | z), () in float64 where x is."""
    if std is None:
        log_noise = getattr(latent.coder, "log_noise", None)
        if not isinstance(log_noise, Tensor):
            raise ValueError(
                f"{type(latent.coder).__name__} does not say how sure p(x | z) is: give std=..."
            )
        return log_noise.detach().double().exp().to(x.device)
    number("std", std, 0)
    if std == 0:
        raise ValueError("std = 0, but p(x | z) needs a spread above 0.")
    return torch.tensor(std, dtype=torch.float64, device=x.device)


def summed(values: Tensor) -> Tensor:
    """The sum of each sample's values (b, *), (b,) on the CPU."""
    return values.flatten(1).sum(1).cpu()

"""Autoencoders: data as a few latents, and back.

encode  q(z | x)          decode  p(x | z) = N(D(z), s^2)
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdegen.checks import number, whole
from sdegen.networks.codebook import Codebook
from sdegen.networks.layers import CONV, group_norm
from sdegen.networks.unet import Residual

LOGVAR = (-30.0, 20.0)
"""The logarithm of a latent's variance is kept within."""


class Untimed(nn.Module):
    """A U-Net's residual block that is told no time: (B, enter, *space) -> (B, leave, *space)."""

    def __init__(self, enter: int, leave: int, dims: int) -> None:
        super().__init__()
        self.residual = Residual(enter, leave, 1, 0.0, dims)

    def forward(self, x: Tensor) -> Tensor:
        # Of a condition of 0 its bias is left, which scales and shifts every channel.
        h: Tensor = self.residual(x, x.new_zeros(len(x), 1))
        return h


def encoder(
    channels: int, out: int, width: int, mults: Sequence[int], blocks: int, dims: int
) -> nn.Sequential:
    """(B, channels, *space) -> (B, out, *space / 2**(len(mults) - 1)): level i has
    width * mults[i] channels, and below the first begins with a convolution of stride 2."""
    layers: list[nn.Module] = []
    here = channels
    for i, mult in enumerate(mults):
        layers.append(CONV[dims](here, width * mult, 3, stride=2 if i else 1, padding=1))
        here = width * mult
        layers += [Untimed(here, here, dims) for _ in range(blocks)]
    layers += [Untimed(here, here, dims), group_norm(here), nn.SiLU()]
    return nn.Sequential(*layers, CONV[dims](here, out, 3, padding=1))


def decoder(
    enter: int, channels: int, width: int, mults: Sequence[int], blocks: int, dims: int
) -> nn.Sequential:
    """The same way back: (B, enter, *space) -> (B, channels, *space * 2**(len(mults) - 1))."""
    here = width * mults[-1]
    layers: list[nn.Module] = [CONV[dims](enter, here, 3, padding=1), Untimed(here, here, dims)]
    for i in reversed(range(len(mults))):
        layers += [Untimed(here, here, dims) for _ in range(blocks)]
        if i:
            finer = width * mults[i - 1]
            layers += [nn.Upsample(scale_factor=2), CONV[dims](here, finer, 3, padding=1)]
            here = finer
    layers += [group_norm(here), nn.SiLU(), CONV[dims](here, channels, 3, padding=1)]
    return nn.Sequential(*layers)


class Coded(NamedTuple):
    """What is decoded of data, (B, *), and what its latents cost, (B,), in nats per value."""

    x: Tensor
    cost: Tensor


class Autoencoder(nn.Module, ABC):
    """What every autoencoder of data (B, channels, *space) is.

    latents:   channels of z (B, latents, *space / multiple).
    log_noise: log s of p(x | z) = N(decode(z), s^2), a parameter (), learned by
               ``sdegen.losses.reconstruction``.
    """

    log_noise: Tensor

    def __init__(
        self,
        channels: int,
        latents: int,
        out: int,
        width: int,
        mults: Sequence[int],
        blocks: int,
        dims: int,
    ) -> None:
        super().__init__()
        for name, value in {"channels": channels, "latents": latents, "width": width}.items():
            whole(name, value)
        whole("blocks", blocks, 0), whole("dims", dims, 1, 3)
        if not mults:
            raise ValueError("mults = [], but an autoencoder needs at least one level.")
        self.channels, self.latents, self.dims = channels, latents, dims
        self.multiple = 2 ** (len(mults) - 1)
        self.encoder = encoder(channels, out, width, mults, blocks, dims)
        self.decoder = decoder(latents, channels, width, mults, blocks, dims)
        self.log_noise = nn.Parameter(torch.tensor(math.log(0.3)))

    @abstractmethod
    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), (B, latents, *space / multiple) each."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z), (B, channels, *space)."""

    @abstractmethod
    def forward(self, x: Tensor) -> Coded:
        """x from a draw of its latents, and their cost."""

    def latent_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the latents of data of a shape; ValueError for data of other channels, and
        for sides that the levels do not divide."""
        n = self.multiple
        if len(shape) != 1 + self.dims or shape[0] != self.channels:
            raise ValueError(
                f"This autoencoder is of {self.channels} channels and dims = {self.dims}, but the "
                f"data are of shape {tuple(shape)}."
            )
        wrong = [side for side in shape[1:] if side % n or not side]
        if wrong:
            raise ValueError(
                f"The data are of shape {tuple(shape)}, but this autoencoder halves the "
                f"resolution {int(math.log2(n))} times: sides must be multiples of {n}, not "
                f"{wrong[0]}; or take fewer mults."
            )
        return (self.latents, *(side // n for side in shape[1:]))

    def encoded(self, x: Tensor) -> Tensor:
        """What the encoder makes of x; ValueError for an x of another shape."""
        self.latent_shape(x.shape[1:])
        h: Tensor = self.encoder(x)
        return h

    def decoded(self, z: Tensor) -> Tensor:
        """What the decoder makes of z; ValueError for latents of another shape."""
        if z.ndim != 2 + self.dims or z.shape[1] != self.latents:
            raise ValueError(
                f"Latents are (B, {self.latents}, ...) with {self.dims} sides, but these have the "
                f"shape {tuple(z.shape)}."
            )
        x: Tensor = self.decoder(z)
        return x


class KLAutoencoder(Autoencoder):
    """Gaussian latents, held a little to N(0, I).  Kingma & Welling (2014); Rombach et al.
    (2022), section 3.1 and appendix G.

        q(z | x) = N(m, v)      cost = kl_weight KL(q || N(0, I))

    log v is kept within [-30, 20]. kl_weight: the weight of the KL, 1e-6 by default: latents that
    say nearly all, whose law a diffusion model is to learn. 1 is a variational autoencoder.
    """

    def __init__(
        self,
        channels: int,
        latents: int = 4,
        width: int = 32,
        mults: Sequence[int] = (1, 2),
        blocks: int = 1,
        dims: int = 2,
        kl_weight: float = 1e-6,
    ) -> None:
        super().__init__(channels, latents, 2 * latents, width, mults, blocks, dims)
        self.kl_weight = number("kl_weight", kl_weight, 0)

    def gaussian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x)."""
        mean, logvar = self.encoded(x).chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x)."""
        mean, logvar = self.gaussian(x)
        return mean, (0.5 * logvar).exp()

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z)."""
        return self.decoded(z)

    def forward(self, x: Tensor) -> Coded:
        """x from a draw of q(z | x), and kl_weight KL over the number of x's values."""
        mean, logvar = self.gaussian(x)
        z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar)
        cost = self.kl_weight * kl.flatten(1).sum(1) / x[0].numel()
        return Coded(self.decoded(z), cost)


class VQAutoencoder(Autoencoder):
    """Latents that are codes.  Oord et al. (2017), eq. 3; Rombach et al. (2022), app. G.

        cost = commitment |z - q(z)|^2, the mean over z's values

    ``codes`` of ``latents`` channels, learned as moving averages: see ``Codebook``. As a coder of
    a diffusion model its latents are what the encoder makes, before they are codes, and ``decode``
    makes codes of what it is given.
    """

    def __init__(
        self,
        channels: int,
        latents: int = 4,
        width: int = 32,
        mults: Sequence[int] = (1, 2),
        blocks: int = 1,
        dims: int = 2,
        codes: int = 256,
        commitment: float = 0.25,
        decay: float = 0.99,
    ) -> None:
        super().__init__(channels, latents, latents, width, mults, blocks, dims)
        self.commitment = number("commitment", commitment, 0)
        self.codebook = Codebook(codes, latents, decay)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder makes of x, without a spread."""
        z = self.encoded(x)
        return z, torch.zeros_like(z)

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x | z), of the codes nearest to z."""
        return self.decoded(self.codebook.quantise(z))

    def forward(self, x: Tensor) -> Coded:
        """x from the codes of its latents, and what these are off by."""
        z = self.encoded(x)
        q = self.codebook(z)
        off = F.mse_loss(z, q.detach(), reduction="none").flatten(1).mean(1)
        return Coded(self.decoded(q), self.commitment * off)

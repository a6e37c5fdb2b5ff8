"""What autoencoders are trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from sdegen.losses.dsm import check_data

if TYPE_CHECKING:
    from sdegen.networks.autoencoder import Autoencoder


def reconstruction(coder: Autoencoder, x0: Tensor) -> Tensor:
    """-log p(x | z) of data x0 (b, *) from a draw of their latents, and what these cost: (b,), in
    nats per value.

        log s + log(2 pi) / 2 + |x0 - decode(z)|^2 / (2 s^2) + cost

    s, one number, is learned with the rest: at its best s^2 is the mean squared error, so that the
    weight of the latents' cost means the same whatever the data's scale. Rybkin et al. (2021),
    section 3.2.

    ValueError for what is no autoencoder.
    """
    check_data(x0)
    if not isinstance(getattr(coder, "log_noise", None), Tensor):
        raise ValueError(
            "reconstruction is the loss of an autoencoder, which has x, cost and log_noise, but "
            f"this is a {type(coder).__name__}: take net=kl_autoencoder or net=vq_autoencoder."
        )
    found = coder(x0)
    log_s = coder.log_noise
    off = (found.x - x0).flatten(1).square().mean(1)
    nll: Tensor = log_s + 0.5 * math.log(2 * math.pi) + 0.5 * off * (-2 * log_s).exp()
    return nll + found.cost

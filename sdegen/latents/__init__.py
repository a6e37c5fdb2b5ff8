"""Latents: a diffusion model of what an autoencoder makes of data, and what that says of data."""

from sdegen.latents.bound import LatentElbo, latent_elbo
from sdegen.latents.cached import Encoded, encoded
from sdegen.latents.coding import Coder, Latent, fit_scale

__all__ = [
    "Coder",
    "Encoded",
    "Latent",
    "LatentElbo",
    "encoded",
    "fit_scale",
    "latent_elbo",
]

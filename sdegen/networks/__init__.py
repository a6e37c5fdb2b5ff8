"""Networks that can stand behind a score model: all are called ``net(x, t, y=None)``.

x is the state (B, *shape), t a time label (B,) of order one, y optional class labels (B,);
the result has the shape of x. And autoencoders, ``coder(x)``, in whose latents a model can live.
"""

from __future__ import annotations

from sdegen.networks.autoencoder import Autoencoder, Coded, KLAutoencoder, VQAutoencoder
from sdegen.networks.codebook import Codebook, perplexity
from sdegen.networks.embedding import Conditioning, TimeEmbedding
from sdegen.networks.mlp import MLP
from sdegen.networks.trunk import Trunk
from sdegen.networks.unet import UNet

__all__ = [
    "MLP",
    "Autoencoder",
    "Codebook",
    "Coded",
    "Conditioning",
    "KLAutoencoder",
    "TimeEmbedding",
    "Trunk",
    "UNet",
    "VQAutoencoder",
    "perplexity",
]

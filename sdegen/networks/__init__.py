"""Networks that can stand behind a score model: all are called ``net(x, t, y=None)``.

x is the state (B, *shape), t a time label (B,) of order one, y optional class labels (B,);
the result has the shape of x. And autoencoders, ``coder(x)``, in whose latents a model can live.
"""

from __future__ import annotations

from sdegen.networks.adapters import lora
from sdegen.networks.adm import ADM
from sdegen.networks.attention import Edit, Place
from sdegen.networks.autoencoder import Autoencoder, Coded, KLAutoencoder, VQAutoencoder
from sdegen.networks.codebook import Codebook, perplexity
from sdegen.networks.conditioned import Conditioned
from sdegen.networks.control import Controlled, together
from sdegen.networks.dit import DiT
from sdegen.networks.edm2 import EDM2
from sdegen.networks.egnn import EGNN
from sdegen.networks.embedding import Conditioning, TimeEmbedding
from sdegen.networks.joined import Joined
from sdegen.networks.mlp import MLP, Flattened
from sdegen.networks.resampling import FIRDown, FIRUp, Nearest, Pool, Rescaled
from sdegen.networks.transformer import Transformer
from sdegen.networks.trunk import Trunk
from sdegen.networks.unet import UNet
from sdegen.networks.video import Video
from sdegen.networks.widening import widened, with_classes

__all__ = [
    "ADM",
    "EDM2",
    "EGNN",
    "MLP",
    "Autoencoder",
    "Codebook",
    "Coded",
    "Conditioned",
    "Conditioning",
    "Controlled",
    "DiT",
    "Edit",
    "FIRDown",
    "FIRUp",
    "Flattened",
    "Joined",
    "KLAutoencoder",
    "Nearest",
    "Place",
    "Pool",
    "Rescaled",
    "TimeEmbedding",
    "Transformer",
    "Trunk",
    "UNet",
    "VQAutoencoder",
    "Video",
    "lora",
    "perplexity",
    "together",
    "widened",
    "with_classes",
]

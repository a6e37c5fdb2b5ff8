"""What score models are trained on: denoising score matching, its weightings and times, and
what is seen of the data beside."""

from sdegen.losses.clips import Between, Extend, with_images
from sdegen.losses.coding import reconstruction
from sdegen.losses.conditions import dropped
from sdegen.losses.couplings import Coupling, MinibatchOT, independent_noise, stored
from sdegen.losses.degradations import (
    JPEG,
    Augmented,
    Colorize,
    Degradation,
    Degraded,
    Inpaint,
    Superresolve,
    Uncrop,
)
from sdegen.losses.dequantisation import dequantised
from sdegen.losses.dsm import dsm_loss
from sdegen.losses.exposure import exposed, perturbed
from sdegen.losses.hybrid import hybrid_loss, variance_loss
from sdegen.losses.judges import contrastive, matched, noisy_ce
from sdegen.losses.learned import Encoder, Learned
from sdegen.losses.restoration import paired
from sdegen.losses.spectra import Spectral
from sdegen.losses.times import (
    LogNormalTime,
    LossHistory,
    independent,
    likelihood_time,
    low_discrepancy,
    uniform_time,
)
from sdegen.losses.uncertainty import Uncertainty
from sdegen.losses.vdm import vdm_loss
from sdegen.losses.weightings import EDMWeighting, MinSNR

__all__ = [
    "JPEG",
    "Augmented",
    "Between",
    "Colorize",
    "Coupling",
    "Degradation",
    "Degraded",
    "EDMWeighting",
    "Encoder",
    "Extend",
    "Inpaint",
    "Learned",
    "LogNormalTime",
    "LossHistory",
    "MinSNR",
    "MinibatchOT",
    "Spectral",
    "Superresolve",
    "Uncertainty",
    "Uncrop",
    "contrastive",
    "dequantised",
    "dropped",
    "dsm_loss",
    "exposed",
    "hybrid_loss",
    "independent",
    "independent_noise",
    "likelihood_time",
    "low_discrepancy",
    "matched",
    "noisy_ce",
    "paired",
    "perturbed",
    "reconstruction",
    "stored",
    "uniform_time",
    "variance_loss",
    "vdm_loss",
    "with_images",
]

"""Distances between sets of samples."""

from sdegen.metrics.captions import CLIPScore, DigitJudge, words_right
from sdegen.metrics.classifier import ImageClassifier, fit_classifier
from sdegen.metrics.distances import Fidelity, fidelity
from sdegen.metrics.features import (
    Classified,
    EfficientNetLite0,
    Features,
    Raw,
    TorchScript,
    as_bytes,
    features_of,
)
from sdegen.metrics.forecasts import covered, crps
from sdegen.metrics.frechet import FrechetDistance, frechet_distance, frechet_estimate
from sdegen.metrics.kernels import KernelDistance, energy_distance, kernel_distance, mmd
from sdegen.metrics.motion import acceleration, centroids
from sdegen.metrics.neighbours import Coverage, coverage
from sdegen.metrics.restored import Restored, psnr, ssim
from sdegen.metrics.sliced import sliced_wasserstein
from sdegen.metrics.spectrum import radial_spectrum

__all__ = [
    "CLIPScore",
    "Classified",
    "Coverage",
    "DigitJudge",
    "EfficientNetLite0",
    "Features",
    "Fidelity",
    "FrechetDistance",
    "ImageClassifier",
    "KernelDistance",
    "Raw",
    "Restored",
    "TorchScript",
    "acceleration",
    "as_bytes",
    "centroids",
    "coverage",
    "covered",
    "crps",
    "energy_distance",
    "features_of",
    "fidelity",
    "fit_classifier",
    "frechet_distance",
    "frechet_estimate",
    "kernel_distance",
    "mmd",
    "psnr",
    "radial_spectrum",
    "sliced_wasserstein",
    "ssim",
    "words_right",
]

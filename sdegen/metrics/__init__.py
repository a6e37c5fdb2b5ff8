"""Distances between sets of samples."""

from sdegen.metrics.classifier import ImageClassifier, fit_classifier
from sdegen.metrics.frechet import frechet_distance
from sdegen.metrics.kernels import energy_distance, mmd
from sdegen.metrics.sliced import sliced_wasserstein

__all__ = [
    "ImageClassifier",
    "energy_distance",
    "fit_classifier",
    "frechet_distance",
    "mmd",
    "sliced_wasserstein",
]

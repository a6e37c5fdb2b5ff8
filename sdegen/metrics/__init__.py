"""Distances between sets of samples."""

from sdegen.metrics.classifier import ImageClassifier, fit_classifier
from sdegen.metrics.frechet import frechet_distance
from sdegen.metrics.kernels import KernelDistance, energy_distance, kernel_distance, mmd
from sdegen.metrics.neighbours import Coverage, coverage
from sdegen.metrics.sliced import sliced_wasserstein

__all__ = [
    "Coverage",
    "ImageClassifier",
    "KernelDistance",
    "coverage",
    "energy_distance",
    "fit_classifier",
    "frechet_distance",
    "kernel_distance",
    "mmd",
    "sliced_wasserstein",
]

"""How far samples are from data."""

from __future__ import annotations

from sdegen.metrics.classifier import ImageClassifier, fit_classifier
from sdegen.metrics.frechet import frechet_distance
from sdegen.metrics.sliced import sliced_wasserstein

__all__ = ["ImageClassifier", "fit_classifier", "frechet_distance", "sliced_wasserstein"]

"""What a network's output means, and the model that solvers ask."""

from sdegen.model.denoiser import Denoiser
from sdegen.model.prediction import (
    LinearPrediction,
    PredictEDM,
    Prediction,
    ScorePrediction,
    Target,
    predicted,
)
from sdegen.model.score import ScoreModel
from sdegen.model.truncated import truncated_model

__all__ = [
    "Denoiser",
    "LinearPrediction",
    "PredictEDM",
    "Prediction",
    "ScoreModel",
    "ScorePrediction",
    "Target",
    "predicted",
    "truncated_model",
]

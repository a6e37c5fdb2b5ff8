"""What a network's output means, and the model that solvers ask."""

from sdegen.model.prediction import (
    LinearPrediction,
    PredictEDM,
    Prediction,
    ScorePrediction,
    Target,
)
from sdegen.model.score import ScoreModel

__all__ = [
    "LinearPrediction",
    "PredictEDM",
    "Prediction",
    "ScoreModel",
    "ScorePrediction",
    "Target",
]

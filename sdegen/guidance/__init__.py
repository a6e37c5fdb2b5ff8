"""Models made of models: guidance with and without a classifier, thresholds, what is known."""

from sdegen.guidance.classifier import Guided, Judge
from sdegen.guidance.free import CFG, Contrast, Interval, Stepwise, cfgpp
from sdegen.guidance.inpaint import Known
from sdegen.guidance.threshold import Thresholded
from sdegen.guidance.wrapped import Strength, Wrapped

__all__ = [
    "CFG",
    "Contrast",
    "Guided",
    "Interval",
    "Judge",
    "Known",
    "Stepwise",
    "Strength",
    "Thresholded",
    "Wrapped",
    "cfgpp",
]

"""Models made of models: guidance with and without a classifier, thresholds, what is known."""

from sdegen.guidance.classifier import Guided
from sdegen.guidance.clip import CLIP, TextTower, as_token, on_sphere
from sdegen.guidance.free import CFG, Contrast
from sdegen.guidance.inpaint import Known
from sdegen.guidance.inverse import (
    Observed,
    PriorCovariance,
    ddnm,
    dps,
    jfps,
    mmps,
    pigdm,
    tmpd,
)
from sdegen.guidance.judges import Encoder, Judge, Similarity, Style, gram
from sdegen.guidance.operators import Average, Blur, Fourier, Gray, Mask, Operator, Radon
from sdegen.guidance.published import PublishedDPS, mcg
from sdegen.guidance.scales import Interval, Stepwise, cfgpp
from sdegen.guidance.threshold import Thresholded
from sdegen.guidance.volumes import TV, Proximal, Refined, Sliced
from sdegen.guidance.wrapped import Strength, Wrapped

__all__ = [
    "CFG",
    "CLIP",
    "TV",
    "Average",
    "Blur",
    "Contrast",
    "Encoder",
    "Fourier",
    "Gray",
    "Guided",
    "Interval",
    "Judge",
    "Known",
    "Mask",
    "Observed",
    "Operator",
    "PriorCovariance",
    "Proximal",
    "PublishedDPS",
    "Radon",
    "Refined",
    "Similarity",
    "Sliced",
    "Stepwise",
    "Strength",
    "Style",
    "TextTower",
    "Thresholded",
    "Wrapped",
    "as_token",
    "cfgpp",
    "ddnm",
    "dps",
    "gram",
    "jfps",
    "mcg",
    "mmps",
    "on_sphere",
    "pigdm",
    "tmpd",
]

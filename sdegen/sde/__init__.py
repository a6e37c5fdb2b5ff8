"""Forward processes: the level at one time, and the SDEs that turn data into noise."""

from sdegen.sde.learned import LearnedVP
from sdegen.sde.level import NO_SIGNAL, Instant, Level, expand
from sdegen.sde.process import SDE, LinearSDE, Prior
from sdegen.sde.schedules import EDM, Cosine, DiscreteVPSDE, Flow, MarginalSDE
from sdegen.sde.song import VESDE, VPSDE, SubVPSDE

__all__ = [
    "EDM",
    "NO_SIGNAL",
    "SDE",
    "VESDE",
    "VPSDE",
    "Cosine",
    "DiscreteVPSDE",
    "Flow",
    "Instant",
    "LearnedVP",
    "Level",
    "LinearSDE",
    "MarginalSDE",
    "Prior",
    "SubVPSDE",
    "expand",
]

"""Forward processes: the level at one time, and the SDEs that turn data into noise."""

from typing import Any

from sdegen.checks import warn
from sdegen.sde.coordinates import AnisotropicVPSDE, BlurringSDE
from sdegen.sde.early import GaussianPrior, TruncatedSDE, truncated
from sdegen.sde.learned import LearnedVPSDE
from sdegen.sde.level import NO_SIGNAL, Instant, Level, expand, spread
from sdegen.sde.process import SDE, LinearSDE, Prior
from sdegen.sde.schedules import EDMSDE, CosineSDE, DiscreteVPSDE, FlowSDE, MarginalSDE
from sdegen.sde.song import VESDE, VPSDE, SubVPSDE

RENAMED = {"Cosine": "CosineSDE", "EDM": "EDMSDE", "Flow": "FlowSDE", "LearnedVP": "LearnedVPSDE"}
"""The names that SDEs had, which stay for one release, and those they have."""


def __getattr__(name: str) -> Any:
    """An SDE by the name it had."""
    if name not in RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn(f"The SDE {name} is called {RENAMED[name]} now.", DeprecationWarning)
    return globals()[RENAMED[name]]


__all__ = [
    "EDMSDE",
    "NO_SIGNAL",
    "SDE",
    "VESDE",
    "VPSDE",
    "AnisotropicVPSDE",
    "BlurringSDE",
    "CosineSDE",
    "DiscreteVPSDE",
    "FlowSDE",
    "GaussianPrior",
    "Instant",
    "LearnedVPSDE",
    "Level",
    "LinearSDE",
    "MarginalSDE",
    "Prior",
    "SubVPSDE",
    "TruncatedSDE",
    "expand",
    "spread",
    "truncated",
]

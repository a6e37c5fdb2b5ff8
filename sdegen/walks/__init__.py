"""Walks: grids of falling times, and climbs put into them."""

from sdegen.walks.climbs import Climb, ancestral, churn, multistep, repaint, restart, zigzag
from sdegen.walks.grids import (
    GRIDS,
    Grid,
    WalkLike,
    ddim_quadratic,
    eased,
    focused,
    karras,
    leading,
    linspace,
    log_snr,
    quadratic,
    straight,
    trailing,
    uniform,
)
from sdegen.walks.walk import Walk, check_walk, levels

__all__ = [
    "GRIDS",
    "Climb",
    "Grid",
    "Walk",
    "WalkLike",
    "ancestral",
    "check_walk",
    "churn",
    "ddim_quadratic",
    "eased",
    "focused",
    "karras",
    "leading",
    "levels",
    "linspace",
    "log_snr",
    "multistep",
    "quadratic",
    "repaint",
    "restart",
    "straight",
    "trailing",
    "uniform",
    "zigzag",
]

"""Few steps by training: reflow, distillation, and networks that are flow maps."""

from sdegen.distill.flowmaps import Consistency, Growing, MeanFlow, PseudoHuber, Shortcut, squared
from sdegen.distill.heads import fit_head, with_head
from sdegen.distill.pairs import Pairs, pairs_of, straightness
from sdegen.distill.straight import mean_velocity
from sdegen.distill.teaching import GuidedOnce, Progressive

__all__ = [
    "Consistency",
    "Growing",
    "GuidedOnce",
    "MeanFlow",
    "Pairs",
    "Progressive",
    "PseudoHuber",
    "Shortcut",
    "fit_head",
    "mean_velocity",
    "pairs_of",
    "squared",
    "straightness",
    "with_head",
]

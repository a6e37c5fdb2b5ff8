"""Few steps by training: reflow, distillation, networks that are flow maps; and what a model knows
as the loss of something else."""

from sdegen.distill.flowmaps import Consistency, Growing, MeanFlow, PseudoHuber, Shortcut, squared
from sdegen.distill.heads import fit_head, with_head
from sdegen.distill.pairs import Pairs, pairs_of, straightness
from sdegen.distill.scores import Within, sds_loss
from sdegen.distill.straight import mean_velocity
from sdegen.distill.teaching import GuidedOnce, Matching, Progressive

__all__ = [
    "Consistency",
    "Growing",
    "GuidedOnce",
    "Matching",
    "MeanFlow",
    "Pairs",
    "Progressive",
    "PseudoHuber",
    "Shortcut",
    "Within",
    "fit_head",
    "mean_velocity",
    "pairs_of",
    "sds_loss",
    "squared",
    "straightness",
    "with_head",
]

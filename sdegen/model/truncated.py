"""Models that are sampled from an earlier time than they were trained to."""

from __future__ import annotations

import copy

from torch import Tensor

from sdegen.model.score import ScoreModel
from sdegen.sde.early import truncated
from sdegen.sde.process import linear


def truncated_model(
    model: ScoreModel, x0: Tensor, T: float, rank: int | None = None
) -> ScoreModel:
    """A trained model on its SDE up to T alone, where sampling starts from a Gaussian fitted to
    data x0 (n, *), as ``truncated`` has it; its network is told the times that it knows.

    ValueError for a wrapper, and as of ``truncated``.
    """
    if not isinstance(model, ScoreModel):
        raise ValueError(
            f"What is truncated is a ScoreModel, not a {type(model).__name__}: truncate first, "
            "and wrap afterwards."
        )
    short = copy.copy(model)  # its label is made for the whole SDE, and stays
    short.sde = truncated(
        linear(model.sde, "Truncating", "start from states of your own"), x0, T, rank
    )
    return short

"""A mixture with labels, whose conditional and unconditional scores are known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Mixture
from sdegen.model.prediction import PREDICTIONS, PredictEDM
from tests.cases import MIXTURE

NULL = 3
"""The label of no class; 0 to 2 are the mixture's components."""

WEIGHTS = torch.tensor(MIXTURE.weights, dtype=torch.float64)
CLASSES = [Mixture([MIXTURE.means[k]], [MIXTURE.stds[k]], [1.0]) for k in range(3)]
TARGETS: dict[str, Any] = {**PREDICTIONS, "edm": PredictEDM(0.5)}


def denoised(x: Tensor, level: sg.Level, y: Tensor) -> Tensor:
    """E[x0 | x_t, y]."""
    every = torch.stack([each.denoise(x, level) for each in (*CLASSES, MIXTURE)])
    return every[y, torch.arange(len(x))]


def labelled(sde: sg.LinearSDE, predicts: str = "x0") -> sg.ScoreModel:
    """The exact model of y: a class, or NULL for all of them."""
    target = TARGETS[predicts]

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        level = sde(t.double())
        if predicts == "edm":  # the network sees c_in x
            x = x * ((level.alpha * 0.5) ** 2 + level.sigma**2).sqrt()[:, None]
        x0 = denoised(x, level, y)
        eps = (x - level.alpha[:, None] * x0) / level.sigma[:, None]
        a, b = (c if isinstance(c, float) else c[:, None] for c in target(level))
        return a * x0 + b * eps

    return sg.ScoreModel(net, sde, predicts, time="t")


def log_class(x: Tensor, level: sg.Level, y: Tensor) -> Tensor:
    """log p(y | x_t), (b,)."""
    each = torch.stack([c.log_prob(x, level) for c in CLASSES], 1) + WEIGHTS.to(x).log()
    return each.log_softmax(1).gather(1, y.to(x.device)[:, None])[:, 0]

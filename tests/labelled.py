"""A mixture with labels, whose conditional and unconditional scores are known, and guided models
of it of every kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Mixture
from sdegen.guidance import (
    CFG,
    Contrast,
    Guided,
    Interval,
    Known,
    Mask,
    Thresholded,
    ddnm,
    mmps,
    pigdm,
)
from sdegen.model.prediction import PREDICTIONS, PredictEDM
from tests.cases import MIXTURE, normal

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


SDE = sg.VPSDE()
BATCH = 4
Y = torch.tensor([0, 1, 2, 1])
X = normal(BATCH, 2)
HALF = torch.tensor([True, False])
MASKS = torch.tensor([[True, False], [True, True], [False, False], [False, True]])
SCALES = torch.tensor([0.5, 1.0, 0.8, 0.2]).double()


def judged(x0: Tensor, level: sg.Level) -> Tensor:
    return -(x0 - 0.3).square().sum(1)


def every(inner: Any) -> Any:
    """All kinds at once, in their order."""
    free = CFG(inner, torch.linspace(0.5, 3, BATCH).double(), {"y": NULL})
    guided = Guided(free, log_class, Interval(0.7, 0.2, 5.0), given={"y": Y})
    return Thresholded(Known(guided, 0.2 * X, HALF), 0.9, (-1.5, 1.5))


def seen(x: Tensor) -> Tensor:
    """The first coordinate and a part of the second."""
    return x[:, :1] + 0.3 * x[:, 1:]


def contrasted(inner: Any) -> Any:
    return Contrast([labelled(SDE, "v").given(y=torch.full_like(Y, NULL)), inner], [1.7])


KINDS: dict[str, Callable[[Any], Any]] = {
    "cfg": lambda m: CFG(m, 3.0, {"y": NULL}),
    "cfg together": lambda m: CFG(m, 3.0, {"y": NULL}, together=True),
    "cfg rescaled": lambda m: CFG(m, 3.0, {"y": NULL}, rescale=0.7),
    "cfg on an interval": lambda m: CFG(m, Interval(3.0, 0.2, 2.0), {"y": NULL}),
    "contrast": contrasted,
    "guided": lambda m: Guided(m, log_class, 2.0, given={"y": Y.flip(0)}),
    "guided through": lambda m: Guided(m, judged, 0.5, through=True),
    "clipped": lambda m: Thresholded(m, None, (-0.7, 0.7)),
    "thresholded": lambda m: Thresholded(m, 0.8, (-0.7, 0.7)),
    "known": lambda m: Known(m, 0.2 * X, HALF),
    "observed": lambda m: mmps(m, 0.2 * X[:, :1], seen, 0.3, scale=SCALES),
    "observed by masks": lambda m: pigdm(m, 0.2 * X, Mask(MASKS), 0.3),
    "projected by masks": lambda m: ddnm(m, 0.2 * X, Mask(MASKS)),
    "all": every,
}


def made(kind: str) -> Any:
    return KINDS[kind](labelled(SDE).given(y=Y))

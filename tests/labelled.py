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
    TV,
    Average,
    Contrast,
    Guided,
    Interval,
    Known,
    Mask,
    PublishedDPS,
    Refined,
    Sliced,
    Thresholded,
    ddnm,
    jfps,
    mcg,
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


COV = torch.tensor([[0.8, 0.3], [0.3, 0.6]]).double()
WALK = sg.walks.log_snr(SDE, 5)
DEEP = 4
"""Slices of a volume of two."""


def volumes(inner: Any) -> Any:
    """Slices that are joined by what was measured of all of them."""
    sliced, A = Sliced(inner, 1, DEEP).given(y=Y), Average(2)
    y = 0.3 * A(normal(BATCH, DEEP, 2, seed=2))
    return Refined(pigdm(sliced, y, A, 0.4), TV(A, y, 0.05, 1, iterations=3))


def states(kind: str) -> Tensor:
    """Where samples of a kind begin."""
    return normal(BATCH, DEEP, 2, seed=1) if kind in ("sliced", "volumes") else X


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
    "jfps": lambda m: jfps(m, 0.2 * X[:, :1], seen, 0.3, COV),
    "published dps": lambda m: PublishedDPS(m, 0.2 * X[:, :1], seen, WALK, 0.1),
    "mcg": lambda m: mcg(m, 0.2 * X * MASKS, Mask(MASKS), WALK, 0.1),
    "refined": lambda m: Refined(m, TV(Mask(MASKS), 0.2 * X, 0.1, 1, iterations=3)),
    "sliced": lambda m: Sliced(m, 1, DEEP).given(y=Y),
    "volumes": volumes,
    "all": every,
}


OF_ONE_WALK = ("published dps", "mcg")
"""Kinds that are of WALK's steps, and refuse other times."""


def made(kind: str) -> Any:
    return KINDS[kind](labelled(SDE).given(y=Y))

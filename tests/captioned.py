"""A small network that is told captions, with random weights, and models of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

import sdegen as sg
from sdegen.guidance import CFG
from sdegen.networks import UNet
from sdegen.text import NO_TEXT, Words

SDE = sg.VPSDE()
WORDS = Words(width=6).learn(["small red two left", "large blue one right now"])
FROM, TO = "small red two left", "small blue two left"
SHAPE = (1, 4, 4)


def captioned(predicts: str = "eps", **how: Any) -> sg.ScoreModel:
    """A model in float64 whose weights are all off zero, attention's too."""
    net = UNet(1, width=8, heads=2, token_width=6, words=WORDS.words, length=WORDS.most)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.double().parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return sg.ScoreModel(net.eval().requires_grad_(False), SDE, predicts, **how)


def told(model: sg.ScoreModel, captions: Sequence[str], scale: float = 1.0) -> Any:
    """The model that is told these captions, guided where the scale is not 1."""
    given = model.given(**WORDS(captions))
    return given if scale == 1 else CFG(given, scale, NO_TEXT)

"""A small network that is told captions, with random weights, and tiny runs of some."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import sdegen as sg
from sdegen.guidance import CFG
from sdegen.networks import UNet
from sdegen.runs.settings import SampleSettings, read
from sdegen.text import NO_TEXT, Words
from tests.configs import composed

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


# ------------------------------------------------------------------------------------ tiny runs

SAID = ("dark", "light", "dark left", "light left", "light right", "dark right")


def pictures(folder: Path, captions: tuple[str, ...] = SAID) -> Path:
    """Grey images, two of each caption."""
    folder.mkdir()
    lines = []
    for k, caption in enumerate(2 * captions):
        Image.new("L", (4, 4), 20 * k).save(folder / f"{k:02}.png")
        lines.append(json.dumps({"file_name": f"{k:02}.png", "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def config_of(data: Path, *more: str) -> dict[str, Any]:
    """A tiny run's configuration."""
    solvers = ("euler_maruyama", "ddpm", "heun", "ddim")
    return composed(
        "train", "experiment=text/captioned_digits", "data=image_folder", f"data.root={data}",
        "data.size=4", "data.channels=1", "net.width=8", "net.mults=[1]", "net.attention=[0]",
        "net.heads=2", "text.width=8", "train.steps=3", "train.batch_size=4", "train.log_every=1",
        "evaluate.budgets=[2]", *(f"~evaluate.solvers.{each}" for each in solvers), "device=cpu",
        *more,
    )  # fmt: skip


def quiet(*_: Any) -> None:
    """Say nothing."""


def sampled(run: Path, *more: str) -> Any:
    """Settings of ``sdegen-sample``."""
    usual = ("n=2", "nfe=2", "quality=false", "device=cpu")
    return read(SampleSettings, composed("sample", f"run={run}", *usual, *more))

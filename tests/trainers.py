"""A trainer whose run takes no time, in a folder; and runs without what they leave in the end."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.data import toy
from sdegen.networks import MLP
from sdegen.runs.finish import write_weights
from sdegen.runs.train import train_run
from sdegen.training import Trainer, TrainSettings

ADAMW = partial(torch.optim.AdamW, lr=1e-2)


def trainer(
    folder: Path,
    loss: Any = sg.dsm_loss,
    identity: Any = None,
    data: Any = None,
    held_out: Any = None,
    optimizer: Any = ADAMW,
    **settings: Any,
) -> Trainer:
    """Twelve steps on points of the plane, a record every four, a checkpoint every five."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    chosen = {"steps": 12, "batch_size": 16, "log_every": 4, "save_every": 5, "device": "cpu"}
    return Trainer(
        sg.ScoreModel(MLP(dim=2, width=16, depth=1), sg.VPSDE()),
        toy("moons", n=50) if data is None else data,
        loss,
        optimizer,
        TrainSettings(**{**chosen, "warmup": 3, **settings}),
        folder,
        identity=identity,
        held_out=held_out,
    )


def weights_alone(model: Any, config: Any, compared: Any, folder: Path, *rest: Any) -> list[Any]:
    """What a finished run leaves behind, without pictures and table."""
    write_weights(folder, model, config, rest[4])
    return []


def train_alone(config: dict[str, Any], folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdegen.runs.train.finish", weights_alone)
        train_run(config, folder, say=lambda text: None)

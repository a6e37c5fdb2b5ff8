"""Loggers of Lightning Fabric that take pictures: TensorBoard's, and one of Weights & Biases."""

from __future__ import annotations

import json
import secrets
from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from sdegen.files import read_json, write_json


class Pictured(TensorBoardLogger):
    """TensorBoard in a run's folder, with pictures, from a first step on."""

    def __init__(self, folder: Path, first: int) -> None:
        super().__init__(folder, name="", version="tensorboard", purge_step=first)
        self.first = first

    def log_hyperparams(self, params: Any, *args: Any, **more: Any) -> None:
        """Settings, as a text of the first step, which is purged with it."""
        lines = json.dumps(params, indent=2, default=str).splitlines()
        code = "".join(f"    {line}\n" for line in lines)
        self.experiment.add_text("settings", code, self.first)

    def show(self, title: str, path: Path, step: int) -> None:
        """An image file."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self.experiment.add_image(title, pixels, step, dataformats="HWC")


class WandbLogger(Logger):
    """A run of Weights & Biases.

    path: a JSON file of the run's identifier, which one that goes on has again, and of the last
    steps that it was told a record of and shown a picture of; what comes before is not told again.
    """

    def __init__(self, path: Path, project: str, mode: str) -> None:
        self.path, self.project, self.mode = path, project, mode
        if not path.is_file():
            write_json(path, {"id": secrets.token_hex(6), "told": 0, "shown": 0})
        self.state = read_json(path)
        self.begun: Any = None

    @property
    def name(self) -> str:
        """The project's."""
        return self.project

    @property
    def version(self) -> str:
        """The run's identifier."""
        return str(self.state["id"])

    @property
    def experiment(self) -> Any:
        """What ``wandb.init`` gives; ValueError, with what it says, where it gives nothing."""
        if self.begun is None:
            wandb, folder = import_module("wandb"), self.path.parent
            try:
                self.begun = wandb.init(
                    project=self.project,
                    id=self.version,
                    name=folder.name,
                    dir=str(folder),
                    mode=self.mode,
                    resume="allow",
                    settings=wandb.Settings(console="off", silent=True),
                )
            except Exception as error:  # of many classes, not all of them its own
                reason = " ".join(str(error).split())[:300]
                raise ValueError(
                    f"logger=wandb cannot begin with mode = {self.mode!r}: {reason}. "
                    "logger.wandb.mode=offline needs no connection."
                ) from error
        return self.begun

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Numbers of a step, if it has not been told of it."""
        if step is None or step > self.state["told"]:
            self.experiment.log(dict(metrics), step=step)
            self.remember("told", step)

    def log_hyperparams(self, params: Any, *args: Any, **more: Any) -> None:
        """Settings."""
        self.experiment.config.update(params, allow_val_change=True)

    def show(self, title: str, path: Path, step: int) -> None:
        """An image file, if it has not been shown that of its step."""
        if step > self.state["shown"]:
            self.experiment.log({title: import_module("wandb").Image(str(path))}, step=step)
            self.remember("shown", step)

    def remember(self, what: str, step: int | None) -> None:
        """The last step, on the disk."""
        if step is not None:
            self.state[what] = step
            write_json(self.path, self.state)

    def finalize(self, status: str) -> None:
        """End the run."""
        if self.begun is not None:
            self.begun.finish(exit_code=int(status == "failed"))
            self.begun = None

"""Loggers of Lightning Fabric that take pictures: TensorBoard's, and one of Weights & Biases."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger


class Pictured(TensorBoardLogger):
    """TensorBoard, with pictures."""

    def show(self, title: str, path: Path, step: int) -> None:
        """An image file."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self.experiment.add_image(title, pixels, step, dataformats="HWC")


class WandbLogger(Logger):
    """A run of Weights & Biases, which is begun where it is first told something.

    identifier: of the run, which one that goes on has again.  told: the last step that it was told
    of; what comes before is not told again.
    """

    def __init__(self, folder: Path, identifier: str, project: str, mode: str, told: int) -> None:
        self.folder, self.identifier, self.told = folder, identifier, told
        self.project, self.mode = project, mode
        self.begun: Any = None

    @property
    def name(self) -> str:
        """The project's."""
        return self.project

    @property
    def version(self) -> str:
        """The run's identifier."""
        return self.identifier

    @property
    def experiment(self) -> Any:
        """What ``wandb.init`` gives."""
        if self.begun is None:
            wandb = import_module("wandb")
            self.begun = wandb.init(
                project=self.project,
                id=self.identifier,
                name=self.folder.name,
                dir=str(self.folder),
                mode=self.mode,
                resume="allow",
                settings=wandb.Settings(console="off", silent=True),
            )
        return self.begun

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Numbers of a step, if it has not been told of it."""
        if step is None or step > self.told:
            self.experiment.log(dict(metrics), step=step)

    def log_hyperparams(self, params: Any, *args: Any, **more: Any) -> None:
        """Settings."""
        self.experiment.config.update(params, allow_val_change=True)

    def show(self, title: str, path: Path, step: int) -> None:
        """An image file, if its step has not been told of."""
        if step > self.told:
            self.experiment.log({title: import_module("wandb").Image(str(path))}, step=step)

    def finalize(self, status: str) -> None:
        """End the run."""
        if self.begun is not None:
            self.begun.finish(exit_code=int(status == "failed"))
            self.begun = None

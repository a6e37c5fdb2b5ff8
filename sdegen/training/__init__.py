"""The training loop: settings, checkpoints, averages, a run that goes on where it stopped."""

from sdegen.training.objective import Objective
from sdegen.training.settings import TrainSettings
from sdegen.training.signals import stopping
from sdegen.training.trackers import CSV, TensorBoard, Wandb
from sdegen.training.trainer import Record, Trainer

__all__ = [
    "CSV",
    "Objective",
    "Record",
    "TensorBoard",
    "TrainSettings",
    "Trainer",
    "Wandb",
    "stopping",
]

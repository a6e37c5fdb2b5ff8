"""Training: settings, the loop, and files that are whole or absent."""

from sdegen.training.settings import TrainSettings
from sdegen.training.stopping import stopping
from sdegen.training.trainer import Objective, Record, Trainer

__all__ = ["Objective", "Record", "TrainSettings", "Trainer", "stopping"]

"""What steps are taken on: processes of Lightning Fabric, one or many, and their memory."""

from __future__ import annotations

import sys
from typing import Any

import torch

from sdegen.training.settings import TrainSettings


def launch(settings: TrainSettings) -> Any:
    """The engine: this process alone, or one process per device that all run this program."""
    from lightning_fabric import Fabric

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device = 'cuda', but torch sees no CUDA device: use 'cpu'.")
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    precision = settings.precision
    if precision == "auto":
        precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=settings.devices,
        strategy="ddp" if settings.devices > 1 else "auto",
        precision=precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    return fabric


def peak_memory(device: torch.device) -> float | None:
    """The most memory that this process has had, in MiB: on a GPU there, else in the host, where
    the system says so."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return None
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

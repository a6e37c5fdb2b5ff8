"""What steps are taken on: processes of Lightning Fabric, one or many, and their memory."""

from __future__ import annotations

import os
import sys
from inspect import Parameter, signature
from typing import Any

import torch

from sdegen.training.settings import TrainSettings
from sdegen.training.shards import shard


def launched() -> int:
    """How many processes torchrun or srun has started as one command; 1 where none has."""
    said = os.environ
    if "TORCHELASTIC_RUN_ID" in said:
        return int(said.get("WORLD_SIZE", 1))
    # SLURM_NTASKS is what a job may have: its batch script has it too, and is alone.
    return int(said.get("SLURM_STEP_NUM_TASKS") or 1)


def environment() -> Any:
    """How processes of Lightning Fabric find each other; None where it is to see for itself.

    Not its own choice under Slurm: it takes a batch script for one of SLURM_NTASKS processes, and
    what srun started in an interactive job for one alone.
    """
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if launched() > 1:
        return SLURMEnvironment()
    return LightningEnvironment() if "SLURM_NTASKS" in os.environ else None


def launch(settings: TrainSettings) -> Any:
    """The engine: this process alone, or one process per device that all run this program."""
    from lightning_fabric import Fabric

    world = settings.devices * settings.num_nodes
    if launched() not in (1, world):
        raise ValueError(
            f"{launched()} processes were started together, but train.devices x train.num_nodes = "
            f"{settings.devices} x {settings.num_nodes}: give as many as there are."
        )
    if settings.num_nodes > 1 and launched() == 1 and "MASTER_ADDR" not in os.environ:
        raise ValueError(
            f"train.num_nodes = {settings.num_nodes}, but this process is alone: start all by "
            "torchrun or srun, or one a machine with MASTER_ADDR, MASTER_PORT and NODE_RANK."
        )
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("train.device = 'cuda', but torch sees no CUDA device: use 'cpu'.")
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    precision = settings.precision
    if precision == "auto":
        precision = "bf16-mixed" if cuda and torch.cuda.is_bf16_supported() else "32-true"
    strategy: Any = "ddp" if world > 1 else "auto"
    if settings.strategy == "fsdp":
        from lightning_fabric.strategies.model_parallel import ModelParallelStrategy

        strategy = ModelParallelStrategy(shard, data_parallel_size=world, tensor_parallel_size=1)
    try:
        place = environment()
        fabric = Fabric(
            accelerator="cuda" if cuda else "cpu",
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=strategy,
            plugins=None if place is None else [place],
            precision=precision,  # type: ignore[arg-type]
        )
    except (ValueError, RuntimeError) as error:  # of a launcher's numbers, too
        reason = " ".join(str(error).split())
        raise ValueError(
            f"train.devices = {settings.devices}, num_nodes = {settings.num_nodes}, strategy = "
            f"{settings.strategy!r} and precision = {settings.precision!r} do not work here: "
            f"{reason}"
        ) from error
    fabric.launch()
    return fabric


def lost(error: Exception) -> bool:
    """Whether an error says that another process cannot be reached."""
    said = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL")
    return isinstance(error, RuntimeError) and any(each in str(error) for each in said)


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


def without_closure(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """An optimiser itself; ValueError for one that takes the loss again within a step."""
    closure = signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is Parameter.empty:
        raise ValueError(
            f"{type(optimizer).__name__} takes the loss several times in a step, by a closure, "
            "which this training does not have: use another, such as AdamW."
        )
    return optimizer

"""How a run is trained: the one schema of its fixed settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from sdegen.checks import optional, whole
from sdegen.training.profiles import power_gamma
from sdegen.training.rates import SCHEDULES

STRATEGIES = ("auto", "ddp", "fsdp")


@dataclass
class TrainSettings:
    """Settings of ``train``; ValueError for one that cannot be.

    steps:      optimiser steps. A finished run continues when this is raised.
    batch_size: samples per step and process.
    optimizer:  a torch.optim class by ``_target_`` and its arguments (Hydra builds it).
    warmup:     steps over which the learning rate rises linearly from zero.
    schedule:   of the learning rate after that: "constant", "cosine" to 0 after the last step, or
                "rsqrt", sqrt(after / step).
    after:      the step from which the schedule goes down; None: from the end of the warm-up.
    accumulate: parts that a batch is cut into, one after another, for the memory of one alone.
    validate_every: steps between losses of the averaged model on held-out data, at records; 0:
                never.
    clip:       largest gradient norm.
    ema:        decay of the weights' moving average, reached gradually: min(ema, (1+n)/(10+n)); or
                a list of decays for as many averages, whose first is the one that is sampled.
    snapshot_every: steps between snapshots of averages of every width of ``ema_stds``, by which
                one of any other width can be had later; 0: there are none.
    ema_stds:   the relative standard deviations of these averages' profiles.
    seed:       of the data order and of every step's noise.
    device:     "cpu", "cuda" or "auto"; devices: processes, one per device (gloo on the CPU).
    num_nodes:  machines, each with so many devices; torchrun or srun starts the processes there.
    strategy:   of several processes: "ddp", each with all weights, or "fsdp", each with a part of
                every weight, of its averages and of the optimiser's state (torch's fully_shard);
                "auto" is ddp.
    precision:  Lightning Fabric's names ("32-true", "bf16-mixed", ...); "auto" is bfloat16
                mixed precision on a GPU that has it, float32 elsewhere.
    compile:    the network is compiled by torch.compile, in training alone.
    checkpointing: the network's blocks keep their inputs alone, and are computed once more for
                the gradient: less memory for a quarter to a third more time.
    log_every, save_every: steps between records and between checkpoints.
    keep_every: steps between checkpoints that stay, each in a file of its own; 0: never.
    sample_every: steps between pictures of the averaged model's samples, at records, that
                sdegen-train draws (who calls Trainer has the records to do it at); 0: never.
    workers:    processes that load data; 0 loads in this one.
    """

    steps: int = 1000
    batch_size: int = 128
    optimizer: dict[str, Any] = field(
        default_factory=lambda: {"_target_": "torch.optim.AdamW", "lr": 1e-3}
    )
    warmup: int = 100
    schedule: str = "constant"
    after: Any = None
    accumulate: int = 1
    validate_every: int = 0
    clip: float = 1.0
    ema: Any = 0.999
    snapshot_every: int = 0
    ema_stds: list[float] = field(default_factory=lambda: [0.05, 0.1])
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    compile: bool = False
    checkpointing: bool = False
    log_every: int = 20
    save_every: int = 500
    keep_every: int = 0
    sample_every: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        for name, least in {
            "steps": 1,
            "batch_size": 1,
            "warmup": 0,
            "seed": 0,
            "devices": 1,
            "num_nodes": 1,
            "accumulate": 1,
            "validate_every": 0,
            "log_every": 1,
            "save_every": 1,
            "keep_every": 0,
            "snapshot_every": 0,
            "sample_every": 0,
            "workers": 0,
        }.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"train.{name} must be a whole number >= {least}, not {value!r}.")
        if self.schedule not in [*SCHEDULES]:
            raise ValueError(
                f"train.schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}."
            )
        optional(whole, "train.after", self.after)
        if self.after is not None and self.schedule == "constant":
            raise ValueError(
                f"train.after = {self.after} is the step from which a schedule goes down, but "
                'train.schedule = "constant": give "cosine" or "rsqrt", or take it away, which an '
                "experiment may have set, by train.after=null."
            )
        if self.strategy not in STRATEGIES:
            raise ValueError(
                f"train.strategy must be one of {', '.join(STRATEGIES)}, not {self.strategy!r}."
            )
        if self.strategy == "fsdp" and self.devices * self.num_nodes == 1:
            raise ValueError(
                "train.strategy = 'fsdp' shares weights among processes, but there is one: give "
                "train.devices=2 or more, or leave it out."
            )
        for name, what in {
            "validate_every": "the loss is noted",
            "sample_every": "it is done",
        }.items():
            if getattr(self, name) % self.log_every:
                raise ValueError(
                    f"train.{name} = {getattr(self, name)} must be a multiple of "
                    f"train.log_every = {self.log_every}, at whose records {what}."
                )
        real = isinstance(self.clip, int | float) and not isinstance(self.clip, bool)
        if not real or not 0 < self.clip <= math.inf:
            raise ValueError(f"train.clip must be positive, not {self.clip!r}.")
        for name in ("compile", "checkpointing"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(
                    f"train.{name} must be true or false, not {getattr(self, name)!r}."
                )
        refuse_decays(self.ema)
        refuse_stds(self.ema_stds)
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"train.device must be 'auto', 'cpu' or 'cuda', not {self.device!r}.")

    @property
    def decays(self) -> tuple[float, ...]:
        """Of the moving averages, one or more."""
        return tuple(self.ema) if isinstance(self.ema, list | tuple) else (self.ema,)

    @property
    def profiles(self) -> tuple[float, ...]:
        """The widths of the averages that snapshots are taken of, none where there are none."""
        return tuple(self.ema_stds) if self.snapshot_every else ()


def refuse_stds(stds: Any) -> None:
    """ValueError for what is not a list of different widths that profiles have."""
    listed = isinstance(stds, list | tuple) and bool(stds)
    for std in stds if listed else []:
        power_gamma(std)
    if not listed or len(set(stds)) < len(stds):
        raise ValueError(f"train.ema_stds must be a list of different widths, not {stds!r}.")


def refuse_decays(ema: Any) -> None:
    """ValueError for what is neither a decay nor a list of different ones."""
    several = isinstance(ema, list | tuple)
    for decay in ema if several else [ema]:
        number = isinstance(decay, int | float) and not isinstance(decay, bool)
        if not number or not 0 <= decay < 1:
            raise ValueError(f"train.ema must lie in [0, 1), not {decay!r}.")
    if several and (not ema or len(set(ema)) < len(ema)):
        raise ValueError(
            f"train.ema must be a number or a list of different ones, not {list(ema)!r}."
        )

"""Processes that torchrun or srun has started as one command, on one machine or many."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from sdegen.runs.chunks import Dealt, Job, Share
from sdegen.training.engine import environment, launched

PATIENCE = timedelta(days=30)
"""That one process waits for another. One that has died is heard at once: its connection ends."""


class Line:
    """What goes between processes that Lightning Fabric has launched: a group of all of them."""

    def __init__(self) -> None:
        import torch.distributed as dist

        self.dist: Any = dist
        self.group = dist.new_group(timeout=PATIENCE, backend="gloo")

    def broadcast(self, value: Any) -> Any:
        """The first process's value."""
        values = [value]
        self.dist.broadcast_object_list(values, 0, group=self.group)
        return values[0]

    def barrier(self) -> None:
        """Until all have come here."""
        self.dist.barrier(group=self.group)


@dataclass(frozen=True)
class Ranks:
    """This process among the others: its number, how many there are, its number among those on
    its machine, and the line to them."""

    rank: int
    world: int
    local: int
    line: Any

    def share(self, value: Any = None) -> Any:
        """The value that the first process has; ValueError where that one has ended."""
        return self.hear(lambda: self.line.broadcast(value), "what it says is the reason")

    def wait(self, look: Callable[[], None] = lambda: None) -> None:
        """Until all have come as far; ValueError where one of them has ended before."""
        goes_on = (
            "what was written stays, and if that process says no reason, the same command goes on "
            "from there"
        )
        self.hear(self.line.barrier, goes_on)
        look()

    def hear(self, call: Callable[[], Any], advice: str) -> Any:
        """What a call between the processes gives; ValueError where one of them has ended."""
        try:
            return call()
        except RuntimeError as error:
            raise ValueError(
                f"Another of the {self.world} processes ended before its part was done: {advice}."
            ) from error

    def dealer(self, more: Any) -> Dealt:
        """Of the first process: how it deals out jobs, telling the others ``more`` with them."""

        @contextmanager
        def dealt(todo: list[Job]) -> Iterator[Share]:
            self.share((todo, more))
            yield Share(self.part(todo), self.wait)

        return dealt

    def part(self, todo: list[Job]) -> list[Job]:
        """What this process has to do of some jobs."""
        return todo[self.rank :: self.world]


@cache
def ranks() -> Ranks | None:
    """This process among those that a launcher has started with it; None where it is alone.

    ValueError where a launcher says that there are others, and they cannot be reached.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    said, world = os.environ, launched()
    if world == 1:
        return None
    here = int(said.get("LOCAL_WORLD_SIZE") or said.get("SLURM_NTASKS_PER_NODE") or 0)
    if not here or world % here:
        raise ValueError(
            f"{world} processes were started together, and it is not said how many on each "
            "machine: give srun --ntasks-per-node, or use torchrun."
        )
    strategy = DDPStrategy(cluster_environment=environment(), process_group_backend="gloo")
    nodes = world // here
    fabric = Fabric(accelerator="cpu", devices=here, num_nodes=nodes, strategy=strategy)
    try:
        fabric.launch()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"The {world} processes cannot reach each other: {reason}") from error
    atexit.register(leave)
    return Ranks(fabric.global_rank, world, fabric.local_rank, Line())


def leave() -> None:
    """End the connection to the others."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

"""Processes that work for this one: they share its cores, and end where it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

SECONDS = 0.2
"""Between two looks at whether workers are done."""


def prepare(threads: int = 1) -> None:
    """Of a worker: it has its part of the cores; Ctrl-C is its parent's affair, and where that one
    was killed nobody waits for this one."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    threading.Thread(target=follow, daemon=True).start()


def follow() -> None:
    """End with the parent."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class Ended(ValueError):
    """A worker was ended by a signal, not by what it had to do: it can be done again."""


class Team:
    """Processes at work, and what they said of their failures."""

    def __init__(self, members: list[Any], said: Any) -> None:
        self.members, self.said = members, said

    def wait(self, look: Callable[[], None]) -> None:
        """Until all have done their part, with a look at how far they are from time to time.

        Raises ValueError, with what it said, as soon as one has failed; Ended for a signal.
        """
        while True:
            alive = [each for each in self.members if each.is_alive()]
            for k, each in enumerate(self.members, 1):
                if each.exitcode:
                    if not self.said.empty():
                        raise ValueError(self.said.get())
                    raise (Ended if each.exitcode < 0 else ValueError)(ended(k, each.exitcode))
            look()
            if not alive:
                return
            alive[0].join(SECONDS)


def ended(k: int, code: int) -> str:
    """A sentence on worker k, which ended without one."""
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"Process {k} beside this one {how} before its part was done."


@contextmanager
def at_work(do: Callable[[int, Any], None], parts: Sequence[Any], threads: int) -> Iterator[Team]:
    """do(k, part) in a process of its own for each part, k = 1, 2, ...; those that are still at
    work when the block is left are ended."""
    context = multiprocessing.get_context("spawn")
    said = context.SimpleQueue()
    members = [
        context.Process(target=attempt, args=(do, k, part, threads, said), daemon=True)
        for k, part in enumerate(parts, 1)
    ]
    try:
        for each in members:
            each.start()
        yield Team(members, said)
    finally:
        for each in members:
            if each.pid is not None:
                each.terminate()
                each.join()


def attempt(do: Callable[[int, Any], None], k: int, part: Any, threads: int, said: Any) -> None:
    """A worker's life: a user's mistake is handed on, a fault shows its traceback."""
    prepare(threads)
    try:
        do(k, part)
    except (ValueError, OSError) as error:
        said.put(str(error))
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        sys.exit(1)

"""Ctrl-C and SIGTERM as a wish to stop, granted between two steps."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Wish:
    """Set to the signal's number once one has come; false until then."""

    signum: int = 0

    def __bool__(self) -> bool:
        return self.signum != 0


@contextlib.contextmanager
def stopping() -> Iterator[Wish]:
    """In the block the first SIGINT or SIGTERM only sets the wish; a second one acts as ever."""
    wish = Wish()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(signum: int, frame: FrameType | None) -> None:
        wish.signum = signum
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

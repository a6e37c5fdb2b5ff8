"""Looking on: what is called once a step, and a progress bar that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Watch = Callable[[int, int, Tensor], None]
"""watch(step, of, x): after each step, counted from 1, of so many, with the states x (b, *) that
it ended at, which the next may write over."""


def progress(**settings: Any) -> Watch:
    """A bar of steps as ``watch=``, in a terminal or a notebook; it reads no state.

    settings: tqdm's, such as ``desc="sampling"``, ``leave=False`` or ``disable=None``.
    """
    from tqdm.auto import tqdm

    bar: Any = None

    def watch(step: int, of: int, x: Tensor) -> None:
        nonlocal bar
        if step == 1 or bar is None:
            bar = tqdm(**{"total": of, "unit": "step", **settings})
        bar.update(step - bar.n)
        if step == of:
            bar.close()

    return watch

"""The bars of the commands: how far they are, and how long it takes."""

from __future__ import annotations

import sys
from typing import Any

SELDOM = 10.0
"""Seconds between two states of a bar in a file."""


def pace() -> float:
    """Seconds between two states of a bar: few where nobody looks, as in a log on a cluster, which
    keeps them all."""
    return 0.1 if sys.stderr.isatty() else SELDOM


def bar(*items: Any, **settings: Any) -> Any:
    """tqdm's bar, at our pace, as wide as the terminal is by then."""
    from tqdm import tqdm

    return tqdm(*items, **{"mininterval": pace(), "dynamic_ncols": True, **settings})

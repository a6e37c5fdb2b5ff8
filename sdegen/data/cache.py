"""Data that take a while to make, kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from sdegen.checks import warn
from sdegen.files import read_tensors, write_tensors


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/sdegen, by default ~/.cache/sdegen."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "sdegen"


def cached(
    name: str, about: dict[str, Any], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Tensors that ``make`` gives, from a file of the cache where they were made before.

    about: all that they depend on; the file's name holds its hash, so that other settings are
    another file. One that is damaged is made again, and a folder that cannot be written costs a
    warning.
    """
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    path = cache_folder() / f"{name}-{digest}.safetensors"
    if path.is_file():
        try:
            return read_tensors(path)[0]
        except ValueError as error:
            warn(f"{error} It is made again.")
    made = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, made, about)
    except OSError as error:
        warn(f"{path} cannot be written ({error.strerror}): the data are made anew each time.")
    return made

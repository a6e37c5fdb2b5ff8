"""What every test runs under."""

from __future__ import annotations

import os
import random
import tempfile

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)  # one worker a core, and the same bits on every machine

settings.register_profile("law", deadline=None, derandomize=True, database=None, max_examples=30)
settings.load_profile("law")


def pytest_configure() -> None:
    """What is compiled lies in a folder of each worker's own, and of its children: two that write
    the same kernel into one meet half a file."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is not None:
        place = os.path.join(tempfile.gettempdir(), f"sdegen-compiled-{os.getuid()}-{worker}")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = place


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws without a seed of its own is the same in every run and any order."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)

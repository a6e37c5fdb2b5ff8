"""What every test runs under."""

from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)  # one worker a core, and the same bits on every machine

settings.register_profile("law", deadline=None, derandomize=True, database=None, max_examples=30)
settings.load_profile("law")

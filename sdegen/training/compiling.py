"""The network of a training step, compiled by torch.compile."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def compile_network(net: Any, device: torch.device) -> None:
    """Compile a network where it is: its weights keep their names, and copies are not compiled.

    ValueError for a network that is not a module, and where no compiler works.
    """
    if not isinstance(net, nn.Module):
        raise ValueError(
            f"train.compile = true compiles a network that is a module, but it is {net!r}: hand "
            "over a module, or leave train.compile out."
        )
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except Exception as error:  # of any kind: dynamo, the backend and the system have their own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        raise ValueError(
            f"train.compile = true, but torch.compile does not work here ({reason}): install what "
            "it asks for, or leave train.compile out."
        ) from error
    net.compile()

"""Two networks as one of two outputs: a frozen one, and one that says something of its errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Joined(nn.Module):
    """What a network says, and beside it, on axis 1, exp of what another one says.

    net:  a trained network, called as net(x, t, **conditions) -> (b, c, *). It is frozen: its
          parameters take no gradients from here on, and it stays at rest.
    head: another one, called alike, whose exponential (b, c, *) is the second output: a variance,
          of which a network learns the order of magnitude.

    ValueError for outputs of different shapes.
    """

    def __init__(self, net: Callable[..., Any], head: nn.Module) -> None:
        super().__init__()
        self.net, self.head = net, head
        if isinstance(net, nn.Module):
            net.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Joined:
        """The second network's mode; the first is at rest."""
        super().train(mode)
        if isinstance(self.net, nn.Module):
            self.net.eval()
        return self

    def forward(self, x: Tensor, t: Tensor, **conditions: Any) -> Tensor:
        """Both outputs, (b, 2 c, *)."""
        first, second = self.net(x, t, **conditions), self.head(x, t, **conditions)
        first, second = (getattr(each, "sample", each) for each in (first, second))
        if first.shape != second.shape:
            raise ValueError(
                f"The network returns {tuple(first.shape)}, but the one beside it "
                f"{tuple(second.shape)}: a second output is of the first one's shape."
            )
        return torch.cat([first, second.exp()], dim=1)

"""What is trained: a model and its loss in one module, as engines wrap the whole of a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from sdegen.model.score import ScoreModel

Loss = Callable[[Any, Tensor], Tensor]
"""(model, x0) -> losses (b,)."""


def network_of(model: nn.Module) -> Any:
    """The network of what is trained: a score model's, and of another module itself."""
    return model.net if isinstance(model, ScoreModel) else model


class Objective(nn.Module):
    """Model and loss in one module, so that distributed engines wrap the whole of a step."""

    def __init__(self, model: Any, loss: Loss, conditional: bool) -> None:
        super().__init__()
        self.model, self.loss, self.conditional = model, loss, conditional

    def forward(self, x0: Tensor, given: dict[str, Any]) -> Tensor:
        """The mean loss of a batch x0 (b, *) with conditions by name."""
        model = self.model.given(**given) if self.conditional else self.model
        return self.loss(model, x0).mean()


def at_step(loss: Any, step: int) -> Any:
    """A loss, as it is at a step where it follows the training: ``loss.at(step)``."""
    return loss.at(step) if hasattr(loss, "at") else loss

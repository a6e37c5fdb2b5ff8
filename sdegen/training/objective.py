"""What is trained: a model and its loss in one module, as engines wrap the whole of a step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn

from sdegen.model.denoiser import Denoiser
from sdegen.model.score import ScoreModel
from sdegen.training.settings import TrainSettings

Loss = Callable[[Any, Tensor], Tensor]
"""(model, x0) -> losses (b,)."""


def network_of(model: nn.Module) -> Any:
    """The network of what is trained: a score model's, and of another module itself."""
    return model.net if isinstance(model, ScoreModel) else model


class Objective(nn.Module):
    """Model and loss in one module, so that distributed engines wrap the whole of a step.

    ``parts`` are the modules that the loss is or holds, by where they are: see ``parts_of``.
    """

    def __init__(self, model: Any, loss: Loss, conditional: bool) -> None:
        super().__init__()
        self.model, self.loss, self.conditional = model, loss, conditional
        held = dict(parts_of(loss))
        self.names, self.parts = tuple(held), nn.ModuleList(held.values())

    def forward(self, x0: Tensor, given: dict[str, Any], step: int | None = None) -> Tensor:
        """The mean loss of a batch x0 (b, *) with conditions by name, as it is at a step."""
        model = self.model.given(**given) if self.conditional else self.model
        loss = self.loss if step is None else at_step(self.loss, step)
        return loss(model, x0).mean()

    def weights(self) -> list[nn.Parameter]:
        """What an optimiser has to have: the model's parameters, then the loss's own."""
        model = list(self.model.parameters())
        known = {id(weight) for weight in model}
        own = [weight for weight in self.parts.parameters() if weight.requires_grad]
        return model + [weight for weight in own if id(weight) not in known]

    def loss_state(self) -> dict[str, Tensor]:
        """The loss's parameters and buffers, by names that say where in the loss they are."""
        return {
            f"{where}{name}": value
            for where, part in zip(self.names, self.parts, strict=True)
            for name, value in part.state_dict().items()
        }

    def load_loss(self, state: Mapping[str, Tensor]) -> None:
        """Take over a ``loss_state``; ValueError where it is another loss's."""
        now = self.loss_state()
        if state.keys() != now.keys() or any(state[k].shape != now[k].shape for k in now):
            raise ValueError(
                f"The loss has {', '.join(now) or 'nothing'} to learn or to remember, but what "
                f"was saved is {', '.join(state) or 'nothing'}, or of other shapes."
            )
        for where, part in zip(self.names, self.parts, strict=True):
            part.load_state_dict({name: state[f"{where}{name}"] for name in part.state_dict()})


def parts_of(loss: Any, where: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Modules of a loss whose parameters are trained and whose buffers are saved, each with the
    beginning of its tensors' names.

    They are the loss itself, what it holds as ``loss``, as ``dropped`` and ``paired`` do, and so
    on; and modules without parameters in other arguments of these, as a history of losses is. A
    network in another argument is a teacher's or a judge's: it neither learns nor changes.
    """
    held: Mapping[str, Any] = {}
    if isinstance(loss, nn.Module):
        yield where, loss
    if isinstance(loss, functools.partial):
        held = loss.keywords
    elif isinstance(loss, nn.Module) or is_dataclass(loss):
        held = getattr(loss, "__dict__", {})
    for name, value in held.items():
        if name == "loss":
            yield from parts_of(value, f"{where}{name}.")
        elif remembers(value):
            yield f"{where}{name}.", value


def remembers(value: Any) -> bool:
    """Whether this is a module that has nothing to learn, and no model."""
    if not isinstance(value, nn.Module) or isinstance(value, Denoiser):
        return False
    return next(value.parameters(), None) is None


def at_step(loss: Any, step: int) -> Any:
    """A loss, as it is at a step where it follows the training: ``loss.at(step)``."""
    return loss.at(step) if hasattr(loss, "at") else loss


def refuse_shared_out(trained: Objective, settings: TrainSettings) -> None:
    """ValueError for a loss that learns where weights are shared out: its own are used outside
    the network, where nobody puts them together."""
    if settings.strategy == "fsdp" and any(True for _ in trained.parts.parameters()):
        raise ValueError(
            "The loss has parameters of its own, which train.strategy = 'fsdp' does not share "
            "out: use train.strategy=ddp."
        )

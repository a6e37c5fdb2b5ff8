"""What is trained: a model and its loss in one module, as engines wrap the whole of a step."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor, nn

from sdegen.losses.inside import inner_of
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
        """What an optimiser has to have: the model's parameters that take gradients, then the
        loss's own."""
        model = [weight for weight in self.model.parameters() if weight.requires_grad]
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

    They are the loss itself, those inside it (``inner_of``), and modules without parameters in
    other arguments of these, as a history of losses is; each once, with what it is a part of. A
    network in another argument is a teacher's or a judge's: it neither learns nor changes.
    """
    if isinstance(loss, nn.Module):
        yield where, loss
    yield from beside(loss, where)


def beside(loss: Any, where: str) -> Iterator[tuple[str, nn.Module]]:
    """``parts_of`` a loss but for itself."""
    held: Mapping[str, Any] = {}
    if isinstance(loss, functools.partial):
        held = loss.keywords
    elif isinstance(loss, nn.Module) or is_dataclass(loss):
        held = getattr(loss, "__dict__", {})
    for name, value in held.items():
        if name != "loss" and remembers(value):
            yield f"{where}{name}.", value
    name, inner = inner_of(loss)
    part = isinstance(loss, nn.Module) and isinstance(inner, nn.Module)
    if inner is not None:
        within = where if name == "func" else f"{where}{name}."
        yield from (beside if part else parts_of)(inner, within)


def remembers(value: Any) -> bool:
    """Whether this is a module that has nothing to learn, and no model."""
    if not isinstance(value, nn.Module) or isinstance(value, Denoiser):
        return False
    return next(value.parameters(), None) is None


def at_step(loss: Any, step: int) -> Any:
    """A loss, as it is at a step where it, or one inside it, follows the training:
    ``loss.at(step)``."""
    if hasattr(loss, "at"):
        return loss.at(step)
    name, inner = inner_of(loss)
    now = None if inner is None else at_step(inner, step)
    return loss if now is inner else around(loss, name, now)


def around(loss: Any, name: str, inner: Any) -> Any:
    """A loss with another one inside, that shares parameters and buffers with it; what else it
    changes of itself is this one's alone, and gone with the step."""
    if isinstance(loss, functools.partial):
        func = inner if name == "func" else loss.func
        told = {} if name == "func" else {name: inner}
        return functools.partial(func, *loss.args, **{**loss.keywords, **told})
    other = copy.copy(loss)
    if isinstance(other, nn.Module):
        vars(other)["_modules"] = {n: m for n, m in other._modules.items() if n != name}
        setattr(other, name, inner)
    else:
        object.__setattr__(other, name, inner)  # it may be frozen
    return other


def refuse_shared_out(trained: Objective, settings: TrainSettings) -> None:
    """ValueError for a loss that learns where weights are shared out: its own are used outside
    the network, where nobody puts them together."""
    if settings.strategy == "fsdp" and any(True for _ in trained.parts.parameters()):
        raise ValueError(
            "The loss has parameters of its own, which train.strategy = 'fsdp' does not share "
            "out: use train.strategy=ddp."
        )

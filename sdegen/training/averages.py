"""Moving averages of a model's weights, one for each decay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from sdegen.model.network import hidden_modules
from sdegen.training.frozen import copied, own_state
from sdegen.training.objective import network_of
from sdegen.training.profiles import power, profile_part
from sdegen.training.shards import here, shard, whole


def average(decay: float) -> Callable[[int], float]:
    """How far a moving average goes towards the weights, 1 - min(decay, (1 + n)/(10 + n)) at
    update n."""
    return lambda n: 1 - min(decay, (1 + n) / (10 + n))


class Average(nn.Module):
    """A copy of a model whose weights are averages of those that train; frozen ones it may share
    with the model. The first weights are taken as they are, and buffers always."""

    n_averaged: Tensor

    def __init__(self, module: nn.Module, rate: Callable[[int], float]) -> None:
        super().__init__()
        self.module, self.rate = module, rate
        self.register_buffer("n_averaged", torch.tensor(0))
        self.count: int | None = None  # n_averaged, which is not read from the device each step
        self.register_load_state_dict_post_hook(uncounted)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of the model after a step: a <- a + rate(n) (w - a)."""
        n = int(self.n_averaged) if self.count is None else self.count
        pairs = zip(self.module.parameters(), model.parameters(), strict=True)
        learned = [(here(a.detach()), here(w.detach())) for a, w in pairs if a.requires_grad]
        if learned:
            mine, theirs = map(list, zip(*learned, strict=True))
            torch._foreach_lerp_(mine, theirs, self.rate(n) if n else 1.0)
        for a, w in zip(self.module.buffers(), model.buffers(), strict=True):
            a.copy_(w)
        self.n_averaged += 1
        self.count = n + 1


def uncounted(each: nn.Module, keys: Any) -> None:
    """Another state was loaded."""
    each.count = None  # type: ignore[assignment]


class Averages:
    """Averages of a model's weights, by decays, of which the first is the run's own, and with the
    power profiles of ``stds``, of which snapshots are taken. Weights that do not train are the
    model's own, in the same memory, where ``share`` does not say otherwise.

    Raises ValueError for a model that cannot be copied with its weights.
    """

    def __init__(
        self,
        model: nn.Module,
        decays: Sequence[float],
        device: torch.device | None = None,
        stds: Sequence[float] = (),
        share: bool = True,
    ) -> None:
        self.decays, self.stds = tuple(decays), tuple(stds)
        self.plain: nn.Module | None = None  # where the copies are shared out
        updates = [*map(average, decays), *map(power, stds)]
        self.copies = [Average(copied(model, share), each) for each in updates]
        for each in self.copies if device is not None else ():
            each.to(device)
        # A function is copied by reference, and what it has closed over stays the original.
        own = {id(weight) for weight in model.parameters()}
        for module in hidden_modules(network_of(self.model())):
            if any(id(weight) in own for weight in module.parameters()):
                raise ValueError(
                    "The network is a function that holds its module, so a copy of it with "
                    "averaged weights would call the original: hand over a module whose forward "
                    "does what the function does."
                )

    def share_out(self, mesh: Any) -> None:
        """Share the averages out among processes, as the model's weights are."""
        self.plain = deepcopy(self.copies[0].module)
        for each in self.copies:
            shard(each.module, mesh)

    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        for each in self.copies:
            each.update(model)

    def model(self, decay: float | None = None) -> Any:
        """The model with the weights averaged by a decay, the first by default, in eval mode;
        ValueError where there is none of that decay.

        Where they are shared out it is a whole copy, for which every process has to ask.
        """
        model = self.copies[0 if decay is None else place(decay, self.decays)].module
        if self.plain is not None:
            state = {name: whole(value) for name, value in model.state_dict().items()}
            model = deepcopy(self.plain)
            model.load_state_dict(state)
        return model.eval()

    def states(self) -> dict[str, dict[str, Tensor]]:
        """All there is to be kept, by the names of the averages in a file."""
        return {name: own_state(each) for name, each in self.named().items()}

    def named(self) -> dict[str, Average]:
        """All averages, by their names in a file."""
        names = [part(i) for i in range(len(self.decays))]
        names += [profile_part(i) for i in range(len(self.stds))]
        return dict(zip(names, self.copies, strict=True))

    def profiles(self) -> dict[str, dict[str, Tensor]]:
        """What a snapshot keeps."""
        return {
            name: own_state(each) for name, each in [*self.named().items()][len(self.decays) :]
        }


def part(i: int) -> str:
    """How the names of the i-th average's tensors begin in a file: ema, ema1, ema2, ..."""
    return f"ema{i}" if i else "ema"


def place(decay: float, decays: Sequence[float]) -> int:
    """Where a decay is among those there are; ValueError, with their names, where it is not."""
    if decay not in decays:
        known = f"there are {', '.join(map(str, decays))}." if decays else ""
        raise ValueError(
            f"There is no average of ema={decay!r}: "
            + (known or "the checkpoint does not say which it has.")
            + (f" The width of a profile is ema_std={decay!r}." if 0 < decay < 0.3 else "")
        )
    return decays.index(decay)

"""The draws of a diffusers pipeline as a source of noise, once and again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from sdegen.noise.source import Noise
from sdegen.sde.level import Instant


@dataclass(frozen=True)
class Drawn(Noise):
    """Draws of a pipeline's generator, or of one for each image."""

    generator: torch.Generator | list[torch.Generator] | None

    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """The next draws."""
        return randn_tensor(x.shape, self.generator, x.device, x.dtype)  # type: ignore[no-any-return]


class Recorded(Noise):
    """A source's draws, kept until they are asked for again."""

    def __init__(self, source: Noise) -> None:
        self.source = source
        self.kept: list[Tensor] = []
        self.again: Iterator[Tensor] | None = None

    def __call__(self, x: Tensor, t: Instant, s: Instant) -> Tensor:
        """Those kept, once they are asked for again, and then the source's next ones."""
        z = None if self.again is None else next(self.again, None)
        if z is None:
            z = self.source(x, t, s)
            if self.again is None:
                self.kept.append(z)
        return z

    def rewind(self) -> None:
        """Ask for them again."""
        self.again, self.kept = iter(self.kept), []

"""Data whose items come with what their captions say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from sdegen.data.classes import known_labels, plain
from sdegen.data.items import split


class Captioned(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Items (x, {tokens, mask}) of a data set with captions, in place of its labels.

    told:  of each distinct caption, by name, (k, *).
    which: of them each of the n captions has, (n,).
    """

    def __init__(self, data: Any, told: Mapping[str, Tensor], which: Tensor) -> None:
        self.data, self.told, self.which = data, dict(told), which
        self.shape, self.classes = data.shape, data.classes
        known = known_labels(data)
        if known is not None:
            self.y = known

    @property
    def plain(self) -> Captioned:
        """The same items, each always the same."""
        return Captioned(plain(self.data), self.told, self.which)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, dict[str, Tensor]]:
        x, _ = split(self.data[i])
        shown = getattr(self.data, "shown", int)  # what stands in for a damaged image
        at = torch.as_tensor(self.which[shown(i)])
        return x, {name: values[at] for name, values in self.told.items()}

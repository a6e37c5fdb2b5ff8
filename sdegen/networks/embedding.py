"""What a network is told beside the state: the time label and, perhaps, a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TimeEmbedding(nn.Module):
    """Time labels (B,) as vectors (B, width): sines and cosines, then a two-layer MLP.

    The 32 angular frequencies run geometrically from 1/4 to 64 radians per unit of t. On labels
    in [-2, 2] the slowest turns by one radian, so no two labels look alike; the fastest turns by
    0.064 for a difference of 0.001, so that difference is still seen. Higher frequencies would
    only let the network wiggle in t. Vaswani et al. (2017), section 3.5.

    Labels should come in float32 or float64, whatever the network's dtype: bfloat16 cannot tell
    1.000 from 1.003. The angles are computed in the label's precision, float32 at least.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        # Rounded to bfloat16, so that a network cast to it keeps the frequencies it was trained
        # with: an error of 1/256 in 64 radians per unit would be a quarter of a radian.
        frequencies = torch.logspace(-2, 6, 32, base=2.0).bfloat16().float()
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.hidden = nn.Linear(2 * len(frequencies), width)
        self.out = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        angles = t[:, None] * self.frequencies
        waves = torch.cat([angles.sin(), angles.cos()], dim=1)
        h: Tensor = self.out(F.silu(self.hidden(waves.to(self.hidden.weight.dtype))))
        return h


class Conditioning(nn.Module):
    """Time label t (B,) and class y (B,) as one vector (B, width), for every block of a network.

    With ``classes = n > 0``, y holds int64 labels 0 .. n - 1, and n stands for "no class": it is
    what y = None means, and what a training loop writes over the labels it drops
    (classifier-free guidance, Ho and Salimans 2022).

    Raises ValueError if t or y is not (B,), if y is given and there are no classes, or if a label
    is out of range (on the CPU only: elsewhere the check would wait for the device).
    """

    def __init__(self, width: int, classes: int = 0) -> None:
        super().__init__()
        if classes < 0:
            raise ValueError(f"classes = {classes}, expected 0 (unconditional) or more.")
        self.classes = classes
        self.time = TimeEmbedding(width)
        self.label = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, t: Tensor, y: Tensor | None, batch: int) -> Tensor:
        if t.shape != (batch,):
            raise ValueError(
                f"t has shape {tuple(t.shape)}, expected ({batch},): one time label per sample."
            )
        h: Tensor = self.time(t)
        if self.label is not None:
            h = h + (self.label.weight[-1] if y is None else self._embed(y, batch, self.label))
        elif y is not None:
            raise ValueError(
                "y was given, but the network has no classes: build it with classes > 0, "
                "or call it without y."
            )
        return F.silu(h)

    def _embed(self, y: Tensor, batch: int, label: nn.Embedding) -> Tensor:
        if y.shape != (batch,) or y.dtype != torch.int64:
            raise ValueError(
                f"y is {y.dtype} of shape {tuple(y.shape)}, expected torch.int64 of ({batch},): "
                "one class label per sample."
            )
        try:  # the CPU's lookup checks the range by itself, and nothing has to be waited for
            embedded: Tensor = label(y)
        except IndexError:
            raise ValueError(
                f"y has labels outside 0 .. {self.classes} "
                f"({self.classes} classes, then {self.classes} for no class)."
            ) from None
        return embedded

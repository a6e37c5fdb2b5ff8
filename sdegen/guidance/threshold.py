"""Thresholding: E[x0 | x] is kept where data can lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdegen.checks import number
from sdegen.guidance.wrapped import Wrapped, refuse_where_eps_is_lost, with_x0
from sdegen.model.denoiser import Denoiser
from sdegen.sde.level import Instant


class Thresholded(Wrapped):
    """x0 within the data's range.  Ho et al. (2020); Saharia et al. (2022), app. C.

    With u = x0 from the range's centre, in half widths:  u' = clip(u, -c, c) / c,  where c is 1,
    or the quantile of |u| from 1 to ``most``, a sample's own over all its axes.

    quantile:   None clips; 0.995 is Imagen's dynamic threshold.
    data_range: (low, high), by default the model's own.
    most:       of c: diffusers' sample_max_value.

    Solvers of x0 and of eps see one pair, x = alpha x0' + sigma eps'. A clip has a kink: no solver
    keeps an order above 2. Latents have no such range.
    ValueError without a range, and for an SDE without marginals.
    """

    def __init__(
        self,
        model: Denoiser,
        quantile: float | None = None,
        data_range: tuple[float, float] | None = None,
        most: float = math.inf,
    ) -> None:
        super().__init__(model)
        with_x0(model, "Thresholded")
        found = model.data_range if data_range is None else data_range
        if found is None:
            raise ValueError(
                "Thresholded needs to know where data lies: give data_range=(low, high), here or "
                "to the ScoreModel."
            )
        pair = not isinstance(found, str) and hasattr(found, "__len__") and len(found) == 2
        if not pair or not number("low", found[0]) < number("high", found[1]):
            raise ValueError(f"data_range is (low, high), but it is {found!r}.")
        if quantile is not None and not 0 < number("quantile", quantile) <= 1:
            raise ValueError(f"A quantile lies in (0, 1], but it is {quantile!r}.")
        if most != math.inf and not number("most", most) >= 1:
            raise ValueError(f"most is 1 or more, but it is {most!r}.")
        self.most = most
        self.quantile, self.low, self.high = quantile, float(found[0]), float(found[1])

    def __repr__(self) -> str:
        said = f"{self.model!r}, {self.quantile}, ({self.low:g}, {self.high:g})"
        return f"Thresholded({said})"

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of the thresholded model."""
        refuse_where_eps_is_lost(self.model, level, "A thresholded model")
        p = self.seen(x, level)
        if self.quantile is None:
            return p.replaced(p.x0.clamp(self.low, self.high))
        centre, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        u = (p.x0 - centre) / half
        c = quantile(u.abs(), self.quantile).clamp(1, self.most).reshape(-1, *[1] * (x.ndim - 1))
        return p.replaced(centre + half * torch.minimum(torch.maximum(u, -c), c) / c)


def quantile(x: Tensor, q: float) -> Tensor:
    """The quantile of each sample's values, (b,), between the two nearest.

    (torch.quantile takes neither float16 nor more than 2^24 values.)
    """
    ordered = (x if x.element_size() >= 4 else x.float()).reshape(len(x), -1).sort(1).values
    place = q * (ordered.shape[1] - 1)
    below = int(place)
    above = min(below + 1, ordered.shape[1] - 1)
    return torch.lerp(ordered[:, below], ordered[:, above], place - below).to(x.dtype)

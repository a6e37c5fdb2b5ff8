"""Imputation: a part of x0 is known."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.guidance.wrapped import Wrapped, fits, refuse_where_eps_is_lost, with_x0
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.sde.level import Instant


class Known(Wrapped):
    """x0 = y where mask is true: imputation.  Song et al. (2021), sec. 5 and app. I.2.

    The known part of the state is alpha y + sigma z by itself, the same z all the way for eta = 0,
    the exact reverse bridge for eta > 0, so that nothing is replaced on the way; with
    ``denoise=True`` it ends as y. For the rest the network is told no more than that: it is drawn
    with a bias that more steps do not take away. RePaint (``recipes.repaint``) and Langevin steps
    do (docs/guidance.md).

    y:    what is known, (b, *), or (1, *) for all samples; any numbers where it is not.
    mask: booleans of a shape that broadcasts to a state's, with the batch's axis, or without.

    ValueError for shapes that do not broadcast, a mask that is not boolean, a y that is not finite
    where it is known, and an SDE without marginals.
    """

    own = ("y", "mask")

    def __init__(self, model: Denoiser, y: Tensor, mask: Tensor) -> None:
        super().__init__(model)
        with_x0(model, "Known")
        refuse_flow_only(model, "Known")
        for name, value in (("y", y), ("mask", mask)):
            if not isinstance(value, Tensor) or not value.ndim:
                raise ValueError(f"{name} is a tensor with the batch's axis, not {value!r}.")
        if mask.dtype is not torch.bool:
            raise ValueError(f"A mask is boolean, true where x0 is known, but it is {mask.dtype}.")
        if not y.is_floating_point():
            raise ValueError(f"What is known is a floating-point tensor, but y is {y.dtype}.")
        # Without the batch's axis it is for all samples.
        mask = mask.reshape(*[1] * max(0, y.ndim - mask.ndim), *mask.shape)
        y, mask = y.to(model.device), mask.to(model.device)
        if broadcast(y, mask) and bool((mask & ~y.isfinite()).any()):
            raise ValueError("What is known is finite, but y has NaN or infinity where mask is.")
        self.y, self.mask = y, mask

    def output(self, x: Tensor, level: Instant) -> Tensor:
        """F of the model that knows."""
        y, mask = fits(self.y, x, "What is known"), fits(self.mask, x, "A mask")
        refuse_where_eps_is_lost(self.model, level, "A model of what is known")
        p = self.seen(x, level)
        return p.replaced(torch.where(mask, y, p.x0))


def broadcast(y: Tensor, mask: Tensor) -> bool:
    """Whether the two are of one shape but for axes of length 1."""
    pairs = zip(y.shape, mask.shape, strict=False)
    return y.ndim == mask.ndim and all(a == b or 1 in (a, b) for a, b in pairs)

"""How things move in clips: their centroids, and how far from straight on."""

from __future__ import annotations

import torch
from torch import Tensor


def centroids(x: Tensor) -> Tensor:
    """Rows and columns (n, f, 2) of the middle of what is bright in clips x (n, c, f, h, w) in
    [-1, 1], in pixels; the mean of (x + 1) / 2 as a weight, nothing below 0.

    ValueError for what is no clip, a clip that is not finite, and a frame that is black all over,
    which has no middle.
    """
    if x.ndim != 5 or not x.is_floating_point() or not x.numel():
        raise ValueError(
            f"Clips are floating-point (n, c, f, h, w), but these are {x.dtype} of shape "
            f"{tuple(x.shape)}."
        )
    h, w = x.shape[-2:]
    mass = ((x.double() + 1) / 2).clamp(min=0).sum(1)
    flat = mass.sum((-2, -1), keepdim=True)
    lost = ~x.isfinite().flatten(1).all(1)
    black = ~(flat > 0).flatten(1).all(1)
    for wrong, why in ((lost, "is not finite"), (black, "has a frame without anything bright")):
        if wrong.any():
            first, n = int(wrong.nonzero()[0]), int(wrong.sum())
            raise ValueError(
                f"Clip {first} {why} ({n} of {len(x)} are so): it has no centroids. Leave such "
                "clips out, and count them."
            )
    mass = mass / flat
    rows, columns = (torch.arange(k, dtype=mass.dtype, device=x.device) for k in (h, w))
    return torch.stack([mass.sum(-1) @ rows, mass.sum(-2) @ columns], -1)


def acceleration(x: Tensor) -> float:
    """The root mean square of |c_{k+1} - 2 c_k + c_{k-1}|, c the centroids of clips x
    (n, c, f, h, w), in pixels a frame, a frame: 0 of what moves straight on, sqrt(6) times a
    frame's own spread where frames know nothing of each other.

    ValueError for what is no clip, and for less than three frames.
    """
    if x.ndim == 5 and x.shape[2] < 3:
        raise ValueError(f"A second difference is of three frames or more, not {x.shape[2]}.")
    second = centroids(x).diff(n=2, dim=1)
    return float(second.square().sum(-1).mean().sqrt())

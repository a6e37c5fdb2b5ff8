"""Two sets of samples as matrices, checked."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.checks import tensor

SMALL = {torch.uint8, torch.bool}
"""What images and truths are kept in, of another range than floats are."""


def matrices(a: Tensor, b: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """a (n, ...) and b (m, ...) as float64 (n, d) and (m, d).

    Raises ValueError if they are no tensors, if their samples differ in shape or are empty, if one
    set is of bytes or truths and the other of floats, whose range is another one, for complex
    numbers, if there are fewer than ``least`` in a set, or if a value is not finite.
    """
    for x in (a, b):
        tensor("a set of samples", x)
    floats, small = a.is_floating_point() or b.is_floating_point(), {a.dtype, b.dtype} & SMALL
    if a.is_complex() or b.is_complex() or (floats and small):
        raise ValueError(
            f"the sets are of {a.dtype} and {b.dtype}, expected real numbers of one range: "
            "sdegen.data.from_uint8 makes floats in [-1, 1] of bytes, and x.float() as they are."
        )
    if a.ndim < 2 or a.shape[1:] != b.shape[1:] or a.shape[1:].numel() == 0:
        raise ValueError(
            f"the sets have shapes {tuple(a.shape)} and {tuple(b.shape)}, "
            "expected (n, ...) and (m, ...) with the same sample shape, not empty."
        )
    if min(len(a), len(b)) < least:
        raise ValueError(f"the sets have {len(a)} and {len(b)} samples, expected {least} or more.")
    for name, x in (("first", a), ("second", b)):
        if not x.isfinite().all():
            raise ValueError(
                f"the {name} set has values that are not finite: drop the failed samples, "
                "and report how many there were."
            )
    return a.detach().flatten(1).double(), b.detach().flatten(1).double()

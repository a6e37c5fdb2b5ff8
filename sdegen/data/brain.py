"""Patches of a volume: the brain that comes with nilearn."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sdegen.checks import one_of, whole
from sdegen.data.arrays import ArrayData

FILE = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
PARTS = {"train": (0.0, 0.65), "test": (0.65, 1.0), "all": (0.0, 1.0)}
"""Of the volume's middle axis: from the back of the head to its front."""


def brain_patches(split: str = "train", size: int = 16, stride: int = 8) -> ArrayData:
    """Cubes 1 x size x size x size in [-1, 1] of the MNI152 template, at 2 mm: the mean of 152
    brains' T1 images.

    On a grid of the given stride; those that are brain in less than half of their voxels are left
    out. "train" is cut from the back 65 % of the head, "test" from the rest, so that the two share
    no voxel. (Left and right would not do: the template is symmetric.)

    Raises ValueError for another split, sizes below 1, a size beyond the part, and where there is
    no nilearn: ``pip install 'sdegen[volumes]'``.
    """
    low, high = one_of(split, "split", PARTS)
    size, stride = whole("size", size), whole("stride", stride)
    volume = template()
    low, high = (round(end * volume.shape[1]) for end in (low, high))
    part = volume[:, low:high]
    if size > min(part.shape):
        raise ValueError(f"size = {size}, but the part is only {tuple(part.shape)} voxels.")
    for axis in range(3):
        part = part.unfold(axis, size, stride)
    x = part.reshape(-1, 1, size, size, size)
    x = x[(x > 0).flatten(1).double().mean(1) >= 0.5]
    return ArrayData(2 * x - 1)


def template() -> Tensor:
    """The volume (98, 116, 94) in [0, 1] at 2 mm, 0 outside the brain."""
    found = find_spec("nilearn")
    if found is None or found.origin is None:
        raise ValueError("The template is in nilearn's package: pip install 'sdegen[volumes]'.")
    import nibabel

    path = Path(found.origin).parent / "datasets" / "data" / FILE
    image: Any = nibabel.load(path)
    volume = torch.as_tensor(image.get_fdata(dtype="float32"))
    return F.avg_pool3d(volume[None, None], 2)[0, 0] / volume.max()

"""Pictures that come with scikit-learn, so that nothing has to be downloaded."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sdegen.data.arrays import ArrayData, from_uint8


def digits(split: str = "train", seed: int = 0) -> ArrayData:
    """Handwritten digits, 1 x 8 x 8 in [-1, 1], labelled 0..9.

    scikit-learn's copy of the 1,797 test digits of UCI's "Optical Recognition of Handwritten
    Digits" (Alpaydin and Kaynak, 1998), whose pixels 0..16 become -1..1. A permutation fixed by
    the seed is cut into "train" (899) and "test" (898); "all" is the whole of it.
    """
    _check_split(split)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 8 - 1
    y = torch.tensor(bunch.target, dtype=torch.int64)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    part = {"train": order[:899], "test": order[899:], "all": order}[split]
    return ArrayData(x[part], y[part], levels=17)


def bold_digits(split: str = "train", seed: int = 0) -> ArrayData:
    """``digits`` as if written with a broader pen: of each 2 x 2 pixels the brightest, beyond the
    right and lower edges none. Data that a model of digits can be made of."""
    thin = digits(split, seed)
    x = F.max_pool2d(F.pad(thin.x, (0, 1, 0, 1), value=-1.0), 2, stride=1)
    return ArrayData(x, thin.y, levels=17)


def photo_patches(
    split: str = "train", size: int = 32, stride: int = 16, seed: int = 0
) -> ArrayData:
    """Square patches of two photographs, 3 x size x size in [-1, 1]; label: which photograph.

    Label 0 is china.jpg by danielbuechele, label 1 flower.jpg by vultilion, as scikit-learn
    ships them (sklearn/datasets/images, whose README.txt gives the attributions): both are
    CC-BY 2.0, https://creativecommons.org/licenses/by/2.0/.

    "train" is cut from the left 70 % of the columns, "test" from the rest, so that the two share
    no pixel; "all" is cut from the whole photographs, so it also has patches across the border.
    Patches lie on a grid of the given stride and come in an order fixed by the seed.

    Raises ValueError for another split, size or stride < 1, and a size beyond the region.
    """
    _check_split(split)
    if size < 1 or stride < 1:
        raise ValueError(f"size = {size} and stride = {stride}, but both must be at least 1")
    from sklearn.datasets import load_sample_image

    grids = []
    for name in ("china.jpg", "flower.jpg"):
        photo = torch.tensor(load_sample_image(name))
        border = round(0.7 * photo.shape[1])
        columns = {"train": slice(border), "test": slice(border, None), "all": slice(None)}
        grids.append(_patches(photo[:, columns[split]], size, stride))
    x = from_uint8(torch.cat(grids))
    y = torch.arange(2).repeat_interleave(torch.tensor([len(grid) for grid in grids]))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return ArrayData(x[order], y[order], levels=256)


def _patches(region: Tensor, size: int, stride: int) -> Tensor:
    """All patches (n, c, size, size) of an image (h, w, c) on a grid."""
    h, w, c = region.shape
    if size > min(h, w):
        raise ValueError(
            f"size = {size}, but this part of the photographs is only {h} x {w} pixels: "
            f"take a size of at most {min(h, w)}"
        )
    grid = region.unfold(0, size, stride).unfold(1, size, stride)
    return grid.reshape(-1, c, size, size)


def _check_split(split: str) -> None:
    if split not in ("train", "test", "all"):
        raise ValueError(f'split = {split!r}, but it must be "train", "test" or "all"')

"""Series that come with sktime, read where its package has them: nothing is downloaded."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from sdegen.checks import one_of
from sdegen.data.arrays import ArrayData

SERIES = {"italy_power_demand": "ItalyPowerDemand", "basic_motions": "BasicMotions"}
SPLITS = {"train": ("TRAIN",), "test": ("TEST",), "all": ("TRAIN", "TEST")}


def series(name: str, split: str = "all") -> ArrayData:
    """Series (n, channels, length) of the UCR and UEA archives, labelled by class, as they are.

    "italy_power_demand": 1,096 days of electricity in Italy, 1 x 24 hours, each day of zero mean
    and unit variance; October to March, or April to September. "basic_motions": 80 recordings of
    a watch, 3 accelerations and 3 rates of turning, 6 x 100 tenths of a second; standing, walking,
    running, badminton. split: the archive's "train" and "test" (67 and 1,029; 40 and 40), or
    "all" in this order.

    Raises ValueError for another name or split, and where there is no sktime:
    ``pip install 'sdegen[series]'``.
    """
    folder, parts = one_of(name, "series", SERIES), one_of(split, "split", SPLITS)
    found = find_spec("sktime")
    if found is None or found.origin is None:
        raise ValueError("These series are in sktime's package: pip install 'sdegen[series]'.")
    from sktime.datasets import load_from_tsfile

    place = Path(found.origin).parent / "datasets" / "data" / folder
    x, labels = list[torch.Tensor](), list[str]()
    for part in parts:
        values, classes = load_from_tsfile(
            str(place / f"{folder}_{part}.ts"), return_data_type="numpy3D"
        )
        x.append(torch.as_tensor(values, dtype=torch.float32))
        labels += [str(each) for each in classes]
    names = sorted(set(labels))
    return ArrayData(torch.cat(x), torch.tensor([names.index(k) for k in labels]), names=names)

"""Series of sktime's package, beside its own loaders."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sdegen.data import recordings, series
from tests.cases import refused


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("italy_power_demand", (1096, 1, 24), 2), ("basic_motions", (80, 6, 100), 4)],
)
def test_series_are_as_sktime_has_them(name: str, shape: tuple[int, ...], classes: int) -> None:
    from sktime import datasets

    data, test = series(name), series(name, "test")
    assert data.x.shape == shape and data.classes == classes
    load = getattr(datasets, f"load_{name}")
    x, y = load(split="test", return_X_y=True, return_type="numpy3D")
    np.testing.assert_array_equal(test.x.numpy(), x.astype(np.float32))
    assert [test.names[k] for k in test.y.tolist()] == y.tolist()
    assert torch.equal(data.x[-len(test) :], test.x)
    assert torch.equal(data.x[: -len(test)], series(name, "train").x)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("Unknown series 'lynx': it must be one of basic_motions, italy_power_demand"):
        series("lynx")
    with refused("Unknown split"):
        series("basic_motions", "novel")
    monkeypatch.setattr(recordings, "find_spec", lambda name: None)
    with refused(r"sdegen\[series\]"):
        series("basic_motions")

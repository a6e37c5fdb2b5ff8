"""Mean and standard deviation of data, against NumPy's and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sdegen.data import ArrayData, ImageFolder, digits, moments


def test_moments_are_numpys_over_all_numbers() -> None:
    data = digits()
    m = moments(data)
    x = data.x.numpy().astype(np.float64)
    assert m.mean == pytest.approx(x.mean(), rel=1e-12)
    assert m.std == pytest.approx(x.std(), rel=1e-12)


def test_a_large_mean_costs_no_digits() -> None:
    """Half of the numbers are 2^19 - 1/16, half 2^19 + 1/16, which float32 holds exactly: the
    mean of squares less the square of the mean would lose the 1/16 even there."""
    x = torch.full((3001, 2), 2.0**19) + torch.tensor([-1, 1]) / 16
    m = moments(ArrayData(x))
    assert m.mean == 2**19 and m.std == 1 / 16


def test_constant_data_have_no_spread() -> None:
    assert moments(ArrayData(torch.full((5, 3), 7.0))) == (7.0, 0.0)


def test_a_folder_is_measured_without_what_is_drawn(tmp_path) -> None:  # type: ignore[no-untyped-def]
    shades = [0, 50, 255]
    for k, shade in enumerate(shades):
        Image.new("L", (4, 4), shade).save(tmp_path / f"{k}.png")
    exact = np.array(shades) / 127.5 - 1
    m = moments(ImageFolder(tmp_path, 4, flip=True, crop="random"))
    assert m.mean == pytest.approx(exact.mean(), abs=1e-6)
    assert m.std == pytest.approx(exact.std(), abs=1e-6)

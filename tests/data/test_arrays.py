"""Arrays: bytes and floats, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from sdegen.data import (
    ArrayData,
    from_uint8,
    to_uint8,
)
from tests.cases import refused_with


def test_bytes_make_an_exact_round_trip() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    x = from_uint8(every)
    torch.testing.assert_close(x.double(), torch.linspace(-1, 1, 256, dtype=torch.float64))
    assert x.dtype == torch.float32
    assert x[0] == -1 and x[255] == 1
    assert torch.equal(to_uint8(x), every)
    assert torch.equal(to_uint8(x.double()), every)


def test_to_uint8_takes_the_nearest_byte_and_clamps() -> None:
    x = torch.tensor([-math.inf, -1.1, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 1.1, math.inf])
    assert to_uint8(x).tolist() == [0, 0, 0, 1, 255, 255]


def test_byte_maps_refuse_what_they_would_garble() -> None:
    with refused_with("from_uint8 got a tensor of torch.float32"):
        from_uint8(torch.zeros(2))
    with refused_with("to_uint8 got a tensor of torch.int64"):
        to_uint8(torch.zeros(2, dtype=torch.int64))
    with refused_with("to_uint8 got NaN"):
        to_uint8(torch.tensor([0.0, math.nan]))


def test_array_data_gives_its_rows() -> None:
    x = torch.randn(5, 1, 2, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 3, 1, 1, 0])
    data = ArrayData(x, y)
    assert (len(data), data.shape, data.classes) == (5, (1, 2, 3), 4)
    assert data.x.dtype == torch.float32 and not data.x.requires_grad
    for i, (xi, yi) in enumerate(data):  # ends by IndexError, as a sequence must
        assert torch.equal(xi, x[i].detach().float())
        assert yi.dtype == torch.int64 and yi.shape == () and yi == y[i]
    assert i == 4


def test_array_data_without_labels_has_no_classes() -> None:
    data = ArrayData(torch.ones(3, 2))
    assert data.classes == 0 and data.y.tolist() == [0, 0, 0] and data.y.dtype == torch.int64
    assert ArrayData(torch.ones(3, 2), data.y).classes == 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool, torch.complex64])
def test_array_data_takes_floats_only(dtype: Any) -> None:
    with refused_with("sdegen.data.from_uint8"):
        ArrayData(torch.zeros(2, 1, 8, 8, dtype=dtype))


@pytest.mark.parametrize("shape", [(0, 2), (2, 0), (5,), ()])
def test_array_data_refuses_empty_and_flat_arrays(shape: tuple[int, ...]) -> None:
    with refused_with(f"x has the shape {shape}"):
        ArrayData(torch.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_array_data_names_the_first_entry_that_is_not_finite(value: float) -> None:
    x = torch.zeros(4, 2, 3, dtype=torch.float64)
    x[2, 1, 0] = x[3, 0, 0] = value  # 1e300 is finite, but not in float32
    with refused_with("x[2, 1, 0] is "):
        ArrayData(x)


@pytest.mark.parametrize(
    "y, message",
    [
        (torch.zeros(3), "y is torch.float32"),
        (torch.zeros(3, dtype=torch.int32), "y is torch.int32"),
        (torch.zeros(2, dtype=torch.int64), "of shape (2,)"),
        (torch.zeros(3, 1, dtype=torch.int64), "of shape (3, 1)"),
        (torch.tensor([0, -1, 2]), "y has the label -1"),
    ],
)
def test_array_data_refuses_bad_labels(y: Any, message: str) -> None:
    with refused_with(message):
        ArrayData(torch.zeros(3, 2), y)

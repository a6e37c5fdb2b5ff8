"""Centroids and their second differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sdegen.metrics import acceleration, centroids
from tests.cases import close, refused


def dots(where: Tensor, size: int = 12) -> Tensor:
    """Clips (n, 1, f, size, size) of one bright pixel at whole places (n, f, 2)."""
    n, f, _ = where.shape
    x = torch.full((n, 1, f, size, size), -1.0)
    clip, frame = torch.meshgrid(torch.arange(n), torch.arange(f), indexing="ij")
    x[clip, 0, frame, where[..., 0], where[..., 1]] = 1.0
    return x


def test_a_dot_is_its_own_middle() -> None:
    where = torch.randint(12, (3, 5, 2), generator=torch.Generator().manual_seed(0))
    close(centroids(dots(where)), where.double())
    grey = torch.zeros(1, 3, 2, 4, 6)
    close(centroids(grey), torch.tensor([1.5, 2.5]).double().expand(1, 2, 2))
    close(centroids(dots(where) * 3), where.double())  # what is darker than black weighs nothing


def test_acceleration_is_that_of_the_path() -> None:
    k = torch.arange(4)
    straight = torch.stack([2 * k, 11 - 3 * k], 1)[None]
    assert acceleration(dots(straight)) == pytest.approx(0, abs=1e-12)
    falling = torch.stack([k**2, 0 * k], 1)[None]
    assert acceleration(dots(falling)) == pytest.approx(2)
    both = acceleration(dots(torch.cat([straight, falling])))
    assert both == pytest.approx(2 / math.sqrt(2))


def test_frames_that_know_nothing_of_each_other() -> None:
    """E |a - 2 b + c|^2 = 6 Var, of two coordinates that are uniform on 12 places."""
    where = torch.randint(12, (4000, 5, 2), generator=torch.Generator().manual_seed(0))
    wanted = math.sqrt(6 * 2 * (12**2 - 1) / 12)
    assert acceleration(dots(where)) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(2, 1, 4, 4), "Clips are floating-point"),
        (torch.zeros(2, 1, 3, 4, 4).long(), "torch.int64"),
        (torch.zeros(0, 1, 3, 4, 4), "Clips are floating-point"),
        (torch.zeros(2, 1, 2, 4, 4), "three frames or more, not 2"),
        (torch.full((3, 1, 4, 4, 4), math.nan), r"Clip 0 is not finite \(3 of 3 are so\)"),
        (torch.zeros(2, 1, 3, 4, 4).index_fill(0, torch.tensor(1), math.inf), "Clip 1 is not fin"),
        (-torch.ones(2, 1, 3, 4, 4), "Clip 0 has a frame without anything bright"),
    ],
)
def test_what_is_no_clip_is_refused(x: Tensor, said: str) -> None:
    with refused(said):
        acceleration(x)

"""Figures of restorations, on Gaussians where they are known."""

from __future__ import annotations

import math

import torch

from sdegen.metrics.restored import Restored, psnr
from tests.cases import refused


def test_psnr_is_of_the_range() -> None:
    x0 = torch.zeros(2, 1, 4, 4)
    assert psnr(x0, x0) == math.inf
    assert abs(psnr(x0 + 0.2, x0) - 20) < 1e-5  # 10 log10(4 / .04)
    where = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    where[:, :, 0] = True
    other = torch.where(where, 0.02, 5.0)
    assert abs(psnr(other, x0, where) - 40) < 1e-5
    with refused(r"x is \(2, 1, 4, 3\), but x0 is \(2, 1, 4, 4\)"):
        psnr(x0[..., 1:], x0)


def test_posterior_samples_are_3_db_below_their_mean() -> None:
    """x0 and k samples of one N(0, s^2): an error of 2 s^2 of one, (1 + 1/k) s^2 of the mean."""
    g, s, k = torch.Generator().manual_seed(0), 0.1, 16
    hole = torch.zeros(500, 1, 8, 8, dtype=torch.bool)
    hole[:, :, :, 4:] = True
    x0, x = (s * torch.randn(500, *n, 1, 8, 8, generator=g) for n in ((), (k,)))
    x = torch.where(hole[:, None], x, x0[:, None])
    found = Restored.of(x0, x, hole, None)
    assert abs(found.one - 10 * math.log10(4 / (2 * s**2))) < 0.1
    assert abs(found.mean - 10 * math.log10(4 / ((1 + 1 / k) * s**2))) < 0.1
    assert abs(found.spread - s) < 0.01 * s and found.known == 0 and found.seen is None
    x[3, 2, 0, 0, 0] += 0.25
    off = Restored.of(x0, x, hole, None)
    assert off.known is not None and abs(off.known - 0.25) < 1e-6 and off.one == found.one
    assert "known values off by 0 at most (500 images)" in str(found)
    alone = Restored.of(x0, x0[:, None], None, x0 + 0.2)
    assert alone.spread == 0 and alone.one == math.inf
    assert alone.seen is not None and abs(alone.seen - 20) < 1e-4

"""Figures of restorations, on Gaussians where they are known."""

from __future__ import annotations

import math

import torch

from sdegen.data import from_uint8
from sdegen.metrics.restored import Restored, psnr, ssim
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


def test_ssim_by_hand() -> None:
    """Of one window: its means, variances and covariance, written out. Wang et al. (2004)."""
    g = torch.Generator().manual_seed(0)
    x0, x = (torch.rand(1, 1, 11, 11, generator=g, dtype=torch.float64) * 2 - 1 for _ in range(2))
    at = torch.arange(11, dtype=torch.float64) - 5
    w = torch.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    w = w / w.sum()
    mx, my = float((w * x[0, 0]).sum()), float((w * x0[0, 0]).sum())
    vx, vy = float((w * (x[0, 0] - mx) ** 2).sum()), float((w * (x0[0, 0] - my) ** 2).sum())
    cov = float((w * (x[0, 0] - mx) * (x0[0, 0] - my)).sum())
    c1, c2 = 0.02**2, 0.06**2
    by_hand = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert abs(ssim(x, x0) - by_hand) < 1e-12
    assert abs(ssim(x0, x0) - 1) < 1e-12
    # Constant images: the means alone.
    half, none = torch.full((1, 1, 12, 12), 0.5), torch.zeros(1, 1, 12, 12)
    assert abs(ssim(half, none) - c1 / (0.25 + c1)) < 1e-9
    with refused("10 x 11, but SSIM has a window of 11 x 11"):
        ssim(x[:, :, 1:], x0[:, :, 1:])
    with refused(r"x is \(1, 1, 10, 11\), but x0 is \(1, 1, 11, 11\)"):
        ssim(x[:, :, 1:], x0)


def test_restorations_have_a_similarity_where_it_fits() -> None:
    g = torch.Generator().manual_seed(0)
    x0 = torch.rand(4, 3, 16, 16, generator=g) * 2 - 1
    x = x0[:, None] + 0.1 * torch.randn(4, 5, 3, 16, 16, generator=g)
    found = Restored.of(x0, x, None, None)
    assert found.ssim_one is not None and found.ssim_mean is not None
    assert 0.5 < found.ssim_one < found.ssim_mean < 1
    assert abs(found.ssim_mean - ssim(x.mean(1), x0)) < 1e-12 and "SSIM 0." in str(found)
    small = Restored.of(x0[..., :8], x[..., :8], None, None)
    assert small.ssim_one is None and "SSIM" not in str(small)


def test_bytes_and_nothing_are_no_images() -> None:
    """Of bytes the peak is another one: 10 log10(255^2 / MSE) is what floats have for them."""
    g = torch.Generator().manual_seed(0)
    x, x0 = torch.randint(0, 256, (2, 2, 1, 12, 12), dtype=torch.uint8, generator=g)
    theirs = 10 * math.log10(255**2 / float((x.double() - x0.double()).square().mean()))
    assert abs(psnr(from_uint8(x), from_uint8(x0)) - theirs) < 1e-4
    for measure in (psnr, ssim):
        for pair in ((x, x0), (from_uint8(x), x0)):
            with refused("of torch.uint8, but images are floats in .-1, 1."):
                measure(*pair)
        with refused("of one shape, and not empty"):
            measure(from_uint8(x[:0]), from_uint8(x0[:0]))
    for where in (torch.zeros(12, 12, dtype=torch.bool), torch.ones(12, 12)):
        with refused("where is booleans of which one or more are true"):
            psnr(from_uint8(x), from_uint8(x0), where)

"""Gaussians with a power law against Wiener's filter, and against their own samples."""

from __future__ import annotations

import pytest
import torch

import sdegen as sg
from sdegen.exact import power_law, power_spectrum
from sdegen.metrics import radial_spectrum
from tests.cases import SDES, close, normal, refused


@pytest.mark.parametrize("shape", [(6,), (8,), (4, 6), (8, 8), (4, 2, 6)])
def test_the_covariance_is_circulant_and_has_the_spectrum(shape: tuple[int, ...]) -> None:
    """A shift around of all places changes nothing; the variances are S, that of a place std^2."""
    law, S = power_law(shape, 1.7, 0.6), power_spectrum(shape, 1.7, 0.6)
    cov = torch.as_tensor(law.cov).reshape(*shape, *shape)
    shifted = cov.roll((1, 1), (0, len(shape)))
    close(shifted, cov, atol=1e-12)
    close(torch.linalg.eigvalsh(cov.reshape(S.numel(), -1)), S.flatten().sort().values)
    close(cov.reshape(S.numel(), -1).diagonal(), torch.full_like(S.flatten(), 0.36))


def test_frequencies_fall_as_their_power() -> None:
    S = power_spectrum((16,), 2.0)
    close(S[1:8] * torch.arange(1, 8).double() ** 2, S[1].expand(7))
    assert S[0] == S[1] == S[-1]
    close(power_spectrum((4, 4), 0.0), torch.ones(4, 4))


@pytest.mark.parametrize("shape", [(8,), (4, 6)])
@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_half_the_gain_is_lost_where_the_spectrum_is_the_noises(
    sde: sg.LinearSDE, shape: tuple[int, ...]
) -> None:
    """A wave of alpha x0 comes out S / (S + rho^2) as large: above half where S > rho^2."""
    law, S = power_law(shape, 2.0, 0.5), power_spectrum(shape, 2.0, 0.5)
    for rho2 in (float(S.flatten()[1]), float(S.median()), float(S.min())):
        level = sde(sde.time(-0.5 * torch.tensor(rho2, dtype=torch.float64).log()))
        one = torch.eye(S.numel(), dtype=torch.float64).reshape(-1, *shape)
        wave = torch.fft.ifftn(one, dim=list(range(1, one.ndim))).real.flatten(1)
        out = law.denoise(level.alpha * wave, level)
        gain = (out * wave).sum(1) / wave.square().sum(1)
        close(gain, (S / (S + rho2)).flatten(), rtol=1e-6)
        assert torch.equal(gain > 0.5 + 1e-6, (rho2 * (1 + 1e-5) < S).flatten())


def test_samples_have_the_spectrum() -> None:
    x = power_law((8, 8), 2.0).sample(4000, torch.Generator().manual_seed(0)).reshape(-1, 1, 8, 8)
    k, found = radial_spectrum(x)
    assert k.tolist() == [0, 1, 2, 3, 4]
    S = power_spectrum((8, 8), 2.0)
    f = torch.fft.fftfreq(8).double() * 8
    ring = (f[:, None] ** 2 + f**2).sqrt().round()
    for j in range(5):
        assert abs(float(found[j] / S[ring == j].mean()) - 1) < 0.06


def test_white_noise_is_flat_and_a_wave_is_in_its_ring() -> None:
    close(radial_spectrum(normal(3000, 2, 4, 6))[1], torch.ones(3).double(), rtol=0.03)
    wave = torch.cos(2 * torch.pi * 3 * torch.arange(12).double() / 12)
    _, S = radial_spectrum(wave.expand(1, 1, 12))
    assert int(S.argmax()) == 3 and float(S.sum() - S[3]) < 1e-12
    close(S[3], torch.tensor(12 / 4).double(), rtol=1e-6)


def test_what_has_no_spectrum_is_refused() -> None:
    with refused("shape is empty"):
        power_law((), 2.0)
    with refused("A side must be a whole number >= 2"):
        power_law((4, 1), 2.0)
    with refused("exponent must be a number >= 0"):
        power_law((4,), -1.0)
    with refused("std must be above 0"):
        power_law((4,), 1.0, 0.0)
    for shape in ((2, 3), (2, 3, 1), (0, 1, 4)):
        with refused("A spectrum is of states"):
            radial_spectrum(torch.zeros(shape))

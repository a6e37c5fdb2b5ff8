"""Random numbers as a pure function of key and counter: SplitMix64, Steele et al. (2014)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15


def pairs(keys: Tensor, number: Tensor | int, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """n pairs of standard normal draws, 2 x (b, n), of streams (b, 1) and the number of a draw."""
    start = mix(keys + number)
    step = mix(keys ^ start) | 1
    bits = mix(start + torch.arange(1, n + 1, device=keys.device) * step)
    # Single precision is decided in single precision: the bits agree on every device, and
    # 32 bits of a uniform reach 6.7 standard deviations.
    real = torch.float64 if dtype == torch.float64 else torch.float32
    u = (((bits >> 32) & 0xFFFFFFFF).to(real) + 0.5) * 2.0**-32
    angle = (bits & 0xFFFFFFFF).to(real) * (2 * math.pi * 2.0**-32)
    radius = (-2 * u.log()).sqrt()
    return radius * angle.cos(), radius * angle.sin()


def signed(n: int) -> int:
    """The 64-bit integer with n's lowest 64 bits."""
    return (n + 2**63) % 2**64 - 2**63


def mix(z: Tensor) -> Tensor:
    """SplitMix64's finaliser: every bit of the result depends on every bit of z (int64)."""
    z = (z ^ shift(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shift(z, 27)) * signed(0x94D049BB133111EB)
    return z ^ shift(z, 31)


def shift(z: Tensor, k: int) -> Tensor:
    """Logical right shift: torch's own copies the sign bit."""
    return (z >> k) & ((1 << (64 - k)) - 1)

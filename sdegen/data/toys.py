"""Five distributions in the plane, for pictures and for tests.

Each has zero mean and coordinates of standard deviation 0.5 to 0.9, by constants worked out from
its definition and not from the draw: two draws are samples of one and the same distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from sdegen.data.arrays import ArrayData


def gaussians8(n: int, generator: Generator) -> tuple[Tensor, Tensor | None]:
    """Eight Gaussians of standard deviation 0.1 on the unit circle; label: which one.

    Component k is centred at angle 2 pi k / 8. A coordinate has variance 1/2 + 0.01.
    """
    k = torch.randint(8, (n,), generator=generator)
    angle = k * (math.pi / 4)
    centre = torch.stack([angle.cos(), angle.sin()], 1)
    return centre + 0.1 * torch.randn(n, 2, generator=generator), k


def moons(n: int, generator: Generator) -> tuple[Tensor, Tensor | None]:
    """Two interleaved half circles of radius 1 in noise of 0.1; label: which one.

    With a uniform on (0, pi), the upper is (cos a, sin a), the lower (1 - cos a, 1/2 - sin a).
    The mean of both together is (1/2, 1/4).
    """
    k = torch.randint(2, (n,), generator=generator)
    angle = math.pi * torch.rand(n, generator=generator)
    sign = 1 - 2 * k
    x = torch.stack([k + sign * angle.cos(), k / 2 + sign * angle.sin()], 1)
    x = x + 0.1 * torch.randn(n, 2, generator=generator)
    return x - torch.tensor([0.5, 0.25]), k


def checkerboard(n: int, generator: Generator) -> tuple[Tensor, Tensor | None]:
    """Uniform on the eight like-coloured squares of a 4 x 4 board over [-1, 1]^2; no labels.

    The squares have side 1/2, and the lower left one is among them. Each coordinate alone is
    uniform on (-1, 1), of variance 1/3.
    """
    column = torch.randint(4, (n,), generator=generator)
    row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
    inside = torch.rand(n, 2, generator=generator)
    return (torch.stack([column, row], 1) + inside) / 2 - 1, None


def swissroll(n: int, generator: Generator) -> tuple[Tensor, Tensor | None]:
    """A spiral of one and a half turns in noise of 0.05; no labels.

    (t cos t, t sin t) / 10 with t uniform on (3 pi / 2, 9 pi / 2). Before the division its mean
    is (2, 2 / (3 pi)): integrate by parts.
    """
    t = math.pi * (1.5 + 3 * torch.rand(n, generator=generator))
    spiral = torch.stack([t * t.cos() - 2, t * t.sin() - 2 / (3 * math.pi)], 1)
    return spiral / 10 + 0.05 * torch.randn(n, 2, generator=generator), None


def pinwheel(n: int, generator: Generator) -> tuple[Tensor, Tensor | None]:
    """Five bent arms around the origin; label: which arm. Johnson et al. (2016), figure 1.

    Arm k is the Gaussian (r, s) ~ N((1, 0), diag(0.3^2, 0.1^2)), turned by the angle
    2 pi k / 5 + exp(r) / 4. By symmetry the mean is zero and a coordinate's variance is half
    of E[r^2 + s^2], 0.55.
    """
    k = torch.randint(5, (n,), generator=generator)
    r, s = torch.randn(2, n, generator=generator)
    r, s = 1 + 0.3 * r, 0.1 * s
    angle = k * (2 * math.pi / 5) + r.exp() / 4
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([r * cos - s * sin, r * sin + s * cos], 1), k


TOYS: dict[str, Callable[[int, Generator], tuple[Tensor, Tensor | None]]] = {
    draw.__name__: draw for draw in (gaussians8, moons, checkerboard, swissroll, pinwheel)
}


def toy(name: str, n: int = 20000, seed: int = 0) -> ArrayData:
    """n independent points (n, 2) of the named distribution; the same seed gives the same points.

    Raises ValueError for a name that is not one of gaussians8, moons, checkerboard, swissroll
    and pinwheel, and for n < 1.
    """
    if name not in TOYS:
        raise ValueError(f"there is no toy named {name!r}: choose one of {', '.join(TOYS)}")
    if n < 1:
        raise ValueError(f"n = {n} points were asked for, but it must be at least 1")
    return ArrayData(*TOYS[name](n, torch.Generator().manual_seed(seed)))

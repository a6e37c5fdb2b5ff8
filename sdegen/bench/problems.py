"""The problems that solvers are compared on: exact scores, guided ones, a trained network."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdegen.bench.guided import Classes, Guidance, digits_by_class, ring
from sdegen.exact.distributions import Empirical, Gaussian, LowRankMixture, Mixture
from sdegen.exact.distributions import Problem as Exact
from sdegen.model.denoiser import Denoiser
from sdegen.model.score import ScoreModel
from sdegen.sde.level import Level, expand
from sdegen.sde.process import LinearSDE


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be sampled.

    exact: its distribution.  shape: of one sample.  network: a trained one in the place of the
    exact denoiser, whose own SDE is the only one it knows.  guidance: to classes of it.
    """

    exact: Exact
    shape: tuple[int, ...]
    network: ScoreModel | None = None
    guidance: Guidance | None = None

    def model(
        self, sde: LinearSDE, wrap: Callable[[Any], Any] = lambda net: net, n: int = 1
    ) -> Denoiser:
        """A denoiser of n samples that counts its network's calls, which is wrapped as told.

        n matters where there are classes.  ValueError for another SDE than a network's own.
        """
        network, exact = self.network, self.exact
        if self.guidance is not None:
            return self.guidance.model(sde, wrap, n)
        if network is not None and str(network.sde) != str(sde):
            raise ValueError(
                f"This network was trained under {network.sde}, but the SDE is {sde}: choose the "
                "one it was trained under."
            )

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            # By way of self: states stay in float64 around a network of another type.
            known = self.network
            return exact.denoise(x, sde(t)) if known is None else known(x, t).x0

        return ScoreModel(wrap(denoise), sde, predicts="x0")

    def noised(self, level: Level, n: int, seed: int) -> Tensor:
        """Exact draws of x_t at a level, (n, *) float64."""
        generator = torch.Generator().manual_seed(seed)
        x0 = self.exact.sample(n, generator)
        z = torch.randn(x0.shape, generator=generator, dtype=x0.dtype)
        return expand(level.alpha, x0) * x0 + expand(level.sigma, x0) * z

    def fingerprint(self) -> str:
        """What the problem is, to the last bit: its own draws, and a network's weights."""
        print_ = hashlib.sha256(
            self.exact.sample(256, torch.Generator().manual_seed(0)).numpy().tobytes()
        )
        if self.guidance is not None:
            print_.update(repr(self.guidance).encode())
            print_.update(self.guidance.data.of.numpy().tobytes())
        if self.network is not None:
            for name, value in sorted(self.network.state_dict().items()):
                print_.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return print_.hexdigest()[:16]


def gaussian(d: int = 16, condition: float = 1e4, seed: int = 0) -> Problem:
    """A correlated Gaussian: variances spread evenly in the logarithm down from 1."""
    if not condition >= 1:
        raise ValueError(f"A condition is at least 1, but it is {condition!r}.")
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(d, d, generator=generator, dtype=torch.float64)
    axes = torch.linalg.qr(z).Q
    var = torch.logspace(0, -math.log10(condition), d, dtype=torch.float64)
    mean = 0.5 * torch.randn(d, generator=generator, dtype=torch.float64)
    return Problem(Gaussian(mean, (axes * var) @ axes.T), (d,))


def mixture() -> Problem:
    """Two overlapping modes in the plane: mild."""
    return Problem(Mixture([[-1.0, 0.3], [0.8, -0.6]], [0.5, 0.4], [0.4, 0.6]), (2,))


def stiff() -> Problem:
    """Eight narrow modes on a circle and one in its middle: paths that have to decide."""
    angles = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    ring = 1.5 * torch.stack([angles.cos(), angles.sin()], 1)
    means = torch.cat([ring, torch.zeros(1, 2, dtype=torch.float64)])
    return Problem(Mixture(means, [0.03] * 8 + [0.08], [0.1] * 8 + [0.2]), (2,))


def low_rank(d: int = 768, rank: int = 6, components: int = 8, seed: int = 0) -> Problem:
    """Eight flat clouds in d dimensions, each wide in a few directions of its own."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    axes = torch.linalg.qr(normal(components, d, rank)).Q
    var = 0.25 * d / rank * torch.logspace(0, -2, rank, dtype=torch.float64)
    means = 0.5 * normal(components, d)
    weights = torch.full((components,), 1 / components, dtype=torch.float64)
    spread = LowRankMixture(means, axes, var.repeat(components, 1), weights, 0.05)
    return Problem(spread, (d,))


def digits() -> Problem:
    """The training half of the digits as a distribution: the exact denoiser is a softmax."""
    from sdegen.data import digits as data

    x = data("train").x
    return Problem(Empirical(x), tuple(x.shape[1:]))


def photo_patches(n: int = 1024, size: int = 8) -> Problem:
    """Patches of photographs in colour as a distribution."""
    from sdegen.data import photo_patches as data

    x = data(size=size).x[:n]
    return Problem(Empirical(x), tuple(x.shape[1:]))


def guided_mixture(
    scale: float = 4.0, threshold: bool = False, interval: tuple[float, float] | None = None
) -> Problem:
    """Eight modes on a circle, guided to one of four classes of two opposite modes each.

    threshold: x0 is clipped to [-1, 1], where the means lie.  interval: see ``Guidance``.
    """
    every, classes = ring()
    return Problem(every, (2,), guidance=guidance(classes, scale, threshold, interval))


def guided_digits(
    scale: float = 4.0, threshold: bool = False, interval: tuple[float, float] | None = None
) -> Problem:
    """The training half of the digits, guided to one of the ten: see ``guided_mixture``."""
    every, classes = digits_by_class()
    shape = tuple(every.data.shape[1:])
    return Problem(every, shape, guidance=guidance(classes, scale, threshold, interval))


def guidance(
    data: Classes,
    scale: float,
    threshold: bool,
    interval: tuple[float, float] | None,
) -> Guidance:
    """As a configuration says it."""
    on = None if interval is None else (float(interval[0]), float(interval[1]))
    return Guidance(data, scale, (-1.0, 1.0) if threshold else None, on)


def run(path: str, packages: list[str] | None = None) -> Problem:
    """A network that sdegen-train trained, in float64; beside it the data it was trained on."""
    from sdegen.runs.build import build_split
    from sdegen.runs.folder import generating, in_memory, load_run, of_data

    found = generating(load_run(Path(path), packages or [], "cpu"), "problem=run")
    of_data(found, "problem=run")
    if found.counts:
        raise ValueError(
            f"The network of {path} is conditional on a class, which this comparison does not "
            "give: train with conditional=false."
        )
    if found.text is not None:
        raise ValueError(
            f"The network of {path} takes texts, which this comparison does not give: train with "
            "text=none."
        )
    train = build_split({**found.config, "packages": packages or []}, "train")
    model = found.model.double().requires_grad_(False)
    return Problem(Empirical(in_memory(train).x), tuple(found.shape), model)

"""Problems whose score is known exactly: what solvers are proven on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sdegen.score import ScoreModel
from sdegen.sde import Level, LinearSDE, expand


def exact_model(problem: Gaussian | Mixture | Empirical, sde: LinearSDE) -> ScoreModel:
    """The problem's exact denoiser as a score model of any linear SDE: counted, without error."""
    return ScoreModel(lambda x, t: problem.denoise(x, sde(t)), sde, predicts="x0")


def matrix(values: Sequence[Sequence[float]] | Tensor) -> Tensor:
    """Values in float64."""
    return torch.as_tensor(values, dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, cov) in d dimensions, closed form throughout; a zero covariance is a point mass.

    mean (d,), cov (d, d) or (d,) for a diagonal one; states are (b, d).
    """

    mean: Sequence[float] | Tensor
    cov: Sequence[Sequence[float]] | Sequence[float] | Tensor

    @cached_property
    def _spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (d,), variances (d,) and axes (d, d), x = mean + axes y."""
        cov = matrix(self.cov)  # type: ignore[arg-type]
        var, axes = torch.linalg.eigh(torch.diag(cov) if cov.ndim == 1 else cov)
        return matrix(self.mean), var.clamp(min=0), axes  # type: ignore[arg-type]

    def _like(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, var, axes = self._spectrum
        return mean.to(x), var.to(x), axes.to(x)

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x]."""
        mean, var, axes = self._like(x)
        a, v = expand(level.alpha, x), expand(level.sigma**2, x)
        y = (x - a * mean) @ axes
        return mean + (a * var / (a**2 * var + v) * y) @ axes.T

    def flow(self, x: Tensor, t: Level, s: Level) -> Tensor:
        """The probability flow's exact map of x (b, d) from level t to level s."""
        mean, var, axes = self._like(x)
        y = (x - t.alpha * mean) @ axes
        gain = ((s.alpha**2 * var + s.sigma**2) / (t.alpha**2 * var + t.sigma**2)).sqrt()
        return s.alpha * mean + (gain * y) @ axes.T

    def log_prob(self, x: Tensor, level: Level | None = None) -> Tensor:
        """Log-density of x (b, d), (b,): of the data, or of x_t at a level."""
        mean, var, axes = self._like(x)
        if level is not None:
            mean, var = level.alpha * mean, level.alpha**2 * var + level.sigma**2
        y = (x - mean) @ axes
        return -0.5 * (y**2 / var + var.log() + math.log(2 * math.pi)).sum(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws (n, d) in float64."""
        mean, var, axes = self._spectrum
        z = torch.randn(n, len(mean), dtype=torch.float64, generator=generator)
        return mean + (var.sqrt() * z) @ axes.T


@dataclass(frozen=True, eq=False)
class Mixture:
    """Isotropic Gaussians: weights (k,), means (k, d), stds (k,); states are (b, d)."""

    means: Sequence[Sequence[float]] | Tensor
    stds: Sequence[float] | Tensor
    weights: Sequence[float] | Tensor

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        parts = matrix(self.means), matrix(self.stds), matrix(self.weights)  # type: ignore[arg-type]
        if parts[0].ndim != 2 or not len(parts[0]) == len(parts[1]) == len(parts[2]):
            raise ValueError(
                "A mixture has means (k, d), stds (k,) and weights (k,), but their shapes are "
                f"{', '.join(str(tuple(part.shape)) for part in parts)}."
            )
        return parts

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x], each component's Gaussian mean weighted by its posterior."""
        means, stds, weights = (part.to(x) for part in self._parts)
        a, v = (torch.as_tensor(c).to(x).reshape(-1, 1) for c in (level.alpha, level.sigma**2))
        var = a**2 * stds**2 + v
        off = x[:, None, :] - a[..., None] * means
        logits = weights.log() - off.square().sum(-1) / (2 * var) - x.shape[1] / 2 * var.log()
        each = means + (a * stds**2 / var)[..., None] * off
        return (logits.softmax(-1)[..., None] * each).sum(1)

    def log_prob(self, x: Tensor, level: Level | None = None) -> Tensor:
        """Log-density of x (b, d), (b,): of the data, or of x_t at a level."""
        means, stds, weights = (part.to(x) for part in self._parts)
        var = stds**2
        if level is not None:
            means, var = level.alpha * means, level.alpha**2 * var + level.sigma**2
        off = (x[:, None, :] - means).square().sum(-1)
        d = x.shape[1]
        each = weights.log() - off / (2 * var) - d / 2 * (2 * math.pi * var).log()
        return each.logsumexp(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws (n, d) in float64."""
        means, stds, weights = self._parts
        k = torch.multinomial(weights, n, replacement=True, generator=generator)
        z = torch.randn(n, means.shape[1], dtype=torch.float64, generator=generator)
        return means[k] + stds[k, None] * z


@dataclass(frozen=True, eq=False)
class Empirical:
    """A data set (n, *) as a distribution: each of its n points with weight 1 / n.

    chunk: points that are compared with all states at once, which bounds the memory to b x chunk.
    """

    data: Tensor
    chunk: int = 4096

    def __post_init__(self) -> None:
        if not self.data.is_floating_point() or self.data.ndim < 2 or len(self.data) == 0:
            raise ValueError(
                "A data set is a floating-point tensor (n, *) with n >= 1, but it is "
                f"{self.data.dtype} of shape {tuple(self.data.shape)}."
            )

    @cached_property
    def _rows(self) -> Tensor:
        """The points (n, d) in float64: at small sigma their logits differ in the last digits."""
        return self.data.reshape(len(self.data), -1).double()

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x], a softmax over the data; x is (b, *)."""
        y = x.reshape(len(x), -1).double()
        a, v = (torch.as_tensor(c).to(y).reshape(-1, 1) for c in (level.alpha, level.sigma**2))
        top = y.new_full((len(y), 1), -torch.inf)
        total, mean = torch.zeros_like(top), torch.zeros_like(y)
        for part in self._rows.to(y.device).split(self.chunk):
            logits = (a * y @ part.T - 0.5 * a**2 * part.square().sum(1)) / v
            new = torch.maximum(top, logits.detach().amax(1, keepdim=True))
            w, fade = (logits - new).exp(), (top - new).exp()
            total, mean, top = fade * total + w.sum(1, keepdim=True), fade * mean + w @ part, new
        return (mean / total).reshape(x.shape).to(x)

    def log_prob(self, x: Tensor, level: Level) -> Tensor:
        """Log-density of x_t (b, *) at a level, (b,): a mixture of n Gaussians."""
        y, v = x.reshape(len(x), -1).double(), level.sigma**2
        parts = self._rows.to(y.device).split(self.chunk)
        logits = [-0.5 * (y[:, None] - level.alpha * part).square().sum(2) / v for part in parts]
        total = torch.cat(logits, 1).logsumexp(1) - math.log(len(self._rows))
        return total - y.shape[1] / 2 * torch.log(2 * math.pi * v)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws (n, *), with replacement, in float64."""
        picks = torch.randint(len(self.data), (n,), generator=generator)
        return self._rows.cpu()[picks].reshape(n, *self.data.shape[1:])

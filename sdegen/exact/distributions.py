"""Problems whose score is known exactly: what solvers are proven on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from sdegen.checks import number
from sdegen.exact.ground import (
    Constant,
    axes_of,
    coefficients,
    matrix,
    refuse_flat,
    refuse_negative,
    rounding,
    shares,
)
from sdegen.model.score import ScoreModel
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE


def exact_model(problem: Problem, sde: LinearSDE) -> ScoreModel:
    """The problem's exact denoiser as a score model of any linear SDE: counted, without error."""
    return ScoreModel(lambda x, t: problem.denoise(x, sde(t)), sde, predicts="x0")


class Problem(Protocol):
    """A distribution whose denoiser is known exactly."""

    def denoise(self, x: Tensor, level: Level, /) -> Tensor:
        """E[x0 | x_t = x], for x (b, *)."""

    def sample(self, n: int, generator: torch.Generator | None = None, /) -> Tensor:
        """n draws (n, *) in float64."""


@dataclass(frozen=True, eq=False)
class Gaussian(Constant):
    """N(mean, cov) in d dimensions, closed form throughout; a zero covariance is a point mass.

    mean (d,), cov (d, d) or (d,) for a diagonal one; states are (b, d). ValueError, where it is
    first asked, for another shape and what is no covariance.
    """

    mean: Sequence[float] | Tensor
    cov: Sequence[Sequence[float]] | Sequence[float] | Tensor

    @cached_property
    def spectrum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (d,), variances (d,) and axes (d, d), x = mean + axes y."""
        mean, cov = matrix(self.mean), matrix(self.cov)  # type: ignore[arg-type]
        if mean.ndim != 1 or cov.shape not in ((len(mean),), 2 * (len(mean),)):
            raise ValueError(
                "A Gaussian has a mean (d,) and a covariance (d, d), or variances (d,), but they "
                f"are {tuple(mean.shape)} and {tuple(cov.shape)}."
            )
        whole = torch.diag(cov) if cov.ndim == 1 else cov
        return mean, *axes_of(whole, rounding(self.cov))

    @cached_property
    def constants(self) -> tuple[Tensor, ...]:
        """Mean, variances and axes."""
        return self.spectrum

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x]."""
        mean, var, axes = self.like(x)
        a, v = coefficients(x, level)
        y = (x - a * mean) @ axes
        return mean + (a * var / (a**2 * var + v) * y) @ axes.T

    def flow(self, x: Tensor, t: Level, s: Level) -> Tensor:
        """The probability flow's exact map of x (b, d) from level t to level s."""
        mean, var, axes = self.like(x)
        y = (x - t.alpha * mean) @ axes
        gain = ((s.alpha**2 * var + s.sigma**2) / (t.alpha**2 * var + t.sigma**2)).sqrt()
        return s.alpha * mean + (gain * y) @ axes.T

    def log_prob(self, x: Tensor, level: Level | None = None) -> Tensor:
        """Log-density of x (b, d), (b,): of the data, or of x_t at a level.

        ValueError, where there is no noise, for a covariance that is singular.
        """
        refuse_flat(self.spectrum[1], level)
        mean, var, axes = self.like(x)
        a, v = coefficients(x, level)
        var = a**2 * var + v
        y = (x - a * mean) @ axes
        return -0.5 * (y**2 / var + (2 * torch.pi * var).log()).sum(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws (n, d) in float64."""
        mean, var, axes = self.spectrum
        z = torch.randn(n, len(mean), dtype=torch.float64, generator=generator)
        return mean + (var.sqrt() * z) @ axes.T


@dataclass(frozen=True, eq=False)
class Mixture(Constant):
    """Isotropic Gaussians: weights (k,), of whatever sum, means (k, d), stds (k,); states are
    (b, d). ValueError, where it is first asked, for other shapes, and weights or stds below 0."""

    means: Sequence[Sequence[float]] | Tensor
    stds: Sequence[float] | Tensor
    weights: Sequence[float] | Tensor

    @cached_property
    def constants(self) -> tuple[Tensor, ...]:
        """Means, standard deviations and weights."""
        parts = matrix(self.means), matrix(self.stds), matrix(self.weights)  # type: ignore[arg-type]
        if parts[0].ndim != 2 or not len(parts[0]) == len(parts[1]) == len(parts[2]):
            raise ValueError(
                "A mixture has means (k, d), stds (k,) and weights (k,), but their shapes are "
                f"{', '.join(str(tuple(part.shape)) for part in parts)}."
            )
        return parts[0], refuse_negative("stds", parts[1]), shares(parts[2])

    def parts(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Each component's share (b, k, 1), mean (b, k, d) and variance (b, k, 1) given x."""
        means, stds, weights = self.like(x)
        a, v = coefficients(x, level)
        var = a**2 * stds**2 + v
        off = x[:, None, :] - a[..., None] * means
        logits = weights.log() - off.square().sum(-1) / (2 * var) - x.shape[1] / 2 * var.log()
        each = means + (a * stds**2 / var)[..., None] * off
        return logits.softmax(-1)[..., None], each, (stds**2 * v / var)[..., None]

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x], each component's Gaussian mean weighted by its posterior."""
        share, each, _ = self.parts(x, level)
        return (share * each).sum(1)

    def variance(self, x: Tensor, level: Level) -> Tensor:
        """Var[x0 | x_t = x] of each coordinate, (b, d): the components' own and their means'."""
        share, each, own = self.parts(x, level)
        return (share * (own + (each - (share * each).sum(1, True)).square())).sum(1)

    def log_prob(self, x: Tensor, level: Level | None = None) -> Tensor:
        """Log-density of x (b, d), (b,): of the data, or of x_t at a level, () or (b,).

        ValueError, where there is no noise, for a std of 0.
        """
        refuse_flat(self.constants[1][:, None], level)
        means, stds, weights = self.like(x)
        a, v = coefficients(x, level)
        var = a**2 * stds**2 + v
        off = (x[:, None, :] - a[..., None] * means).square().sum(-1)
        each = weights.log() - off / (2 * var) - x.shape[1] / 2 * (2 * torch.pi * var).log()
        return each.logsumexp(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws (n, d) in float64."""
        means, stds, weights = self.constants
        k = torch.multinomial(weights, n, replacement=True, generator=generator)
        z = torch.randn(n, means.shape[1], dtype=torch.float64, generator=generator)
        return means[k] + stds[k, None] * z


@dataclass(frozen=True, eq=False)
class GaussianMixture(Constant):
    """Gaussians of any covariance: means (k, d), covs (k, d, d), weights (k,), of whatever sum;
    states are (b, d).

    ValueError, where it is first asked, for shapes that do not belong together, and what are no
    covariances or weights.
    """

    means: Tensor
    covs: Tensor
    weights: Sequence[float] | Tensor

    @cached_property
    def constants(self) -> tuple[Tensor, ...]:
        """Means, variances (k, d) along axes (k, d, d), x = mean + axes y, and weights."""
        means, covs = matrix(self.means), matrix(self.covs)
        weights = matrix(self.weights)  # type: ignore[arg-type]
        if means.ndim != 2 or (covs.shape, weights.shape) != (
            (*means.shape, means.shape[1]),
            means.shape[:1],
        ):
            raise ValueError(
                "A mixture of Gaussians has means (k, d), covs (k, d, d) and weights (k,), but "
                f"they are {tuple(means.shape)}, {tuple(covs.shape)}, {tuple(weights.shape)}."
            )
        return means, *axes_of(covs, rounding(self.covs)), shares(weights)

    def _parts(self, x: Tensor, level: Level | None) -> tuple[Tensor, Tensor]:
        """Of each component: log(weight N(x)) (b, k), and its posterior mean of x0 (b, k, d)."""
        means, var, axes, weights = self.like(x)
        a, v = (c[..., None] for c in coefficients(x, level))
        wide = a**2 * var + v
        y = torch.einsum("bkd,kde->bke", x[:, None, :] - a * means, axes)
        each = (y**2 / wide + (2 * torch.pi * wide).log()).sum(-1)
        mean = means + torch.einsum("bke,kde->bkd", a * var / wide * y, axes)
        return weights.log() - each / 2, mean

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x], x (b, d)."""
        logs, means = self._parts(x, level)
        return (logs.softmax(1)[..., None] * means).sum(1)

    def log_prob(self, x: Tensor, level: Level | None = None) -> Tensor:
        """Log-density of x (b, d), (b,): of the data, or of x_t at a level, () or (b,).

        ValueError, where there is no noise, for a covariance that is singular.
        """
        refuse_flat(self.constants[1], level)
        return self._parts(x, level)[0].logsumexp(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws (n, d) in float64."""
        means, var, axes, weights = self.constants
        k = torch.multinomial(weights, n, replacement=True, generator=generator)
        z = torch.randn(n, means.shape[1], dtype=torch.float64, generator=generator)
        return means[k] + torch.einsum("nde,ne->nd", axes[k], var[k].sqrt() * z)


@dataclass(frozen=True, eq=False)
class LowRankMixture(Constant):
    """Gaussians that are wide in r directions each and narrow in all others, in many dimensions.

    Component k is N(mean_k, axes_k diag(vars_k) axes_k^T + std^2 I); weights (k,), means (k, d),
    axes (k, d, r) with orthonormal columns, vars (k, r). No (d, d) matrix is ever made: a call
    takes the time and the memory of b x k x d x r and b x d numbers. Weights are of whatever sum.

    ValueError for other shapes, and for weights, vars or a std below 0.
    """

    means: Tensor
    axes: Tensor
    vars: Tensor
    weights: Tensor
    std: float

    def __post_init__(self) -> None:
        k, d, r = self.axes.shape
        shapes = tuple(self.means.shape), tuple(self.vars.shape), tuple(self.weights.shape)
        if shapes != ((k, d), (k, r), (k,)):
            raise ValueError(
                "A low-rank mixture has axes (k, d, r), means (k, d), vars (k, r) and weights "
                f"(k,), but they are {tuple(self.axes.shape)}, {', '.join(map(str, shapes))}."
            )
        number("std", self.std, 0)
        refuse_negative("vars", self.vars)
        shares(self.weights)

    @cached_property
    def constants(self) -> tuple[Tensor, ...]:
        """Means, axes, variances and weights."""
        return self.means, self.axes, self.vars, shares(self.weights)

    def _parts(self, x: Tensor, level: Level | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each component: log(weight N(x)) (b,), and its posterior mean of x0 (b, d)."""
        a, v = (c.expand(len(x), 1) for c in coefficients(x, level))
        d, narrow = x.shape[1], a**2 * self.std**2 + v
        for m, U, var, w in zip(*self.like(x), strict=True):
            off = x - a * m
            y = off @ U
            wide = narrow + a**2 * var
            square = (off.square().sum(1) - y.square().sum(1)) / narrow[:, 0]
            square = square + (y**2 / wide).sum(1)
            flat, axes = (2 * torch.pi * narrow[:, 0]).log(), (2 * torch.pi * wide).log()
            log_weight = w.log() - 0.5 * (square + (d - len(var)) * flat + axes.sum(1))
            # Off the axes the gain is that of std^2 alone; along them the rest is added.
            gain = a * self.std**2 / narrow
            more = a * (var + self.std**2) / wide - gain
            yield log_weight, m + gain * off + (more * y) @ U.T

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x], x (b, d)."""
        logs, each = zip(*self._parts(x, level), strict=True)
        shares = torch.stack(logs, 1).softmax(1)
        return sum(share[:, None] * one for share, one in zip(shares.T, each, strict=True))  # type: ignore[return-value]

    def log_prob(self, x: Tensor, level: Level | None = None) -> Tensor:
        """Log-density of x (b, d), (b,): of the data, or of x_t at a level."""
        logs = [log for log, _ in self._parts(x, level)]
        return torch.stack(logs, 1).logsumexp(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws (n, d) in float64."""
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        d, r = self.axes.shape[1:]
        z, y = (torch.randn(n, m, dtype=torch.float64, generator=generator) for m in (d, r))
        wide = torch.einsum("nr,ndr->nd", self.vars[k].sqrt() * y, self.axes[k])
        return self.means[k] + self.std * z + wide


@dataclass(frozen=True, eq=False)
class Empirical(Constant):
    """A data set (n, *) as a distribution of its n points.

    chunk:   points that are compared with all states at once: memory is bounded by b x chunk.
    weights: of the points, (n,), not negative, of whatever sum; None: 1 / n each.

    ValueError for what is no data set, and weights that are none.
    """

    data: Tensor
    chunk: int = 4096
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if not self.data.is_floating_point() or self.data.ndim < 2 or len(self.data) == 0:
            raise ValueError(
                "A data set is a floating-point tensor (n, *) with n >= 1, but it is "
                f"{self.data.dtype} of shape {tuple(self.data.shape)}."
            )
        w = self.weights
        if w is not None and not (
            w.shape == self.data.shape[:1] and w.isfinite().all() and w.min() >= 0 and w.max() > 0
        ):
            raise ValueError(
                f"Weights of {len(self.data)} points are ({len(self.data)},) numbers >= 0, not "
                f"all of them 0, but they are of shape {tuple(w.shape)}, from {w.min():g} to "
                f"{w.max():g}."
            )

    @cached_property
    def constants(self) -> tuple[Tensor, ...]:
        """The points (n, d) in float64, as at small sigma their logits differ in the last digits,
        half of their squares (n,) and the logarithms of their weights (n,), up to a constant.
        Points without weight are none."""
        rows = self.data.reshape(len(self.data), -1).to("cpu", torch.float64)
        if self.weights is None:
            return rows, 0.5 * rows.square().sum(1), torch.zeros(len(rows), dtype=torch.float64)
        weights = self.weights.to("cpu", torch.float64)
        rows = rows[weights > 0]
        return rows, 0.5 * rows.square().sum(1), weights[weights > 0].log()

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        """E[x0 | x_t = x], a softmax over the data; x is (b, *)."""
        y = x.reshape(len(x), -1).double()
        a, v = coefficients(y, level)
        top = y.new_full((len(y), 1), -torch.inf)
        total, mean = torch.zeros_like(top), torch.zeros_like(y)
        for part, half, log_w in zip(*(c.split(self.chunk) for c in self.like(y)), strict=True):
            logits = (a * y @ part.T - a**2 * half) / v + log_w
            new = torch.maximum(top, logits.detach().amax(1, keepdim=True))
            w, fade = (logits - new).exp(), (top - new).exp()
            total, mean, top = fade * total + w.sum(1, keepdim=True), fade * mean + w @ part, new
        return (mean / total).reshape(x.shape).to(x)

    def log_prob(self, x: Tensor, level: Level) -> Tensor:
        """Log-density of x_t (b, *) at a level, () or (b,): a mixture of n Gaussians, (b,)."""
        y = x.reshape(len(x), -1).double()
        a, v = coefficients(y, level)
        total = y.new_full((len(y), 1), -torch.inf)
        for part, half, log_w in zip(*(c.split(self.chunk) for c in self.like(y)), strict=True):
            logits = (a * y @ part.T - a**2 * half) / v + log_w
            total = torch.logaddexp(total, logits.logsumexp(1, keepdim=True))
        total = total - y.square().sum(1, keepdim=True) / (2 * v) - self.like(y)[2].logsumexp(0)
        return (total - y.shape[1] / 2 * (2 * torch.pi * v).log()).squeeze(1)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n draws (n, *), with replacement, in float64."""
        if self.weights is None:
            picks = torch.randint(len(self.data), (n,), generator=generator)
        else:
            weights = self.constants[2].softmax(0)
            picks = torch.multinomial(weights, n, replacement=True, generator=generator)
        rows = self.constants[0]
        return rows[picks].reshape(n, *self.data.shape[1:])

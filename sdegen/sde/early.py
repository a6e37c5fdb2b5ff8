"""Forward processes that end early, at a time where data and noise together are nearly Gaussian.

Sampling then begins at T* < T with a Gaussian that has the data's own moments there, and what
lies between T* and T costs nothing.  Zheng et al. (2023b) learn that prior with a GAN; here it is
fitted.
The price is KL(p_T* || prior), which the exact flow keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sdegen.checks import number, whole
from sdegen.sde.level import Level
from sdegen.sde.process import LinearSDE, Prior, has_coordinates


@dataclass(frozen=True, eq=False)
class GaussianPrior(Prior):
    """N(mean, axes diag(along^2) axes^T + std^2 (I - axes axes^T)): wide along some directions.

    mean: of a sample's shape.  axes (d, r), orthonormal columns, of r <= d directions of the d
    coordinates in their order.  along (r,): standard deviations there; ``std`` elsewhere.
    """

    std: float | Tensor = 1.0
    mean: float | Tensor = 0.0
    axes: Tensor = field(default_factory=lambda: torch.zeros(1, 0, dtype=torch.float64))
    along: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (d,), axes and their standard deviations as states x (b, *) are; ValueError for
        states of another shape."""
        mean = torch.as_tensor(self.mean)
        if x.shape[1:] != mean.shape:
            raise ValueError(
                f"This prior was fitted to samples of shape {tuple(mean.shape)}, but states are "
                f"of {tuple(x.shape[1:])}."
            )
        mean, axes, along = (each.to(x) for each in (mean, self.axes, self.along))
        return mean.flatten(), axes, along

    def sample(self, z: Tensor) -> Tensor:
        """Standard normal draws z (b, *) turned into draws from the prior."""
        mean, axes, along = self.parts(z)
        flat = z.reshape(len(z), -1)
        x = mean + self.std * flat + ((flat @ axes) * (along - self.std)) @ axes.T
        return x.view_as(z)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of each sample of x (b, *), shape (b,)."""
        return -0.5 * (
            self.distance(x) + self.log_volume(x) + x[0].numel() * math.log(2 * math.pi)
        )

    def kl_from(self, mean: Tensor, std: Tensor) -> Tensor:
        """KL of N(mean, std^2 I) from the prior for each mean (b, *), std (), nats, (b,)."""
        along = self.parts(mean)[2]
        d = mean[0].numel()
        trace = (along**-2).sum() + (d - len(along)) / self.std**2
        v = torch.as_tensor(std).to(mean) ** 2
        return 0.5 * (v * trace + self.distance(mean) - d + self.log_volume(mean) - d * v.log())

    def distance(self, x: Tensor) -> Tensor:
        """Mahalanobis' square of states x (b, *), (b,)."""
        mean, axes, along = self.parts(x)
        off = x.reshape(len(x), -1) - mean
        y = off @ axes
        rest = (off - y @ axes.T).square().sum(1) / self.std**2
        return rest + (y / along).square().sum(1)

    def log_volume(self, x: Tensor) -> Tensor:
        """The logarithm of the covariance's determinant, ()."""
        _, _, along = self.parts(x)
        rest = x[0].numel() - len(along)
        return 2 * along.log().sum() + (2 * rest * math.log(self.std) if rest else 0.0)

    def like(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each coordinate as states x (b, *) are."""
        mean, axes, along = self.parts(x)
        var = self.std**2 + (axes**2 * (along**2 - self.std**2)).sum(1)
        shape = x.shape[1:]
        return mean.view(shape).expand_as(x), var.sqrt().view(shape).expand_as(x)


@dataclass(frozen=True)
class TruncatedSDE(LinearSDE):
    """A linear SDE on [t_min, T*] alone, with a prior of its own at T*; see ``truncated``.
    Zheng et al. (2023b).

    Two are equal where SDE and T are: states are then the same, whatever sampling begins with.
    """

    sde: LinearSDE
    T: float  # type: ignore[misc]
    start: Prior = field(compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.sde, nn.Module) or has_coordinates(self.sde) or self.sde.conditions:
            raise ValueError(
                f"{type(self.sde).__name__} is not truncated: that is for a fixed SDE of one "
                "level for all coordinates, as VPSDE."
            )
        if not self.sde.t_min < number("T", self.T) <= self.sde.T:
            raise ValueError(
                f"A truncated SDE ends within ({self.sde.t_min:g}, {self.sde.T:g}], the times of "
                f"{type(self.sde).__name__}, not at {self.T!r}."
            )

    @property
    def t_min(self) -> float:  # type: ignore[override]
        """The SDE's."""
        return self.sde.t_min

    def __call__(self, t: Tensor | float) -> Level:
        """The SDE's level at time t."""
        return self.sde(t)

    def time(self, lam: Tensor) -> Tensor:
        """The SDE's time at a lam."""
        return self.sde.time(lam)

    @property
    def prior(self) -> Prior:
        """What sampling starts from at T*."""
        return self.start


def truncated(sde: LinearSDE, x0: Tensor, T: float, rank: int | None = None) -> TruncatedSDE:
    """The SDE up to T, and there the Gaussian with the moments that noised data x0 (n, *) have.

    rank: of the data's covariance: their widest ``rank`` directions, and one variance in all
          others, the mean of theirs.  None: all d directions.

    Of Gaussian data it is exact at any T; of others the error in law is that of one Gaussian, the
    less the nearer T is to the SDE's. ValueError for T outside (t_min, T of the SDE], for one
    sample, a rank outside [1, d], and SDEs that ``TruncatedSDE`` refuses.
    """
    if not x0.is_floating_point() or x0.ndim < 2 or len(x0) < 2 or not bool(x0.isfinite().all()):
        raise ValueError(
            "A prior is fitted to finite floating-point data (n, *), n >= 2, but these are "
            f"{x0.dtype} of shape {tuple(x0.shape)}{'' if x0.numel() else ', empty'}."
        )
    end = TruncatedSDE(sde, T, Prior())  # refuses before anything is computed
    flat = x0.detach().cpu().double().flatten(1)
    n, d = flat.shape
    mean = flat.mean(0)
    r = min(n, d) if rank is None else whole("rank", rank)
    if r > d:
        raise ValueError(f"rank is of {d} coordinates, at most as many, but it is {r}.")
    # Along what the data do not reach, where n < d, they have no variance.
    r = min(r, n)
    axes, var = widest((flat - mean) / math.sqrt(n), r)
    level = end(T)
    a, v = float(level.alpha) ** 2, float(level.sigma) ** 2
    rest = float(var[r:].sum()) / (d - r) if r < d else 0.0
    prior = GaussianPrior(
        std=math.sqrt(a * rest + v),
        mean=(math.sqrt(a) * mean).view(x0.shape[1:]),
        axes=axes,
        along=(a * var[:r] + v).sqrt(),
    )
    return TruncatedSDE(sde, T, prior)


def widest(x: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """The ``r`` directions (d, r) along which x^T x is largest, of x (n, d), and what it is along
    all that x reaches, falling, (min(n, d),).

    By the smaller of x^T x and x x^T, whose eigenvalues are the same. (What is lost of them is
    within rounding of the largest; directions made of eigenvectors of the other are made
    orthonormal, which those of small eigenvalues are not.)
    """
    wide = x.shape[0] < x.shape[1]
    var, u = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    u = u.flip(1)[:, :r].contiguous()
    axes: Tensor = torch.linalg.qr(x.T @ u).Q if wide else u
    return axes, var.flip(0).clamp(min=0)

"""Probabilistic PCA as an autoencoder: everything that a latent model bounds, in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class PPCA:
    """x = W z + mu + s e, z ~ N(m, v), with orthogonal columns of W.  Tipping & Bishop (1999).

    So q(z | x) is the true posterior, and factorises:  its precision is 1/v + |w|^2 / s^2.
    """

    def __init__(self, d: int, k: int, s: float = 0.3) -> None:
        draw = torch.Generator().manual_seed(0)
        axes = torch.linalg.qr(torch.randn(d, d, generator=draw, dtype=torch.float64)).Q[:, :k]
        self.w = axes * torch.linspace(0.5, 2.0, k, dtype=torch.float64)
        self.mu = torch.randn(d, generator=draw, dtype=torch.float64)
        self.m = torch.linspace(-1.0, 2.0, k, dtype=torch.float64)
        self.v = torch.linspace(0.2, 3.0, k, dtype=torch.float64)
        self.log_noise = torch.tensor(math.log(s), dtype=torch.float64)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        s2 = (2 * self.log_noise).exp()
        var = 1 / (1 / self.v + (self.w**2).sum(0) / s2)
        mean = var * (self.m / self.v + (x - self.mu) @ self.w / s2)
        return mean, var.sqrt().expand_as(mean)

    def decode(self, z: Tensor) -> Tensor:
        return z @ self.w.T + self.mu

    def sample(self, n: int) -> Tensor:
        z = self.m + self.v.sqrt() * torch.randn(n, len(self.m), dtype=torch.float64)
        noise = torch.randn(n, len(self.mu), dtype=torch.float64)
        return self.decode(z) + self.log_noise.exp() * noise

    def log_prob(self, x: Tensor) -> Tensor:
        cov = self.w @ torch.diag(self.v) @ self.w.T
        cov = cov + (2 * self.log_noise).exp() * torch.eye(len(self.mu), dtype=torch.float64)
        mean = self.decode(self.m)
        return torch.distributions.MultivariateNormal(mean, cov).log_prob(x)

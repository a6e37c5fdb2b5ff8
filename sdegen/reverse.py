"""The equation that solvers integrate: an SDE, its score model, an eta and a source of noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor, sqrt

from sdegen.noise import Fresh, Noise
from sdegen.score import Prediction, ScoreModel
from sdegen.sde import SDE, Instant, Level, expand


@dataclass(frozen=True)
class Reverse:
    """dx = [ f x - (1 + eta^2)/2 g^2 score ] dt + eta g dw, time running down.

    Every eta has the same marginals: eta = 1 is Anderson's reverse SDE, Song et al. (2021) eq. 6;
    eta = 0 the probability-flow ODE, eq. 13. ValueError for an eta that is not a number >= 0.
    """

    model: ScoreModel
    eta: float = 0.0
    noise: Noise = field(default_factory=Fresh)

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta must be a number >= 0, but it is {self.eta!r}.")

    @property
    def sde(self) -> SDE:
        """The forward process."""
        return self.model.sde

    def drift(self, x: Tensor, t: Instant) -> Tensor:
        """The factor of dt at state x (b, *): one network call."""
        drift: Tensor = self.model(x, t).drift(self.eta)
        return drift

    def diffusion(self, x: Tensor, t: Instant) -> Tensor:
        """The factor of dw, eta g: see ``SDE.diffusion`` for its shapes."""
        return self.eta * self.sde.diffusion(x, t.t)

    def shock(self, x: Tensor, t: Instant, s: Instant) -> Tensor | float:
        """The Brownian part of an Euler step from t down to s: eta g sqrt(t - s) z."""
        if self.eta == 0:
            return 0.0
        G, root = self.diffusion(x, t), sqrt(t.t - s.t)
        if not self.sde.matrix:
            return G * expand(root, x) * self.noise(x, t, s)
        z = self.noise(x.new_empty(*x.shape[:-1], G.shape[-1]), t, s)
        return expand(root, x) * (G @ z.unsqueeze(-1)).squeeze(-1)


def renoise(
    p: Prediction, s: Level, keep: Tensor | float, z: Tensor | float, std: Tensor | float = 0.0
) -> Tensor:
    """Denoise, then noise again to level s, keeping a part of the noise there was.

    x_s = alpha_s x0 + sigma_s keep eps + std z.  keep = 1 is DDIM, e^-h is DDPM; the marginals
    stay exact when std = sigma_s sqrt(1 - keep^2).  Song, Meng & Ermon (2021), eq. 12.
    """
    x_s = p.view(s.alpha, s.sigma * keep)  # type: ignore[attr-defined]
    return x_s + expand(std, x_s) * z

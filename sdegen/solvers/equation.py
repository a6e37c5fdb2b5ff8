"""The equation that solvers integrate: an SDE, its score model, an eta and a source of noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from numbers import Real

import torch
from torch import Tensor, sqrt

from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.model.prediction import LinearPrediction, Prediction
from sdegen.noise.source import Fresh, Noise, check_noise
from sdegen.sde.level import NO_SIGNAL, Instant, Level, expand, with_marginals
from sdegen.sde.process import SDE, diffusion_of, linear
from sdegen.solvers.quadrature import integrate

MOST = 1e6
"""The largest eta, whose square has its place among float64's numbers."""

Eta = float | Callable[[Tensor], Tensor] | Sequence[float]


@dataclass(frozen=True)
class Reverse:
    """dx = [ f x - (1 + eta^2)/2 g^2 score ] dt + eta g dw, time running down.

    Every eta has the same marginals: eta = 1 is Anderson's reverse SDE, Song et al. (2021) eq. 6;
    eta = 0 the probability-flow ODE, eq. 13. So it is for a true score alone: a guided one is that
    of no density for all t, and each eta ends elsewhere. Of N(0, v) and N(0, V) with the scale s
    the flow ends with the variance v^s V^(1-s) (docs/guidance.md).

    eta is a number, a function of lam = log(alpha/sigma) (float64, elementwise), or one number per
    step of the walk. left: how many steps of the walk follow the one that is taken; None where
    nobody knows. ValueError for an eta that is not >= 0, and for a function where the SDE has no
    lam.
    """

    model: Denoiser
    eta: Eta = 0.0
    noise: Noise = field(default_factory=Fresh)
    left: int | None = None

    def __post_init__(self) -> None:
        check_noise(self.noise)
        if hasattr(self.eta, "tolist"):  # an array or a tensor, of one number or one per step
            object.__setattr__(self, "eta", self.eta.tolist())
        if self.noisy:
            refuse_flow_only(self.model, f"eta = {self.eta!r}")
        if callable(self.eta):
            sde = linear(self.sde, "An eta that is a function of lam", "give a number")
            outer = torch.stack([sde(sde.T).lam.min(), sde(sde.t_min).lam.max()])
            first, last = outer.tolist()
            ends = max(first, NO_SIGNAL), min(last, -NO_SIGNAL)
            lam = torch.linspace(*ends, 33, dtype=torch.float64)
            etas = self.eta_of(lam).tolist()
            if not all(0 <= eta < math.inf for eta in etas):
                raise ValueError(
                    "eta must be >= 0 wherever the SDE goes, but this function of lam has values "
                    f"from {min(etas):g} to {max(etas):g}."
                )
            return
        listed = isinstance(self.eta, Sequence) and not isinstance(self.eta, str)
        for each in self.eta if listed else [self.eta]:  # type: ignore[union-attr]
            if not isinstance(each, Real) or not 0 <= float(each) <= MOST:
                raise ValueError(f"eta must be a number >= 0, up to {MOST:g}, but it is {each!r}.")

    @property
    def sde(self) -> SDE:
        """The forward process."""
        return self.model.sde

    @property
    def noisy(self) -> bool:
        """False for the probability-flow ODE."""
        return callable(self.eta) or self.eta != 0

    def each(self, n: int) -> list[Reverse]:
        """The equation of each of n steps, which knows how many are left."""
        listed = isinstance(self.eta, Sequence)
        if listed and len(self.eta) != n:  # type: ignore[arg-type]
            raise ValueError(f"{len(self.eta)} values of eta were given for {n} steps.")  # type: ignore[arg-type]
        equations = [copy(self) for _ in range(n)]  # not made anew: eta has been looked at
        for k, p in enumerate(equations):
            object.__setattr__(p, "left", n - 1 - k)
            if listed:
                object.__setattr__(p, "eta", float(self.eta[k]))  # type: ignore[index]
        return equations

    def take(self, index: Tensor) -> Reverse:
        """The equation of some samples of the batch alone, by their places (k,)."""
        noise = self.noise.take(index) if self.noisy else self.noise
        if not torch.is_inference_mode_enabled():
            return replace(self, model=self.model.take(index), noise=noise)
        # What a model cuts of its own is no tensor of inference mode, which no gradient takes.
        with torch.inference_mode(False), torch.no_grad():
            return replace(self, model=self.model.take(index.clone()), noise=noise)

    def eta_at(self, t: Instant) -> Tensor | float:
        """eta at a level."""
        return self.eta_of(with_marginals(t).lam) if callable(self.eta) else self.eta  # type: ignore[return-value]

    def eta2(self, lam: Tensor) -> Tensor | float:
        """eta^2 at every lam, of its shape, or the number that it is everywhere."""
        return self.eta_of(lam).square() if callable(self.eta) else self.eta**2  # type: ignore[operator]

    def eta_of(self, lam: Tensor) -> Tensor:
        """eta at every lam, of its shape."""
        if not callable(self.eta):
            return torch.as_tensor(self.eta, dtype=lam.dtype).expand(lam.shape)
        try:
            return torch.as_tensor(self.eta(lam), dtype=lam.dtype).expand(lam.shape)
        except (TypeError, RuntimeError) as error:
            raise ValueError(
                "eta as a function is called with lam, a tensor, and gives numbers >= 0 of its "
                f"shape, but it failed: {error}"
            ) from error

    def decay(self, t: Tensor, s: Tensor) -> Tensor:
        """INT eta^2 d lam from lam = t to lam = s, () or any shape."""
        if callable(self.eta):
            return integrate(lambda lam: self.eta_of(lam).square(), t, s)
        # Without noise nothing decays, from lam = -inf (pure noise) neither.
        return self.eta**2 * (s - t) if self.eta else 0 * s  # type: ignore[operator]

    def drift(self, x: Tensor, t: Instant) -> Tensor:
        """The factor of dt at state x (b, *): one network call."""
        drift: Tensor = self.model(x, t).drift(self.eta_at(t))
        return drift

    def diffusion(self, x: Tensor, t: Instant) -> Tensor:
        """The factor of dw, eta g: see ``SDE.diffusion`` for its shapes."""
        return expand(self.eta_at(t), x) * diffusion_of(self.sde, x, t.t)

    def shock(self, x: Tensor, t: Instant, s: Instant) -> Tensor | float:
        """The Brownian part of an Euler step from t down to s: eta g sqrt(t - s) z."""
        if not self.noisy:
            return 0.0
        return self.push(x, self.diffusion(x, t), sqrt(t.t - s.t), self.draw(x, t, s))

    def draw(self, x: Tensor, t: Instant, s: Instant, area: bool = False) -> Tensor:
        """The noise of a step, (b, *, m) for matrices (d, m), otherwise like x; or its area."""
        like = self.noise_like(x, t)
        return self.noise.area(like, t, s) if area else self.noise(like, t, s)

    def noise_like(self, x: Tensor, t: Instant) -> Tensor:
        """A tensor of the noise's shape, its values of no meaning."""
        if not self.sde.matrix:
            return x
        return x.new_empty(*x.shape[:-1], self.sde.diffusion(x, t.t).shape[-1])

    def push(self, x: Tensor, G: Tensor, c: Tensor, z: Tensor) -> Tensor:
        """c G z, for a diffusion G of any kind."""
        if self.sde.matrix:
            return expand(c, x) * (G @ z.unsqueeze(-1)).squeeze(-1)
        return G * expand(c, x) * z


def renoise(
    p: Prediction, s: Level, keep: Tensor | float, z: Tensor | float, std: Tensor | float = 0.0
) -> Tensor:
    """Denoise, then noise again to level s, keeping a part of the noise there was.

    x_s = alpha_s x0 + sigma_s keep eps + std z.  keep = 1 is DDIM, e^-h is DDPM; the marginals
    stay exact when std = sigma_s sqrt(1 - keep^2).  Song, Meng & Ermon (2021), eq. 12.
    """
    assert isinstance(p, LinearPrediction)
    x_s = p.view(s.alpha, s.sigma * keep)
    return x_s + expand(std, x_s) * z


def arrive(p: Reverse, x: Tensor, t: Instant, s: Level) -> Tensor:
    """A step to a level without noise, alpha_s E[x0 | x_t].

    There lam is infinite and what an exponential integrator takes for a constant has the whole
    weight: every method's step of order 1, with any eta, has this limit. A polynomial in lam has
    none, so a higher order ends with this step too, as EDM's Heun (Karras et al. 2022, alg. 1).
    """
    return p.model(x, t).view(s.alpha, 0.0 * s.alpha)  # type: ignore[attr-defined]


def climb(p: Reverse, x: Tensor, t: Level, s: Level) -> Tensor:
    """The forward SDE from t up to a noisier s: x_s = a x + sqrt(sigma_s^2 - a^2 sigma_t^2) z.

    a = alpha_s / alpha_t, exact for a step of any size.  The noise is the source's stream "climb".
    """
    a = s.alpha / t.alpha
    std = sqrt(s.sigma**2 - (a * t.sigma) ** 2)
    return expand(a, x) * x + expand(std, x) * p.noise.stream("climb")(x, t, s)

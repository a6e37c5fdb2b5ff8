"""Solvers of the reverse SDE: drift-based ones, Song et al.'s predictors, DDPM and DDIM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, expm1, sqrt

from sdegen.checks import number, whole
from sdegen.sde.level import Instant, Level, expand
from sdegen.solvers.equation import Reverse, renoise
from sdegen.solvers.solver import Preset, Solver, Step
from sdegen.solvers.traits import Traits


@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """x + drift dt + eta g sqrt|dt| z, on any SDE.  Song et al. (2021), app. G."""

    eta = 1.0
    traits = Traits(order=1, any_eta=True)
    presets: ClassVar = {"euler_maruyama": Preset({}, "Song et al. (2021), app. G")}

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """One step, with the dt really taken in both terms."""
        return Step(x + p.drift(x, t) * expand(s.t - t.t, x) + p.shock(x, t, s))


def heun_pair(
    p: Reverse, x: Tensor, t: Instant, s: Instant, drift: Tensor
) -> tuple[Tensor, Tensor]:
    """Euler-Maruyama from the drift at t, and its mean with a second one from where it ended."""
    dt, z = expand(s.t - t.t, x), p.draw(x, t, s) if p.noisy else None

    def shock(at: Instant) -> Tensor | float:
        return 0.0 if z is None else p.push(x, p.diffusion(x, at), sqrt(t.t - s.t), z)

    once = x + drift * dt + shock(t)
    again = x + p.drift(once, s) * dt + shock(s)
    return once, (once + again) / 2


@dataclass(frozen=True)
class StochasticHeun(Solver):
    """The trapezoidal rule with one noise in both stages, on any SDE.  Ruemelin (1982).

    x' = x + a_t dt + G_t dw,  x_s = x + (a_t + a_s(x')) dt / 2 + (G_t + G_s) dw / 2. For additive
    noise its law is of order 2, its path of order 1. eta = 0: Heun.
    """

    eta = 1.0
    traits = Traits(order=2, weak=2, calls=2, any_eta=True)
    presets: ClassVar = {
        "stochastic_heun": Preset({}, "Ruemelin (1982); Jolicoeur-Martineau et al. (2021), alg. 1")
    }

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """One step."""
        return Step(heun_pair(p, x, t, s, p.drift(x, t))[1])


@dataclass(frozen=True)
class SRA1(Solver):
    """A stochastic Runge-Kutta method of strong order 3/2 for additive noise, on any SDE.

    With h = t - s, I = INT dw and J = INT INT dw over the step (see ``Noise.area``):

    x' = x + 3/4 h a_t + 3/2 G_s J / h
    x_s = x + h (a_t + 2 a(x', t - 3/4 h)) / 3 + G_s I + (G_t - G_s) J / h

    Roessler (2010), SRA1. It needs the step's area: two normals a step.
    """

    eta = 1.0
    traits = Traits(order=2, weak=2, strong=1.5, calls=2, any_eta=True)
    presets: ClassVar = {"sra1": Preset({}, "SRA1, Roessler (2010)")}

    def step(self, p: Reverse, x: Tensor, t: Instant, s: Instant, memory: Any = None) -> Step:
        """One step."""
        h = t.t - s.t
        dt, inner = expand(h, x), p.sde(t.t - 3 / 4 * h)
        a_t = -p.drift(x, t)
        if not p.noisy:
            a_m = -p.drift(x + 3 / 4 * dt * a_t, inner)
            return Step(x + dt * (a_t + 2 * a_m) / 3)
        z = p.draw(x, t, s)
        J = (z + p.draw(x, t, s, area=True) / 3**0.5) / 2  # times h^(3/2)
        G_t, G_s, root = p.diffusion(x, t), p.diffusion(x, s), sqrt(h)
        a_m = -p.drift(x + 3 / 4 * dt * a_t + 3 / 2 * p.push(x, G_s, root, J), inner)
        noise = p.push(x, G_s, root, z - J) + p.push(x, G_t, root, J)
        return Step(x + dt * (a_t + 2 * a_m) / 3 + noise)


@dataclass(frozen=True)
class ReverseDiffusion(Solver):
    """The forward kernel's own discretisation, reversed.  Song et al. (2021), eqs. 46-47.

    With x_t = a x_s + b z the kernel from s up to t, the step down is

    (2 - a) x + (1 + eta^2)/2 b^2 score + eta b z

    For VP, a^2 = 1 - beta_i and b^2 = beta_i; for VE, a = 1 and b^2 = sigma_i^2 - sigma_{i-1}^2.
    """

    eta = 1.0
    traits = Traits(order=1, any_eta=True, needs_marginals=True)
    presets: ClassVar = {"reverse_diffusion": Preset({}, "Song et al. (2021), eqs. 46-47")}

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step."""
        a = t.alpha / s.alpha
        b2 = t.sigma**2 - (a * s.sigma) ** 2
        eta = p.eta_at(t)
        x_s = expand(2 - a, x) * x + expand((1 + eta**2) / 2 * b2, x) * p.model(x, t).score
        return Step(x_s + expand(eta * sqrt(b2), x) * p.noise(x, t, s) if p.noisy else x_s)


@dataclass(frozen=True)
class Ancestral(Solver):
    """The Gaussian posterior of x_s given x_t and x0.  Ho et al. (2020), eqs. 7 and 11.

    variance: "small" is the posterior's own (beta-tilde), "large" that of the forward kernel from
    s up to t (beta). Song et al. (2021), app. F: large is their ancestral predictor for VP, small
    the one for VE.
    """

    variance: Literal["small", "large"] = "small"
    eta = 1.0
    traits = Traits(order=1, needs_marginals=True)
    presets: ClassVar = {
        "ddpm": Preset({"variance": "small"}, "DDPM, Ho et al. (2020), eq. 7, small variance"),
        "ddpm_large": Preset({"variance": "large"}, "DDPM, Ho et al. (2020), large variance"),
    }

    def __post_init__(self) -> None:
        if self.variance not in ("small", "large"):
            raise ValueError(f"variance must be 'small' or 'large', but it is {self.variance!r}.")

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step."""
        keep = (t.alpha * s.sigma) / (s.alpha * t.sigma)
        var = t.sigma**2 - (t.alpha / s.alpha * s.sigma) ** 2
        if self.variance == "small":
            var = var * (s.sigma / t.sigma) ** 2
        return Step(renoise(p.model(x, t), s, keep, p.noise(x, t, s), sqrt(var)))


@dataclass(frozen=True)
class DDIM(Solver):
    """Song, Meng & Ermon (2021), eq. 12, on every linear SDE.

    eta = 0 is deterministic (DPM-Solver-1, exponential Euler), eta = 1 is DDPM with the small
    variance. The noise kept over a step h in lambda is  keep^2 = 1 - eta^2 (1 - e^{-2h}).
    """

    eta: float = 0.0
    traits = Traits(order=1, needs_marginals=True)
    presets: ClassVar = {
        "ddim": Preset({}, "DDIM, Song, Meng & Ermon (2021), eq. 12"),
        "ddim_half": Preset({"eta": 0.5}, "DDIM with eta = 1/2, eq. 12"),
        "ddim_one": Preset({"eta": 1.0}, "DDIM with eta = 1 (DDPM, small variance), eq. 12"),
    }

    def __post_init__(self) -> None:
        if not 0 <= number("DDIM's eta", self.eta) <= 1:
            raise ValueError(f"DDIM's eta lies in [0, 1], but it is {self.eta!r}.")

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step."""
        if self.eta == 0:
            return Step(renoise(p.model(x, t), s, 1.0, 0.0))
        fresh = self.eta**2 * -expm1(2 * (t.lam - s.lam))
        z = p.noise(x, t, s)
        return Step(renoise(p.model(x, t), s, sqrt(1 - fresh), z, s.sigma * sqrt(fresh)))


@dataclass(frozen=True)
class QuasiTaylor(Solver):
    """DDIM's step as a Taylor polynomial in h: the flow's derivatives as if data were one point.
    Tachibana et al. (2021).

        x_s = alpha_t sigma_s / sigma_t (1 + h + ... + h^p / p!) x0 + sigma_s eps

    It is off from DDIM by O(h^(p + 1)) a step, and gains nothing over it: of order 1 for any p.
    """

    p: int = 2
    traits = Traits(order=1, needs_marginals=True)
    presets: ClassVar = {}  # DDIM is what it comes close to

    def __post_init__(self) -> None:
        whole("QuasiTaylor's p", self.p)

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step."""
        h: Tensor = s.lam - t.lam
        grown = 1 + 0 * h
        for k in range(self.p, 0, -1):
            grown = 1 + h / k * grown
        return Step(p.model(x, t).view(t.alpha * s.sigma / t.sigma * grown, s.sigma))

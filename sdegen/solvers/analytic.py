"""DDPM and DDIM with the variance that is best for the data.  Bao et al. (2022), Analytic-DPM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, expm1, sqrt

from sdegen.checks import number
from sdegen.model.denoiser import Denoiser, refuse_flow_only
from sdegen.noise.source import Seeded
from sdegen.sde.level import Level, float64_time
from sdegen.sde.process import SDE, has_coordinates, linear
from sdegen.solvers.equation import Reverse, renoise
from sdegen.solvers.solver import Solver, Step
from sdegen.solvers.traits import Traits


@dataclass(frozen=True)
class AnalyticDPM(Solver):
    """A step's Gaussian as close as one can be to the true reverse kernel, in KL divergence.

        x_s = keep part of DDIM(eta) + sqrt(fresh sigma_s^2 + w^2 V) z

    w is the weight of x0 in the step's mean, and V, the mean over coordinates of Var[x0 | x_t], is
    what DDPM's two variances guess. Bao et al. (2022), thm. 1 and eq. 8. ``analytic_dpm`` measures
    V; between the lams that it knows, V (1 + rho^-2) is linear: of the order of one at both ends.

    mean_eta: of the DDIM whose mean it has: 1, Analytic-DDPM, to 0, Analytic-DDIM, which draws
    noise too.  ValueError for lams that do not rise, values below 0 and another mean_eta.
    """

    lams: tuple[float, ...]
    values: tuple[float, ...]
    """V (1 + rho^-2) at each."""
    mean_eta: float = 1.0
    eta = 1.0
    traits = Traits(order=1, needs_marginals=True)
    presets: ClassVar = {}

    def __post_init__(self) -> None:
        if not 0 <= number("mean_eta", self.mean_eta) <= 1:
            raise ValueError(f"mean_eta lies in [0, 1], but it is {self.mean_eta!r}.")
        rising = all(a < b for a, b in zip(self.lams, self.lams[1:], strict=False))
        if len(self.lams) != len(self.values) or not self.lams or not rising:
            raise ValueError("AnalyticDPM takes a value for each of some lams, which rise.")
        if not all(value >= 0 for value in self.values):
            raise ValueError(f"AnalyticDPM's values are variances, but one is {min(self.values)}.")

    def check(self, p: Reverse) -> None:
        """Refuse levels that differ between coordinates."""
        check_one_level(p.sde)

    def step(self, p: Reverse, x: Tensor, t: Level, s: Level, memory: Any = None) -> Step:
        """One step."""
        shorter = t.lam - s.lam
        fresh = self.mean_eta**2 * -expm1(2 * shorter)
        keep = sqrt(1 - fresh)
        w = s.alpha - keep * s.sigma * t.alpha / t.sigma
        V = float(np.interp(float(t.lam), self.lams, self.values)) / (1 + t.rho**-2)
        std = sqrt(s.sigma**2 * fresh + w**2 * V)
        return Step(renoise(p.model(x, t), s, keep, p.noise(x, t, s), std))


def check_one_level(sde: SDE) -> None:
    """Refuse an SDE whose levels differ between coordinates."""
    if has_coordinates(sde):
        raise ValueError(
            "AnalyticDPM knows one variance at one lam, but levels of "
            f"{type(sde).__name__} differ between coordinates: use Ancestral or DDIM."
        )


@torch.no_grad()
def analytic_dpm(
    model: Denoiser,
    x0: Tensor,
    *,
    levels: int = 64,
    mean_eta: float = 1.0,
    seed: int | Sequence[int] = 0,
) -> AnalyticDPM:
    """The solver for a model, its variances measured on data x0 (b, *): one call a level.

    V is measured as the denoiser's mean square error, which it is where the score is exact, and
    which is best for the step where it is not. (Bao et al. take 1 - E |eps_hat|^2 / d for
    V / rho^2: where there is much noise, a small difference of large numbers.) At equal steps in
    lam from T to t_min, noise from ``seed``. ValueError for an SDE without marginals.
    """
    check_one_level(model.sde)
    refuse_flow_only(model, "analytic_dpm")
    sde = linear(model.sde, "Analytic-DPM", "use EulerMaruyama")
    first, last = sde(float64_time(sde.T)).lam, sde(float64_time(sde.t_min)).lam
    x0, noise, values = x0.to(model.device), Seeded(seed), []
    lams = torch.lerp(first, last, torch.linspace(0, 1, levels, dtype=torch.float64))
    for lam in lams:
        level = sde(sde.time(lam).clamp(sde.t_min, sde.T))
        off = model(sde.mix(x0, level, noise(x0, level, level)), level).x0 - x0
        values.append(float(off.double().square().mean() * (1 + level.rho**-2)))
    return AnalyticDPM(tuple(lams.tolist()), tuple(values), mean_eta)

"""What the tests share: SDEs, problems whose score is known, an independent solution, tools."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen import walks
from sdegen.exact.distributions import Mixture
from sdegen.noise.source import Noise
from sdegen.walks.grids import Grid

ROOT = Path(__file__).parents[1]


def cosh_curve(t: Tensor) -> tuple[Tensor, Tensor]:
    """Marginals that belong to no built-in SDE."""
    return 1 / torch.cosh(2 * t), torch.sqrt(t) * (1 + t)


with warnings.catch_warnings():
    # torch's forward-mode differentiation calls its own deprecated jit the first time.
    warnings.simplefilter("ignore", DeprecationWarning)
    BY_CURVES = sg.MarginalSDE(cosh_curve, T=3.0, t_min=1e-4)

SDES: dict[str, sg.LinearSDE] = {
    "vp": sg.VPSDE(),
    "subvp": sg.SubVPSDE(),
    "ve": sg.VESDE(),
    "cosine": sg.CosineSDE(),
    "edm": sg.EDMSDE(),
    "flow": sg.FlowSDE(),
    "marginal": BY_CURVES,
}
"""The smooth linear SDEs."""

EVERY: dict[str, sg.LinearSDE] = {**SDES, "discrete": sg.DiscreteVPSDE()}
"""The discrete one too, whose f and g jump from step to step."""

MIXTURE = Mixture(
    means=[[-1.0, 0.3], [0.8, -0.6], [0.3, 1.0]], stds=[0.5, 0.4, 0.6], weights=[0.3, 0.45, 0.25]
)
"""Mild: its modes overlap, so that convergence is seen from a few dozen steps on."""

EVERY_SOLVER: dict[str, sg.Solver] = {
    name: e.build() for name, e in sg.solvers.catalogue().items()
}
"""Every solver that the package has, found as its users find it."""

FIXED: dict[str, sg.Solver] = {
    **{
        name: solver
        for name, solver in EVERY_SOLVER.items()
        if not solver.traits.adaptive
        and "backends" not in type(solver).__module__
        and name != "song_pc"  # which couples samples, as its authors' code does
    },
    "pc_heun": sg.PredictorCorrector(sg.Heun(), sg.Langevin(0.1), n=2),
    "multistep_t_eps": sg.Multistep(2, prediction="eps", clock="t", corrector=3),
}
"""Our own that step from level to level without choosing their own steps, and combinations."""

TIGHT = [
    sg.AdaptiveRK(rtol=1e-7, atol=1e-9, per_sample=True),
    sg.solvers.AdaptiveDPM(rtol=1e-5, atol=1e-7, per_sample=True),
    sg.solvers.AdaptiveMultistep(rtol=1e-7, atol=1e-9, per_sample=True),
    sg.solvers.SciPy(rtol=1e-7, atol=1e-9),
]
"""Adaptive ones that give each sample steps of its own, near the exact flow."""

OWN_SCALE = (
    sg.solvers.ReverseDiffusion,
    sg.solvers.PredictorCorrector,
)
"""Solvers whose steps know alpha and sigma themselves, not their ratio alone."""


def works_in_time(solver: sg.Solver) -> bool:
    """Whether its samples depend on the SDE's clock or scale, and not on the walk's lam alone.

    Every other solver that needs alpha and sigma gives the same x / alpha on every linear SDE
    (test_invariance), so that what is measured on one SDE is known on all.
    """
    in_t = not solver.traits.needs_marginals or getattr(solver, "clock", "lam") == "t"
    large = getattr(solver, "variance", "small") == "large"  # DDPM's beta, which is not exact
    return in_t or large or isinstance(solver, OWN_SCALE)


sdes = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
CLOSED = {name: sde for name, sde in SDES.items() if name != "marginal"}
closed_form = pytest.mark.parametrize("sde", CLOSED.values(), ids=CLOSED)
"""Without the one of two curves, which is a level as any other's, only made slowly."""
every_sde = pytest.mark.parametrize("sde", EVERY.values(), ids=EVERY)
fixed_solvers = pytest.mark.parametrize("solver", FIXED.values(), ids=FIXED)

BROAD = ("stochastic_heun", "unipc", "singlestep_f")
"""Three of different kinds: with noise and in t; in lam with memory; in lam with stages."""


def measured(solvers: Mapping[str, sg.Solver]) -> pytest.MarkDecorator:
    """The name of every solver with those of the SDEs on which its order is measured.

    Every solver on VP, and three on every SDE; the rest is slow.
    """
    every = {
        name: list(SDES) if works_in_time(solver) else ["vp"] for name, solver in solvers.items()
    }
    return pytest.mark.parametrize(
        ("name", "on"),
        [
            pytest.param(name, on, marks=() if on == "vp" or name in BROAD else pytest.mark.slow)
            for name, names in every.items()
            for on in names
        ],
    )


def summed(
    solvers: Mapping[str, sg.Solver], on: Mapping[str, sg.LinearSDE], three: Sequence[str] = BROAD
) -> pytest.MarkDecorator:
    """Every solver on VP and three on every SDE: a sum; the rest of their product is slow."""
    names = [(name, sde) for name in solvers for sde in on]
    return pytest.mark.parametrize(
        ("solver", "sde"),
        [
            pytest.param(
                solvers[name],
                on[sde],
                id=f"{name}-{sde}",
                marks=() if sde == "vp" or name in three else pytest.mark.slow,
            )
            for name, sde in names
        ],
    )


CLIMBING: dict[str, walks.Climb] = {
    "ancestral": walks.ancestral,
    "ancestral_half": partial(walks.ancestral, eta=0.5),
    "ancestral_two": partial(walks.ancestral, eta=2.0),
    "churn": partial(walks.churn, S_churn=3.0),
    "churn_hop": partial(walks.churn, S_churn=3.0, S_min=0.1, hop=True),
    "restart": partial(walks.restart, intervals=[(0.1, 0.6, 2, 3), (0.03, 0.2, 1, 2)]),
    "repaint": partial(walks.repaint, jump_length=3, resamplings=3),
}
"""Every way to climb, with settings that climb often."""
climbing = pytest.mark.parametrize("by", CLIMBING.values(), ids=CLIMBING)


def refused(message: str) -> pytest.RaisesExc[ValueError]:
    """A ValueError whose message has these words (a regular expression)."""
    return pytest.raises(ValueError, match=message)


def refused_with(words: str) -> pytest.RaisesExc[ValueError]:
    """A ValueError whose message has these words as they stand."""
    return refused(re.escape(words))


def close(a: object, b: object, rtol: float = 1e-12, atol: float = 0.0) -> None:
    """Equal to rounding, unless told otherwise."""
    a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (a, b))
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal draws that are the same in every run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def awake(net: torch.nn.Module, by: float = 0.2) -> Any:
    """The network in float64, at rest, with all its parameters moved off zero, reproducibly."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.double().parameters():
            p.add_(by * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return net.eval()


def times(sde: sg.SDE, n: int, middle: bool = False) -> Tensor:
    """n times over [t_min, T], ends included; or between DDPM's steps, where slopes exist."""
    if middle:
        return torch.arange(1, 1000, max(1, 1000 // n), dtype=torch.float64) / 1000 + 0.5e-3
    even = torch.linspace(sde.t_min, sde.T, n - n // 3, dtype=torch.float64)
    fine = torch.logspace(math.log10(sde.t_min), math.log10(sde.T), n // 3, dtype=torch.float64)
    return torch.cat([even, fine.clamp(sde.t_min, sde.T)])


U = torch.linspace(0.01, 0.99, 12, dtype=torch.float64)


def fixed(n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Twelve known uniforms instead of random ones."""
    return U[:n].to(device)


def ends(sde: sg.SDE) -> tuple[sg.Level, sg.Level]:
    """The levels at T and at t_min."""
    top, bottom = sde(torch.tensor([sde.T, sde.t_min], dtype=torch.float64)).unbind()
    return top, bottom


class Replay(Noise):
    """Draws handed over beforehand, in order."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        self.draws = iter(draws)

    def __call__(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
        return next(self.draws)


class Plain(sg.SDE):
    """An SDE without marginals."""

    T, t_min = 1.0, 1e-3
    prior = sg.Prior()

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return -x

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.ones_like(x)


class Ornstein(sg.SDE):
    """dx = -A x dt + G dw with matrices, and its kernel by the matrix exponential."""

    matrix, T, t_min = True, 2.0, 1e-2
    A = torch.tensor([[1.0, 0.4], [-0.2, 0.7]], dtype=torch.float64)
    G = torch.tensor([[0.6, 0.2, 0.0], [0.1, 0.5, 0.3]], dtype=torch.float64)

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return -x @ self.A.T

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return self.G

    @property
    def prior(self) -> sg.Prior:
        return sg.Prior()

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        flow = torch.linalg.matrix_exp(-t[:, None, None] * self.A)
        root = torch.linalg.cholesky(self.cov(t))
        x = (flow @ x0[..., None] + root @ z[..., None])[..., 0]
        return x, -torch.linalg.solve(root.mT, z[..., None])[..., 0]

    def cov(self, t: Tensor) -> Tensor:
        """INT_0^t e^{-A u} G G^T e^{-A^T u} du, by Gauss and Legendre."""
        nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(12))
        u = t[:, None] * (nodes + 1) / 2
        half = torch.linalg.matrix_exp(-u[..., None, None] * self.A) @ self.G
        return ((half @ half.mT) * (weights * t[:, None] / 2)[..., None, None]).sum(1)


class AsGeneral(sg.SDE):
    """A linear SDE that tells drift, diffusion and kernel and keeps its marginals to itself."""

    def __init__(self, sde: sg.LinearSDE) -> None:
        self.sde, self.T, self.t_min = sde, sde.T, sde.t_min

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return self.sde.drift(x, t)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return self.sde.diffusion(x, t)

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.sde.perturb(x0, t, z)

    @property
    def prior(self) -> sg.Prior:
        return self.sde.prior


@dataclass(frozen=True)
class Pendulum(sg.SDE):
    """dx = -sin(x) dt + dw: neither linear nor with a kernel in closed form."""

    T: float = 1.0
    t_min: float = 1e-3

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return -torch.sin(x)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.ones((), dtype=x.dtype)

    @property
    def prior(self) -> sg.Prior:
        return sg.Prior(1.0)


class Recorder(torch.nn.Module):
    """Any network; it keeps the states that it was shown."""

    def __init__(self, net: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.x, self.t = x, t
        return self.net(x, t)


class Smooth(torch.nn.Module):
    """A small network of no meaning: any deterministic function of (x, label) in float64."""

    def __init__(self, d: int = 2, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.W = torch.nn.Parameter(normal(d, d, seed=7, dtype=dtype))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        phase = torch.sin(label).reshape(-1, *[1] * (x.ndim - 1))
        return torch.tanh(x @ self.W + phase) + 0.1 * x


def pointwise(x: Tensor, label: Tensor) -> Tensor:
    """A network that works coordinate by coordinate: a batch cannot change its rounding."""
    return x / (1 + x * x) + 0.1 * label.reshape(-1, *[1] * (x.ndim - 1))


def run(
    solver: sg.Solver,
    model: sg.ScoreModel,
    x: Tensor,
    walk: int | Tensor,
    *,
    grid: Grid = sg.walks.log_snr,
    eta: float | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """The last state of a march over a grid of that many steps, or over those times."""
    at = grid(model.sde, walk) if isinstance(walk, int) else walk
    p = sg.Reverse(model, solver.eta if eta is None else eta, noise or sg.Seeded(0))
    for state in sg.march(solver, p, x, sg.walks.levels(model.sde, at)):
        x = state.x
    return x


def half_of_the_way(lam: Tensor) -> Tensor:
    """An eta that comes and goes with lambda."""
    return 1.2 * torch.sigmoid(2 * lam) * torch.sigmoid(6 - 2 * lam)


def slopes(errors: Sequence[float], ratio: float = 2.0) -> list[float]:
    """Orders of convergence between neighbouring step sizes."""
    return [math.log(a / b, ratio) for a, b in pairwise(errors)]


def climbs(walk: Tensor) -> int:
    """How many steps of a walk go up."""
    return int((walk.diff() > 0).sum())


def at_rho(sde: sg.LinearSDE, rho: float) -> float:
    """The time at which sigma / alpha is rho."""
    return float(sde.time(-torch.tensor(rho, dtype=torch.float64).log()))


def seen(how: dict[str, Any], sde: sg.SDE, **more: Any) -> tuple[list[float], sg.Solution]:
    """The times at which a network is asked, and the solution."""
    at: list[float] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        at.append(float(t[0]))
        return 0.1 * x

    model = sg.ScoreModel(net, sde, "x0")
    return at, sg.solve(model, normal(2, 1), **{"seed": 0, **how, **more})

"""Any SDE at all, sampled: equilibria, drift-based solvers, matrix noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.noise.source import Noise
from tests.cases import (
    EVERY,
    MIXTURE,
    AsGeneral,
    Ornstein,
    Replay,
    Smooth,
    close,
    normal,
    run,
    slopes,
)

DRIFT_BASED: dict[str, tuple[sg.Solver, float | None]] = {
    "Euler": (sg.Euler(), None),
    "Heun": (sg.Heun(), None),
    "RK4": (sg.RK4(), None),
    "EulerMaruyama": (sg.EulerMaruyama(), None),
    "EulerMaruyama-0.5": (sg.EulerMaruyama(), 0.5),
    "TorchDiffEq": (sg.solvers.TorchDiffEq(), None),
}

drift_based = pytest.mark.parametrize("case", DRIFT_BASED.values(), ids=DRIFT_BASED)

# ------------------------------------------------------------------ an SDE that is not linear


class DoubleWell(sg.SDE):
    """dx = (x - x^3) dt + G dw.  Its stationary density is exp(-2 U / G^2), U = x^4/4 - x^2/2."""

    T, t_min, G = 1.0, 0.0, 0.6

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return x - x**3

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tensor(self.G, dtype=x.dtype)

    @property
    def prior(self) -> sg.Prior:
        return sg.Prior(1.0)


WELL = DoubleWell()


def stationary(x: Tensor, t: Tensor) -> Tensor:
    """The score of the stationary density: that of every time, if the data have this density."""
    return 2 * (x - x**3) / WELL.G**2


def cdf(x: np.ndarray) -> np.ndarray:
    grid = np.linspace(-3, 3, 20_001)
    density = np.exp(-2 * (grid**4 / 4 - grid**2 / 2) / WELL.G**2)
    mass = integrate.cumulative_simpson(density, x=grid, initial=0.0)
    return np.interp(x, grid, mass / mass[-1])


def equilibrium(n: int) -> Tensor:
    """n quantiles of the stationary density."""
    grid = np.linspace(-3, 3, 20_001)
    return torch.tensor(np.interp((np.arange(n) + 0.5) / n, cdf(grid), grid))[:, None]


@pytest.mark.parametrize("solver", [sg.Euler(), sg.Heun(), sg.RK4(), sg.solvers.TorchDiffEq()])
def test_equilibrium_does_not_flow(solver: sg.Solver) -> None:
    """Where p_t is the same for every t the probability flow stands still, x by x."""
    x = equilibrium(50)
    end = sg.sample(sg.ScoreModel(stationary, WELL, "score"), x, solver=solver, steps=5)
    close(end, x, 1e-12, 1e-12)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_equilibrium_stays_in_law_under_noise(eta: float) -> None:
    x, how = equilibrium(4000), {"solver": sg.EulerMaruyama(), "steps": 60, "eta": eta}
    model = sg.ScoreModel(stationary, WELL, "score")
    end = sg.sample(model, x, seed=0, **how)  # type: ignore[arg-type]
    assert float((end - x).square().mean()) > 0.03
    assert stats.kstest(end[:, 0].numpy(), cdf).pvalue > 1e-3
    # The control: with twice the score the law is another.
    more = sg.ScoreModel(lambda x, t: 2 * stationary(x, t), WELL, "score")
    wrong = sg.sample(more, x, seed=0, **how)  # type: ignore[arg-type]
    assert stats.kstest(wrong[:, 0].numpy(), cdf).pvalue < 1e-6


@drift_based
def test_a_general_sde_starts_from_its_prior_on_a_uniform_walk(
    case: tuple[sg.Solver, float | None],
) -> None:
    solver, eta = case
    steps = None if solver.traits.adaptive else 8
    out = sg.solve(
        sg.ScoreModel(stationary, WELL, "score"),
        (6, 1),
        solver=solver,
        steps=steps,
        eta=eta,
        seed=4,
        path=True,
    )
    assert out.path is not None
    close(out.path.t, sg.walks.uniform(WELL, steps or 1))
    draw = sg.Seeded(4).stream("prior")(torch.empty(6, 1), WELL(1.0), WELL(1.0))
    assert torch.equal(out.path.x[0], draw)
    assert out.status.tolist() == [0] * 6


# ------------------------------------------------------------- a linear SDE that does not say so


@pytest.mark.parametrize(
    "name, case_name",
    [
        (name, case_name)
        for name in EVERY
        for case_name in DRIFT_BASED
        # kinks, and curves that are slow to differentiate, are no place for tight tolerances
        if not (case_name == "TorchDiffEq" and name in ("discrete", "marginal"))
    ],
)
def test_drift_and_diffusion_are_enough(name: str, case_name: str) -> None:
    """The same SDE with and without its marginals: the same samples from the same noise."""
    sde, (solver, eta) = EVERY[name], DRIFT_BASED[case_name]
    exact = exact_model(MIXTURE, sde)
    x, walk = float(sde.prior.std) * normal(4, 2), sg.walks.log_snr(sde, 6)

    def score(x: Tensor, t: Tensor) -> Tensor:
        s: Tensor = exact(x, t).score
        return s

    general = sg.ScoreModel(score, AsGeneral(sde), "score")
    linear = sg.ScoreModel(score, sde, "score")
    ends = [run(solver, model, x, walk, eta=eta) for model in (general, linear)]
    close(ends[0], ends[1], 1e-7 if solver.traits.adaptive else 1e-9, 1e-9)


# ----------------------------------------------------------------- matrix noise: laws, exactly


class Probes(Noise):
    """One-hot noise, one row of the batch for each coordinate of each draw."""

    def __init__(self, first: int) -> None:
        self.row = first

    def __call__(self, x: Tensor, t: sg.sde.Instant, s: sg.sde.Instant) -> Tensor:
        z, m = torch.zeros_like(x), x.shape[-1]
        z[self.row : self.row + m] = torch.eye(m, dtype=x.dtype)
        self.row += m
        return z


DATA_COV = torch.tensor([[0.5, 0.3], [0.3, 0.4]], dtype=torch.float64)


def cov_at(sde: Ornstein, t: float) -> Tensor:
    """The covariance of x_t: that of the data carried along, and the noise since."""
    when = torch.tensor([t], dtype=torch.float64)
    carry = torch.linalg.matrix_exp(-when * sde.A)
    return carry @ DATA_COV @ carry.T + sde.cov(when)[0]


def cov_error(solver: sg.Solver, n: int, eta: float | None) -> float:
    """Of the sampler's exact output covariance, from columns of x_T and unit impulses of noise."""
    sde = Ornstein()
    model = sg.ScoreModel(
        lambda x, t: -torch.linalg.solve(cov_at(sde, float(t[0])), x.T).T, sde, "score"
    )
    x = torch.zeros(2 + 3 * n, 2, dtype=torch.float64)
    x[:2] = torch.linalg.cholesky(cov_at(sde, sde.T)).T
    y = run(solver, model, x, n, grid=sg.walks.uniform, eta=eta, noise=Probes(2))
    return float((y.T @ y - cov_at(sde, sde.t_min)).norm())


@pytest.mark.parametrize("name", [name for name in DRIFT_BASED if name != "TorchDiffEq"])
def test_order_with_matrix_noise(name: str) -> None:
    solver, eta = DRIFT_BASED[name]
    (slope,) = slopes([cov_error(solver, n, eta) for n in (40, 80)])
    assert abs(slope - solver.traits.order) < 0.15, slope


def test_a_diagonal_matrix_is_a_diffusion_by_coordinate() -> None:
    scale = torch.tensor([0.5, 2.0], dtype=torch.float64)

    class ByCoordinate(DoubleWell):
        def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
            return scale

    class AsMatrix(DoubleWell):
        matrix = True

        def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.diag(scale)

    class EachItsOwn(DoubleWell):
        matrix = True

        def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
            return torch.diag(scale).expand(*x.shape, 2)

    x, net = 0.5 * normal(4, 2), Smooth()
    for eta in (0.0, 0.5, 1.0):
        ends = [
            run(
                sg.EulerMaruyama(),
                sg.ScoreModel(net, sde(), "score"),
                x,
                5,
                grid=sg.walks.uniform,
                eta=eta,
            )
            for sde in (ByCoordinate, AsMatrix, EachItsOwn)
        ]
        close(ends[1], ends[0])
        close(ends[2], ends[0])


def test_one_step_with_matrix_noise_by_hand() -> None:
    sde, net = Ornstein(), Smooth()
    x, z = normal(4, 2), normal(4, 3, seed=1)
    walk, h = torch.tensor([1.5, 1.2], dtype=torch.float64), 0.3
    model = sg.ScoreModel(net, sde, "score")
    got = run(sg.EulerMaruyama(), model, x, walk, eta=0.7, noise=Replay([z]))
    score = net(x, walk[:1].expand(4))
    for i in range(4):
        drift = -sde.A @ x[i] - (1 + 0.7**2) / 2 * sde.G @ sde.G.T @ score[i]
        close(got[i], x[i] - h * drift + 0.7 * math.sqrt(h) * sde.G @ z[i], 1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("solver", [sg.AdaptiveRK(), sg.solvers.GottaGoFast(), sg.Heun()])
def test_slopes_made_of_float64_times_keep_the_state_s_type(
    solver: sg.Solver, dtype: torch.dtype
) -> None:
    class Growing(sg.SDE):
        T, t_min = 1.0, 1e-3
        prior = sg.Prior(1.0)

        def drift(self, x: Tensor, t: Tensor) -> Tensor:
            return -x * (1 + t.reshape(-1, *[1] * (x.ndim - 1)))

        def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
            g = (2 + 2 * t).sqrt()
            return g.reshape(-1, *[1] * (x.ndim - 1)) if g.ndim else g

    model = sg.ScoreModel(lambda x, t: -x, Growing(), "score")  # of data N(0, 1), which stay so
    steps = {} if solver.traits.adaptive else {"steps": 5}
    x = normal(4, 2, dtype=torch.float32).to(dtype)
    y = sg.sample(model, x, solver=solver, seed=0, **steps)
    assert y.dtype == dtype and y.isfinite().all()

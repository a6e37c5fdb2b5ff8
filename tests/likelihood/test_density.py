"""Likelihoods against closed form, estimators against their own error, encodings both ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Empirical, exact_model
from sdegen.likelihood.density import log_prob
from sdegen.likelihood.flow import decode, encode
from tests.cases import EVERY_SOLVER, MIXTURE, SDES, close, closed_form, ends, normal, refused
from tests.solutions import gaussian, model_density

FINE = {"solver": sg.AdaptiveRK(clock="lam", rtol=1e-8, atol=1e-8), "divergence": "exact"}
USUAL: dict[str, Any] = {"divergence": "exact"}
"""The default solver, of whose error 1e-4 nats is promised where the divergence is exact."""


# ----------------------------------------------------------------------------------- closed form


@pytest.mark.parametrize(
    ("on", "d"), [*((name, 3) for name in SDES), ("vp", 1), ("vp", 12), ("edm", 12)]
)
def test_gaussians(on: str, d: int) -> None:
    data, sde = gaussian(d), SDES[on]
    x = data.sample(5, torch.Generator().manual_seed(0))
    found = log_prob(exact_model(data, sde), x, **USUAL)
    close(found.value, model_density(data, sde, x), rtol=0, atol=1e-4)
    assert found.error.tolist() == [0.0] * 5 and found.failed == []


@closed_form
def test_mixtures(sde: sg.LinearSDE) -> None:
    """Against the density of the model by another way: SciPy's end of the flow."""
    model, x = exact_model(MIXTURE, sde), MIXTURE.sample(4, torch.Generator().manual_seed(0))
    found = log_prob(model, x, **USUAL)
    top, at = ends(sde)
    z = encode(model, x, solver=sg.solvers.SciPy("DOP853", rtol=1e-10, atol=1e-10))
    exact = (
        MIXTURE.log_prob(at.alpha * x, at)
        - MIXTURE.log_prob(z, top)
        + sde.prior.log_prob(z)
        + 2 * at.alpha.log()
    )
    close(found.value, exact, rtol=0, atol=1e-4)
    # As the prior becomes right, the model's density is the data's own, smoothed by rho.
    smooth = MIXTURE.log_prob(at.alpha * x, at) + 2 * at.alpha.log()
    assert (found.value - smooth).abs().max() < 0.05


def quiet(rho: float) -> dict[str, sg.LinearSDE]:
    """SDEs that leave the noise rho in the data, and end in noise alone."""
    at = -torch.log(torch.tensor(rho, dtype=torch.float64))
    made: dict[str, Any] = {
        "vp": lambda **k: sg.VPSDE(beta_max=80.0, **k),
        "subvp": lambda **k: sg.SubVPSDE(beta_max=80.0, **k),
        "ve": lambda **k: sg.VESDE(sigma_max=1e6, **k),
        "cosine": lambda **k: sg.CosineSDE(T=0.999999, **k),
        "edm": lambda **k: sg.EDMSDE(T=1e6, **k),
        "flow": lambda **k: sg.FlowSDE(T=0.999999, **k),
    }
    return {name: make(t_min=float(make().time(at))) for name, make in made.items()}


def smeared(data: Any, sde: sg.LinearSDE, x: Tensor) -> Tensor:
    """log p of x0 + rho z, for the noise rho that is left at t_min."""
    at = ends(sde)[1]
    return data.log_prob(at.alpha * x, at) + x[0].numel() * at.alpha.log()


PROBLEMS: dict[str, tuple[Any, float, Tensor]] = {
    "gaussian": (gaussian(7), 0.05, gaussian(7).sample(5, torch.Generator().manual_seed(0))),
    "mixture": (MIXTURE, 0.05, MIXTURE.sample(6, torch.Generator().manual_seed(1))),
    "empirical": (Empirical(normal(5, 2, 3)), 0.4, normal(3, 2, 3, seed=1)),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_sde_gives_the_closed_form_and_the_same(name: str) -> None:
    """To 1e-4 nats, where they leave the same noise, and end in noise alone."""
    data, rho, x = PROBLEMS[name]
    found = []
    for sde in quiet(rho).values():
        found.append(log_prob(exact_model(data, sde), x, **USUAL).value)
        close(found[-1], smeared(data, sde, x), rtol=0, atol=1e-4)
        close(found[-1], found[0], rtol=0, atol=1e-4)


def test_the_density_at_t_min_is_that_of_smoothed_data() -> None:
    """Off from the data's own by rho^2 / 2 times the Laplacian of p, over p."""
    data, x = gaussian(2), normal(4, 2) / 2
    errors = []
    for t_min in (0.01, 0.02):
        sde = sg.EDMSDE(T=1e6, t_min=t_min)
        value = log_prob(exact_model(data, sde), x, **FINE).value  # type: ignore[arg-type]
        precision = torch.linalg.inv(torch.as_tensor(data.cov))
        slope = (x - torch.as_tensor(data.mean)) @ precision
        laplacian = slope.square().sum(1) - precision.diagonal().sum()
        close(value - data.log_prob(x), t_min**2 / 2 * laplacian, rtol=0.1, atol=1e-5)
        errors.append((value - data.log_prob(x)).abs().max())
    assert 3.5 < errors[1] / errors[0] < 4.5


def test_song_s_convention() -> None:
    """x itself as a state at t_min."""
    sde, data, x = sg.VPSDE(), gaussian(2), normal(4, 2)
    at = ends(sde)[1]
    model = exact_model(data, sde)
    found = log_prob(model, x, scaled=False, **FINE)  # type: ignore[arg-type]
    close(found.value, log_prob(model, x / at.alpha, **FINE).value - 2 * at.alpha.log(), rtol=1e-6)  # type: ignore[arg-type]
    assert (found.value - data.log_prob(x, at)).abs().max() < 0.02


# --------------------------------------------------------------------------------- every solver

BOTH_WAYS = {
    name: solver
    for name, solver in EVERY_SOLVER.items()
    if solver.traits.follows_flow and solver.eta == 0
}


ONE_EACH = {type(solver): name for name, solver in BOTH_WAYS.items()}.values()
"""A solver of each class; the others are slow."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in ONE_EACH else pytest.mark.slow) for n in BOTH_WAYS],
)
def test_every_ode_solver_gives_a_likelihood(name: str) -> None:
    solver, sde = BOTH_WAYS[name], sg.VPSDE()
    data = gaussian(3)
    x = data.sample(3, torch.Generator().manual_seed(0))
    model, exact = exact_model(data, sde), model_density(data, sde, x)
    if solver.traits.adaptive:
        found = log_prob(model, x, solver=solver, divergence="exact")
        assert (found.value - exact).abs().max() < 0.2
        return
    off = [
        (log_prob(model, x, solver=solver, divergence="exact", steps=n).value - exact).abs().max()
        for n in (20, 60)
    ]
    assert off[1] < 0.6 * off[0] or off[1] < 1e-3


@pytest.mark.parametrize("name", sorted(set(EVERY_SOLVER) - set(BOTH_WAYS)))
def test_a_solver_that_adds_noise_is_refused(name: str) -> None:
    model = exact_model(MIXTURE, sg.VPSDE())
    for go in (log_prob, encode, decode):
        with refused("does not follow the probability flow.*such as Euler"):
            go(model, normal(2, 2), solver=EVERY_SOLVER[name], steps=3)


def test_its_eta_makes_a_solver_stochastic() -> None:
    model, x = exact_model(MIXTURE, sg.VPSDE()), normal(2, 2)
    kinds = (
        sg.EulerMaruyama(),
        sg.solvers.SASolver(),
        sg.solvers.ERSDE(),
        sg.solvers.GottaGoFast(),
        sg.DDIM(1.0),
    )
    for solver in (
        *kinds,
        sg.solvers.StochasticHeun(),
        sg.solvers.SRA1(),
        sg.solvers.ReverseDiffusion(),
    ):
        with refused("it adds noise, eta = "):
            log_prob(model, x, solver=solver, steps=None if solver.traits.adaptive else 5)
    for still in (sg.solvers.SASolver(eta=0.0), sg.solvers.ERSDE(eta=0.0)):
        assert log_prob(model, x, solver=still, steps=5).value.isfinite().all()


class Slope(sg.SDE):
    """VP's equation, said without its marginals."""

    T, t_min = 1.0, 1e-3
    inner = sg.VPSDE()

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return self.inner.drift(x, t)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return self.inner.diffusion(x, t)

    @property
    def prior(self) -> Any:
        return self.inner.prior


def test_an_sde_without_marginals() -> None:
    sde, data, x = sg.VPSDE(), gaussian(3), normal(4, 3)
    exact = exact_model(data, sde)
    model = sg.ScoreModel(lambda x, t: exact(x, sde(t)).score, Slope(), "score")
    solver = sg.AdaptiveRK(clock="t", rtol=1e-8, atol=1e-8)
    for kind in ("exact", "rademacher"):
        mine, theirs = (
            log_prob(each, x, solver=solver, divergence=kind, scaled=False)  # type: ignore[arg-type]
            for each in (model, exact)
        )
        close(mine.value, theirs.value, rtol=0, atol=1e-5)
        close(mine.z, theirs.z, rtol=0, atol=1e-6)

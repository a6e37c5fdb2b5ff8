"""Bounds of convergence theory on Gaussians, where all that they bound is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import (
    Affine,
    Gaussian,
    Normal,
    affine,
    chain_of,
    end_of,
    exact_model,
    girsanov,
    law,
    marginal,
    path_kl,
    prior_of,
    reverse_of,
)
from sdegen.exact.orders import ends
from sdegen.noise.source import Noise
from sdegen.sde.level import expand
from tests.cases import close, refused

VP = sg.VPSDE()
FOUR = {"vp": VP, "subvp": sg.SubVPSDE(), "edm": sg.EDMSDE(), "flow": sg.FlowSDE(T=0.999)}
THREE = {
    "narrow": Gaussian([0.0], [0.25]),
    "wide": Gaussian([0.0], [4.0]),
    "two": Gaussian([0.3, -0.2], [0.25, 1e-2]),
}
FIVE = (10, 20, 40, 80, 160)
EVERY = pytest.mark.parametrize("sde", FOUR.values(), ids=FOUR)
EACH = pytest.mark.parametrize("data", THREE.values(), ids=THREE)
SOLVERS = pytest.mark.parametrize(
    "solver", [sg.EulerMaruyama(), sg.DDIM(eta=1.0)], ids=["euler_maruyama", "exponential"]
)


def walked(sde: sg.LinearSDE, n: int) -> sg.walks.Walk:
    """Equal steps in lam."""
    return sg.walks.Walk(sde, sg.walks.log_snr(sde, n))


def wrong(data: Gaussian, sde: sg.LinearSDE, by: float, at: str) -> sg.ScoreModel:
    """A model whose score, or eps, is off by a constant in each coordinate."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        level = sde(t)
        scale = level.sigma**2 / level.alpha if at == "score" else -level.rho
        return data.denoise(x, level) + expand(scale * by, x)

    return sg.ScoreModel(net, sde, "x0")


# ------------------------------------------------------------------------------ what is measured


def test_kl_is_torchs() -> None:
    a, b = (
        Normal(torch.tensor([0.2, 1.0]), torch.tensor([0.5, 2.0])),
        Normal(torch.tensor([0.0, 1.5]), torch.tensor([1.0, 0.3])),
    )
    of = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(
        of(a.mean, a.var.sqrt()), of(b.mean, b.var.sqrt())
    ).sum()
    assert a.kl(b) == pytest.approx(float(wanted), rel=1e-6)
    assert a.kl(a) == 0


def test_kl_of_steps_is_the_mean_over_states() -> None:
    """Against quadrature over x."""
    a, b = (
        Affine(*(torch.tensor([v], dtype=torch.float64) for v in values))
        for values in ((0.8, 0.1, 0.3), (0.7, -0.2, 0.5))
    )
    start = Normal(*(torch.tensor([v], dtype=torch.float64) for v in (0.4, 1.7)))
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    p = (-0.5 * (x - 0.4) ** 2 / 1.7).exp()
    each = [Normal(a.gain * v + a.shift, a.var).kl(Normal(b.gain * v + b.shift, b.var)) for v in x]
    wanted = float((torch.tensor(each).double() * p).sum() / p.sum())
    assert a.kl(b, start) == pytest.approx(wanted, rel=1e-9)


@SOLVERS
@EVERY
def test_moments_are_those_of_the_whole_sampler(sde: sg.LinearSDE, solver: sg.Solver) -> None:
    """Step by step, and at once from one-hot noise: ``exact.law``."""
    data, walk = THREE["two"], walked(sde, 12)
    end = end_of(chain_of(solver, exact_model(data, sde), walk, 2), marginal(data, walk[0]))
    mean, var = law(solver, sde, walk.times, mean=data.mean, var=data.cov)  # type: ignore[arg-type]
    known = marginal(data, walk[-1])
    close(end.mean - known.mean, mean, rtol=1e-7, atol=1e-10)
    close(end.var / known.var - 1, var, rtol=1e-7, atol=1e-10)


@EACH
@EVERY
def test_reverse_kernels_join_the_marginals(sde: sg.LinearSDE, data: Gaussian) -> None:
    """Down p_t comes p_s; two steps are one; and a fine chain's steps come to the same."""
    walk = walked(sde, 3)
    t, m, s = walk[0], walk[1], walk[2]
    end, known = reverse_of(data, t, s).of(marginal(data, t)), marginal(data, s)
    close(end.mean, known.mean, atol=1e-12), close(end.var, known.var)
    far = Normal(torch.tensor([3.0]).double(), torch.tensor([0.2]).double())
    once, twice = (
        reverse_of(data, t, s).of(far),
        end_of([reverse_of(data, t, m), reverse_of(data, m, s)], far),
    )
    close(once.mean, twice.mean, rtol=1e-9, atol=1e-12), close(once.var, twice.var, rtol=1e-9)


# ---------------------------------------------------------------------------------- three bounds


@pytest.mark.parametrize("std", [0.5, 2.0])
def test_start_is_forgotten_as_alpha_to_the_fourth(std: float) -> None:
    """KL(p_T || prior) <= alpha^2 KL(p_0 || prior); centred, -> alpha^4 (v - 1)^2 / 4."""
    data, v = Gaussian([0.0], [std**2]), std**2
    wanted = (v - 1) ** 2 / 4
    top, prior = ends(VP)[0], prior_of(VP, 1)
    kl, alpha = marginal(data, top).kl(prior), float(top.alpha)
    first = Normal(torch.zeros(1).double(), torch.tensor([v]).double()).kl(prior)
    assert kl <= alpha**2 * first
    assert kl / alpha**4 == pytest.approx(wanted, rel=1e-3)
    shifted = marginal(Gaussian([1.0], [v]), top).kl(prior)
    assert shifted / alpha**2 == pytest.approx(0.5, rel=1e-2)  # a mean goes as alpha^2


@EACH
@EVERY
def test_start_bounds_the_end(sde: sg.LinearSDE, data: Gaussian) -> None:
    """Of the exact reverse process from the prior, and by convexity over x0."""
    top, bottom = ends(sde)
    d = len(data.mean)
    prior, from_data = prior_of(sde, d), marginal(data, top)
    end = reverse_of(data, top, bottom).of(prior)
    given = Normal(0 * from_data.mean, torch.full((d,), float(top.sigma) ** 2).double())
    square = top.alpha**2 * (torch.tensor(data.mean) ** 2 + torch.tensor(data.cov)) / prior.var
    convex = given.kl(prior) + float(square.sum()) / 2
    measured, bound = marginal(data, bottom).kl(end), from_data.kl(prior)
    assert 0 <= measured <= bound * (1 + 1e-6) + 1e-14
    assert bound <= convex


@pytest.mark.parametrize(("std", "wanted"), [(0.5, 2.87e-3), (2.0, 7.15e-3)])
def test_score_error_costs_at_most_what_girsanov_says(std: float, wanted: float) -> None:
    data = Gaussian([0.0], [std**2])
    walk = walked(VP, 320)
    chain = chain_of(sg.solvers.StochasticHeun(), wrong(data, VP, 0.05, "score"), walk, 1)
    measured = marginal(data, walk[-1]).kl(end_of(chain, marginal(data, walk[0])))
    bound = girsanov(VP, lambda level: (0.05 * level.sigma) ** 2)
    f = VP(torch.tensor(VP.T)).g2, VP(torch.tensor(VP.t_min)).g2  # g^2 = beta is linear in t
    by_hand = 0.5 * 0.05**2 * float(f[0] + f[1]) / 2 * (VP.T - VP.t_min)
    assert bound == pytest.approx(by_hand, rel=1e-6) == pytest.approx(1.256e-2, rel=1e-3)
    assert measured == pytest.approx(wanted, rel=5e-3) and measured < bound


@EACH
@EVERY
def test_paths_of_small_steps_are_girsanovs(sde: sg.LinearSDE, data: Gaussian) -> None:
    """What a score error adds to KL of paths, as steps shrink: at equal steps in lam."""
    d, by = len(data.mean), 0.1
    bound = girsanov(sde, lambda level: d * by**2 * torch.ones_like(level.lam))
    close(bound, d * by**2 * float(ends(sde)[1].lam - ends(sde)[0].lam), rtol=1e-9)
    walk, solver = walked(sde, 160), sg.DDIM(eta=1.0)
    with_error = path_kl(chain_of(solver, wrong(data, sde, by, "eps"), walk, d), data, walk)
    without = path_kl(chain_of(solver, exact_model(data, sde), walk, d), data, walk)
    assert with_error - without == pytest.approx(bound, rel=0.1)


@SOLVERS
@EACH
@EVERY
def test_all_bounds_hold_at_every_budget(
    sde: sg.LinearSDE, data: Gaussian, solver: sg.Solver
) -> None:
    """From the prior, with a wrong score, in few steps: KL of ends <= start + KL of paths."""
    d, prior = len(data.mean), prior_of(sde, len(data.mean))
    model = wrong(data, sde, 0.05, "eps")
    for n in FIVE:
        walk = walked(sde, n)
        chain = chain_of(solver, model, walk, d)
        measured = marginal(data, walk[-1]).kl(end_of(chain, prior))
        bound = marginal(data, walk[0]).kl(prior) + path_kl(chain, data, walk)
        assert 0 < measured < bound


@EACH
@pytest.mark.parametrize(
    ("sde", "solver"),
    [(VP, sg.EulerMaruyama()), *((sde, sg.DDIM(eta=1.0)) for sde in FOUR.values())],
    ids=["vp-euler_maruyama", *FOUR],
)
def test_slopes(sde: sg.LinearSDE, solver: sg.Solver, data: Gaussian) -> None:
    """Halving the steps halves the bound, and quarters what it bounds."""
    d = len(data.mean)
    found = []
    for n in (80, 160):
        walk = walked(sde, n)
        chain = chain_of(solver, exact_model(data, sde), walk, d)
        end = end_of(chain, marginal(data, walk[0]))
        found.append((marginal(data, walk[-1]).kl(end), path_kl(chain, data, walk)))
    (kl, path), (finer, path_finer) = found
    assert math.log2(path / path_finer) == pytest.approx(1, abs=0.15)
    assert math.log2(kl / finer) == pytest.approx(2, abs=0.25)


# ------------------------------------------------------------------------------------ correctors


def langevin(data: Gaussian, sde: sg.LinearSDE, snr: float, at: sg.Level) -> Affine:
    """One step of Langevin's corrector at a level."""
    model, corrector = exact_model(data, sde), sg.Langevin(snr)

    def move(x: Tensor, noise: Noise) -> Tensor:
        return corrector.stay(sg.Reverse(model, 1.0, noise), x, at)

    return affine(move, len(data.mean))


@EVERY
def test_corrector_contracts_and_is_biased(sde: sg.LinearSDE) -> None:
    """V -> (1 - e/v)^2 V + 2 e: to v / (1 - e / 2 v).  Lee, Lu & Tan (2022), on Gaussians."""
    data, at = Gaussian([0.4], [0.5]), sde(0.3)
    v, e = marginal(data, at).var, 2 * (0.4 * at.sigma) ** 2
    step = langevin(data, sde, 0.4, at)
    close(step.gain, 1 - e / v), close(step.var, 2 * e.expand(1))
    fixed = v / (1 - e / (2 * v))
    here = Normal(0.4 * at.alpha.expand(1), fixed)
    there = step.of(here)
    close(there.mean, here.mean), close(there.var, here.var)
    far = Normal(here.mean + 1, 3 * fixed)
    close((step.of(far).var - fixed) / (far.var - fixed), step.gain**2)


def test_small_corrections_contract_kl_as_the_theory_says() -> None:
    """KL after time tau <= e^(-2 tau / v) KL before, v the log-Sobolev constant; means: equal."""
    data, at = Gaussian([0.0], [0.5]), VP(0.3)
    target, (_, v) = marginal(data, at), marginal(data, at)
    step = langevin(data, VP, 0.02, at)
    tau = 200 * 2 * float((0.02 * at.sigma) ** 2)
    rate = math.exp(-2 * tau / float(v))
    assert 0.1 < rate < 0.9
    for start in (Normal(target.mean, 3 * v), Normal(target.mean, v / 3)):
        assert end_of([step] * 200, start).kl(target) <= rate * start.kl(target) * 1.001
    shifted = Normal(target.mean + v.sqrt(), v)
    after = end_of([step] * 200, shifted).kl(target)
    assert after / shifted.kl(target) == pytest.approx(rate, rel=0.005)


# -------------------------------------------------------------------------------------- refusals


def test_refusals() -> None:
    data, walk = THREE["two"], walked(VP, 4)
    model = exact_model(data, VP)
    with refused("remembers earlier steps"):
        chain_of(sg.DPMSolverPP(2), model, walk, 2)
    with refused("has no law in closed form: it chooses its own steps"):
        chain_of(sg.AdaptiveRK(), model, walk, 2)
    with refused("Coordinates are independent here"):
        marginal(Gaussian([0.0, 0.0], [[1.0, 0.1], [0.1, 1.0]]), walk[0])
    with refused("16 draws at most here, but this one had 20"):
        many = sg.PredictorCorrector(sg.DDIM(eta=1.0), n=19)
        chain_of(many, exact_model(data, VP), walk, 2)
    with refused("needs alpha and sigma"):
        girsanov(sg.MarginalSDE, lambda level: level.lam)  # type: ignore[arg-type]

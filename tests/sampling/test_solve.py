"""What a solve takes, and what it gives back beside its samples."""

from __future__ import annotations

from typing import Any

import torch
from scipy import stats
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import exact_model
from tests.cases import MIXTURE, Smooth, close, normal, run, sdes


def model_of(sde: sg.SDE) -> sg.ScoreModel:
    return sg.ScoreModel(Smooth(), sde, "v")


@sdes
def test_a_start_is_a_draw_from_the_prior(sde: sg.LinearSDE) -> None:
    """Below T too: the walk of a smaller sigma starts from that sigma."""
    for start in (sde.T, 0.6 * sde.T):
        walk = sg.walks.uniform(sde, 3, start=start)
        out = sg.solve(model_of(sde), (3, 2), solver=sg.DDIM(), walk=walk, seed=5, path=True)
        assert out.path is not None
        level = sde(walk[[0]]).unbind()[0]
        draw = sg.Seeded(5).stream("prior")(torch.empty(3, 2, dtype=torch.float64), level, level)
        ratio = float(level.sigma / sde(torch.tensor(sde.T, dtype=torch.float64)).sigma)
        close(out.path.x[0], float(sde.prior.std) * ratio * draw)
        assert out.x.dtype == torch.float64


def test_a_walk_may_be_named_made_or_given() -> None:
    sde = sg.VPSDE()
    model, x = model_of(sde), normal(3, 2)
    how: dict[str, Any] = {"solver": sg.DPMSolverPP(2)}
    times = sg.walks.karras(sde, 5)
    want = sg.sample(model, x, walk=times, **how)
    close(want, run(sg.DPMSolverPP(2), model, x, 5, grid=sg.walks.karras))
    for walk in ("karras", sg.walks.karras):
        assert torch.equal(sg.sample(model, x, steps=5, walk=walk, **how), want)
        assert torch.equal(sg.sample(model, x, nfe=5, walk=walk, **how), want)
    for given in (times, times.tolist(), tuple(times.tolist())):
        assert torch.equal(sg.sample(model, x, walk=given, **how), want)
    close(sg.sample(model, x, walk=times.float(), **how), want, 1e-5)
    default = run(sg.DPMSolverPP(2), model, x, 5, grid=sg.walks.log_snr)
    close(sg.sample(model, x, steps=5, **how), default)
    assert not torch.allclose(default, want, rtol=1e-3)


def test_denoising_ends_at_the_posterior_mean_for_one_call_more() -> None:
    sde = sg.SubVPSDE()
    model, x = exact_model(MIXTURE, sde), normal(3, 2)
    how: dict[str, Any] = {"solver": sg.Heun(), "steps": 4, "path": True}
    plain, clean = (sg.solve(model, x, denoise=on, **how) for on in (False, True))
    level = sde(torch.tensor(sde.t_min, dtype=torch.float64))
    close(clean.x, MIXTURE.denoise(plain.x, level))
    assert plain.path is not None and clean.path is not None
    assert torch.equal(clean.path.x[:-1], plain.path.x)
    assert torch.equal(clean.path.x[-1], clean.x)
    assert clean.path.t[-1] == clean.path.t[-2] == sde.t_min
    assert (plain.nfe.tolist(), clean.nfe.tolist()) == ([8] * 3, [9] * 3)


def test_a_march_can_be_stopped_and_taken_up_again() -> None:
    """Nothing is kept between steps but what a step hands to the next."""
    sde = sg.VPSDE()
    p = sg.Reverse(model_of(sde), 1.0, sg.Seeded(3))
    walk, x = sg.walks.levels(sde, sg.walks.log_snr(sde, 6)), normal(3, 2)
    whole = [state.x for state in sg.march(sg.Ancestral(), p, x, walk)]
    assert len(whole) == 6
    p = sg.Reverse(p.model, 1.0, sg.Seeded(3))
    steps = sg.march(sg.Ancestral(), p, x, walk)
    first = [next(steps).x for _ in range(2)]
    rest = [state.x for state in sg.march(sg.Ancestral(), p, first[-1], walk[2:])]
    for a, b in zip(whole, first + rest, strict=True):
        assert torch.equal(a, b)


def test_a_step_leaves_its_start_as_it_was() -> None:
    for solver in (
        sg.Heun(),
        sg.DPMSolverPP(2),
        sg.PredictorCorrector(),
        sg.solvers.TorchDiffEq(),
    ):
        x = normal(3, 2)
        steps = None if solver.traits.adaptive else 3
        sg.sample(model_of(sg.VPSDE()), x, solver=solver, steps=steps, seed=0)
        assert torch.equal(x, normal(3, 2))


def test_conditions_travel_with_the_model() -> None:
    seen = []

    def net(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        seen.append(y)
        return x * y[:, None]

    y = torch.tensor([1.0, 2.0], dtype=torch.float64)
    model = sg.ScoreModel(net, sg.VPSDE()).given(y=y)
    out = sg.solve(model, normal(2, 3), solver=sg.Heun(), steps=3)
    assert len(seen) == 6 and all(each is y for each in seen) and out.nfe.tolist() == [6, 6]
    assert sg.dsm_loss(model, normal(2, 3)).shape == (2,)


def test_no_graph_is_kept_by_a_solve_and_one_is_kept_by_a_model() -> None:
    model, x = model_of(sg.VPSDE()), normal(2, 2)
    out = sg.sample(model, x.requires_grad_(), solver=sg.DDIM(), steps=2)
    assert not out.requires_grad
    assert model(x, 0.5).x0.requires_grad


def test_without_a_seed_the_draws_are_torchs() -> None:
    how: dict[str, Any] = {"solver": sg.Ancestral(), "steps": 3}
    torch.manual_seed(0)
    a = sg.sample(model_of(sg.VPSDE()), (3, 2), **how)
    b = sg.sample(model_of(sg.VPSDE()), (3, 2), **how)
    torch.manual_seed(0)
    assert torch.equal(sg.sample(model_of(sg.VPSDE()), (3, 2), **how), a)
    assert not torch.equal(a, b)
    generator = sg.noise.Fresh(torch.Generator().manual_seed(7))
    again = sg.noise.Fresh(torch.Generator().manual_seed(7))
    assert torch.equal(
        sg.sample(model_of(sg.VPSDE()), (3, 2), noise=generator, **how),
        sg.sample(model_of(sg.VPSDE()), (3, 2), noise=again, **how),
    )


def test_perturb_draws_its_own_noise_when_none_is_given() -> None:
    x0, t = torch.zeros(20_000, 1).double(), torch.full((20_000,), 0.3).double()
    sde = sg.VPSDE()
    torch.manual_seed(0)
    noisy, score = sde.perturb(x0, t)
    close(score, -noisy / sde(t).sigma[:, None] ** 2, 1e-10)
    z = (noisy / sde(t).sigma[:, None])[:, 0].numpy()
    assert stats.kstest(z, "norm").pvalue > 1e-5

"""What a solve takes, and what it gives back beside its samples."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from tests.cases import MIXTURE, Smooth, close, normal, refused, run, sdes


def model_of(sde: sg.SDE) -> sg.ScoreModel:
    return sg.ScoreModel(Smooth(), sde, "v")


@sdes
def test_a_start_is_a_draw_from_the_prior(sde: sg.LinearSDE) -> None:
    """Below T too: the walk of a smaller sigma starts from that sigma."""
    below = float(sde.time(torch.tensor(-1.2, dtype=torch.float64)))  # rho = 3.3
    for start in (sde.T, max(below, 0.9 * sde.T)):
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


@sdes
def test_a_start_on_the_way_is_made_of_data(sde: sg.LinearSDE) -> None:
    """N(0, sigma^2) had variance 0.61 for 1 on VP at t = 0.3."""
    start = float(sde.time(torch.tensor(0.0, dtype=torch.float64)))  # rho = 1
    how: dict[str, Any] = {"solver": sg.DDIM(), "walk": sg.walks.uniform(sde, 3, start=start)}
    with refused("50 % of the variance of data of variance 1 is signal.*sde.perturb"):
        sg.sample(model_of(sde), (3, 2), **how)
    x_T, _ = sde.perturb(normal(3, 2), torch.full((3,), start))
    assert sg.sample(model_of(sde), x_T, **how).isfinite().all()


def test_a_walk_that_ends_with_noise_says_so() -> None:
    model, times = model_of(sg.VPSDE()), sg.walks.log_snr(sg.VPSDE(), 6)
    how: dict[str, Any] = {"solver": sg.DDIM(), "walk": times[:4]}
    assert sg.solve(model, (2, 2), **how).status.tolist() == [sg.Status.NOISY] * 2
    assert sg.solve(model, (2, 2), denoise=True, **how).status.tolist() == [0, 0]
    assert sg.solve(model, (2, 2), solver=sg.DDIM(), walk=times).status.tolist() == [0, 0]
    sick = torch.tensor([[math.nan], [0.0]], dtype=torch.float64)
    assert sg.solve(model_of(sg.VPSDE()), sick.expand(2, 2), **how).status.tolist() == [1, 4]
    sg.sample(model, (2, 2), **how)  # times say where they end
    grid = partial(sg.walks.uniform, stop=0.3)
    with pytest.warns(UserWarning, match="ends at t = 0.3, above t_min = 0.001.*denoise=True"):
        sg.sample(model, (2, 2), solver=sg.DDIM(), walk=grid, steps=3)


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


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    "solver",
    [sg.DDIM(), sg.UniPC(), sg.DPMSolverPP(), sg.Multistep(4, corrector=4, clock="wide")],
    ids=str,
)
def test_what_is_written_into_a_state_is_kept(solver: sg.Solver, inference: bool) -> None:
    """A corrector takes the step before from where it began: what was added was undone to 24 %.
    Data N(0, 1) on VP, where the flow stands still."""
    model = exact_model(Gaussian([0.0], [[1.0]]), sg.VPSDE())
    walk, ends = sg.walks.Walk(model.sde, sg.walks.log_snr(model.sde, 40)), []
    for more in (0.0, 0.1):
        x = torch.ones(2, 1, dtype=torch.float64)
        with torch.inference_mode(inference):
            for i, state in enumerate(sg.march(solver, sg.Reverse(model), x, walk), 1):
                if i == 31 and more:
                    state.x.add_(more)
        ends.append(state.x)
    close(ends[1] - ends[0], torch.full((2, 1), 0.1), atol=1e-3)


@pytest.mark.parametrize("solver", ["unipc", "song_pc"], ids=["program", "loop"])
def test_who_looks_on_writes_nothing(solver: str) -> None:
    def watch(step: int, of: int, x: Tensor) -> None:
        x.clamp_(-1, 1)

    with refused("watch looks on.*sg.march"):
        sg.sample(model_of(sg.VPSDE()), normal(3, 2), solver=solver, steps=3, watch=watch)


def test_a_walk_in_two_stages_of_one_seed_is_the_walk() -> None:
    """Their noise was the first's twice: variance 1.13 for 1.  Exact for data N(0, 1) in F."""
    model = exact_model(Gaussian([0.0], [[1.0]]), sg.VPSDE())
    x, times = normal(20_000, 1), sg.walks.log_snr(model.sde, 40)
    exact = sg.Multistep(1, prediction="F", sigma_data=1.0)
    for solver in (exact, sg.PredictorCorrector(), sg.solvers.SRA1()):
        how: dict[str, Any] = {"solver": solver, "eta": 1.0, "seed": 0}
        half = sg.sample(model, x, walk=times[:21], **how)
        end = sg.sample(model, half, walk=times[20:], **how)
        close(end, sg.sample(model, x, walk=times, **how), 1e-9, 1e-9)
        if solver is exact:
            assert abs(float(end.var()) - 1) < 0.04
    # Who comes by the same levels again has new noise there.
    again = sg.walks.restart(model.sde, times, [(0.1, 20.0, 3, 20)])
    end = sg.sample(model, x, walk=again, solver=exact, eta=1.0, seed=0)
    assert abs(float(end.var()) - 1) < 0.04


def test_a_step_leaves_its_start_as_it_was() -> None:
    for solver in (
        sg.Heun(),
        sg.DPMSolverPP(2),
        sg.solvers.named("song_pc"),
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

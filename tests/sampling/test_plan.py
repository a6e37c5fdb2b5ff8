"""A plan is made once: what it says is what ``solve`` does, and what it cannot do it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.sampling import Plan
from sdegen.sampling.plan import HOW
from sdegen.solvers.budget import walk_for
from sdegen.walks import Walk
from tests.cases import FIXED, MIXTURE, close, normal, refused

SDE = sg.VPSDE()
MODEL = exact_model(MIXTURE, SDE)


# ----------------------------------------------------------------------------------------- walks


def test_a_walk_is_its_times_and_their_levels() -> None:
    times = sg.walks.log_snr(SDE, 5)
    walk = Walk(SDE, times)
    assert len(walk) == 6 and walk.steps == walk.descents == 5 and not walk.climbs
    for level, other in zip(walk, sg.walks.levels(SDE, times), strict=True):
        assert torch.equal(level.t, other.t) and torch.equal(level.lam, other.lam)
    assert walk[0] is walk.levels[0] and [level.t for level in walk[1:3]] == [*times[1:3]]
    up = Walk(SDE, [1.0, 0.5, 0.7, 0.1])  # type: ignore[arg-type]
    assert up.climbs and up.descents == 2 and "climbing" in repr(up)
    assert up.times.dtype == torch.float64 and not up.times.requires_grad


def test_a_walk_is_a_walk_anywhere() -> None:
    """For ``solve``, for ``march``, for tables: the same samples as by its times."""
    times = sg.walks.karras(SDE, 6)
    walk, x = Walk(SDE, times), normal(3, 2)
    want = sg.sample(MODEL, x, solver=sg.UniPC(), walk=times)
    assert torch.equal(sg.sample(MODEL, x, solver=sg.UniPC(), walk=walk), want)
    *_, last = sg.march(sg.UniPC(), sg.Reverse(MODEL), x, walk)
    close(last.x, want, rtol=1e-10)
    one, other = (sg.programs.tabulate(sg.DDIM(), each, SDE) for each in (walk, times))
    assert one.distance(other) == 0.0
    # Of another SDE its times are taken, and its levels made anew.
    there = sg.solve(exact_model(MIXTURE, sg.SubVPSDE()), x, solver=sg.UniPC(), walk=walk)
    assert there.walk is not None and there.walk.sde == sg.SubVPSDE()
    with refused("walk is a grid's name"):
        sg.sample(MODEL, x, solver=sg.DDIM(), walk=7, steps=3)  # type: ignore[arg-type]


def test_a_grid_that_cannot_change_is_walked_once() -> None:
    one, other = (walk_for(sg.DDIM(), SDE, steps=7) for _ in range(2))
    assert one is other and one.levels is other.levels
    own = [walk_for(sg.DDIM(), SDE, steps=7, walk=lambda sde, n: one.times) for _ in range(2)]
    assert own[0] is not own[1]


def test_a_walk_made_under_inference_mode_has_gradients_later() -> None:
    with torch.inference_mode():
        walk = walk_for(sg.DDIM(), sg.VPSDE(beta_max=19.0), steps=3)
        assert not any(level.alpha.is_inference() for level in walk)
    assert not walk.times.is_inference()


# ----------------------------------------------------------------------------------------- plans


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("denoise", [False, True])
def test_its_calls_are_those_that_are_made(name: str, denoise: bool) -> None:
    how: dict[str, Any] = {"solver": FIXED[name], "nfe": 12, "denoise": denoise, "seed": 0}
    plan, solution = Plan.of(MODEL, **how), sg.solve(MODEL, (2, 2), **how)
    assert plan.nfe == int(solution.nfe[0]) <= 12
    assert solution.solver == plan.solver and solution.walk is not None
    assert torch.equal(solution.walk.times, plan.walk.times)


def test_its_calls_on_a_walk_that_climbs() -> None:
    times = sg.walks.ancestral(SDE, sg.walks.karras(SDE, 4))
    plan = Plan.of(MODEL, solver=sg.Heun(), walk=times, denoise=True)
    assert plan.nfe == int(sg.solve(MODEL, (1, 2), solver=sg.Heun(), walk=times).nfe[0]) + 1
    assert Plan.of(MODEL, solver=sg.AdaptiveRK()).nfe is None
    assert plan.steps == len(times) and f"{plan.nfe} calls" in str(plan)


def test_nothing_runs_before_it_is_decided() -> None:
    """A plan asks neither the network nor, for a solver that needs no path, the generator."""

    def never(x: Any, t: Any) -> Any:
        raise AssertionError("the network was called")

    before = torch.get_rng_state()
    Plan.of(sg.ScoreModel(never, SDE), nfe=10)
    assert torch.equal(before, torch.get_rng_state())


CALLS: dict[str, Callable[..., Any]] = {
    "solve": lambda **how: sg.solve(MODEL, (2, 2), **how),
    "sample": lambda **how: sg.sample(MODEL, (2, 2), **how),
    "encode": lambda **how: sg.encode(MODEL, normal(2, 2), **how),
    "decode": lambda **how: sg.decode(MODEL, normal(2, 2), **how),
    "log_prob": lambda **how: sg.log_prob(MODEL, normal(2, 2), **how),
    "Captured": lambda **how: sg.sampling.Captured(MODEL, (2, 2), **how),
    "Plan.of": lambda **how: Plan.of(MODEL, **how),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_misspelt_argument_is_named(name: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}\(\) got an unexpected .* 'stpes': did you mean"):
        CALLS[name](stpes=3)
    with pytest.raises(TypeError, match=r"'qqq': it takes .*nfe, .*solver, steps"):
        CALLS[name](qqq=3)


def test_what_a_flow_has_no_use_for_is_refused() -> None:
    for name in ("encode", "decode"):
        with pytest.raises(TypeError, match="'eta'"):
            CALLS[name](eta=0.0)
    assert {"solver", "steps", "nfe", "walk", "eta", "seed", "noise", "denoise", "graph"} == HOW

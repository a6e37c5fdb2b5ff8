"""Guided problems of the benchmark: exact, told apart, and the same to every library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench import problems
from sdegen.bench.guided import Classes, network_of
from sdegen.bench.peers import PEERS
from sdegen.bench.point import Settings, measure, run
from sdegen.bench.problems import Problem
from sdegen.exact.distributions import Empirical, Gaussian, Mixture
from sdegen.guidance import CFG, Interval
from tests.cases import close, normal, refused


def test_classes_are_the_mixtures_and_the_data_of_each() -> None:
    means, of = normal(9, 3, 2), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1])
    x, y, level = normal(8, 3, 2, seed=1), torch.arange(8) % 4, sg.VPSDE()(0.3)
    points = Classes(means, of).denoise(x, level, y)
    wide = Classes(means.flatten(1), of, 0.4).denoise(x.flatten(1), level, y)
    for i, k in enumerate(y.tolist()):
        own = means if k == 3 else means[of == k]
        close(points[i : i + 1], Empirical(own).denoise(x[i : i + 1], level), rtol=1e-10)
        flat = own.flatten(1)
        mixture = Mixture(flat, [0.4] * len(own), [1 / len(own)] * len(own))
        close(wide[i : i + 1], mixture.denoise(x[i : i + 1].flatten(1), level), rtol=1e-10)


def test_the_model_is_cfg_of_exact_ones_clipped_or_on_an_interval() -> None:
    sde, x = sg.FlowSDE(), normal(5, 2)
    guided: Any = problems.guided_mixture(8.0).model(sde, n=5)
    data = problems.guided_mixture().guidance
    assert data is not None and isinstance(guided, CFG)
    model = data.data.model(sde, torch.arange(5) % 4)
    c, u = (model.given(y=y)(x, 0.6).x0 for y in (torch.arange(5) % 4, torch.full((5,), 4)))
    close(guided(x, 0.6).x0, u + 8 * (c - u), rtol=1e-12)
    clipped = problems.guided_mixture(8.0, threshold=True).model(sde, n=5)
    close(clipped(x, 0.6).x0, guided(x, 0.6).x0.clamp(-1, 1), rtol=1e-12)
    part = problems.guided_mixture(8.0, interval=(0.3, 3)).model(sde, n=5)
    assert part.scale == Interval(8.0, 0.3, 3.0)  # type: ignore[attr-defined]
    close(part(x, 0.1).x0, model(x, 0.1).x0, rtol=1e-12)
    assert network_of(clipped) is network_of(clipped.model.model)  # type: ignore[attr-defined]


def test_guided_problems_are_told_apart() -> None:
    made = [problems.guided_mixture(s) for s in (2.0, 4.0)]
    made += [problems.guided_mixture(threshold=True), problems.guided_mixture(interval=(0.3, 3))]
    made += [replace(made[0], guidance=None), problems.guided_digits()]
    assert len({each.fingerprint() for each in made}) == len(made)


def ended(problem: Problem, solver: Any, nfe: int, sde: sg.LinearSDE) -> tuple[Tensor, int]:
    """Where a method ends with a budget of evaluations, and what it spent."""
    model, x = problem.model(sde, n=4), normal(4, 2)
    how: dict[str, Any] = {"walk": "log_snr", "nfe": nfe, "steps": None, "tol": None, "seed": 0}
    end = run(solver, model, float(sde(sde.T).sigma) * x, **how)
    return end, model.nfe


def test_evaluations_are_counted_as_they_are_spent(tmp_path: Path) -> None:
    def spent(scale: float, nfe: int, **how: Any) -> int:
        return ended(problems.guided_mixture(scale, **how), sg.DDIM(), nfe, sg.VPSDE())[1]

    assert spent(4.0, 11) == 10 and spent(1.0, 11) == 11
    assert 11 <= spent(4.0, 20, interval=(0.3, 3.0)) < 20
    guided, sde, few = problems.guided_mixture(4.0), sg.VPSDE(), Settings(n=2)
    found = measure(guided, sde, sg.sampling.Recommended(), few, folder=tmp_path, nfe=11)
    assert found["nfe"] == 10 and found["agreement"] < 1e-8
    with refused("network evaluations"):
        measure(guided, sde, sg.DDIM(), few, folder=tmp_path, nfe=1)
    with refused("adds noise"):
        measure(guided, sde, sg.DDIM(1.0), few, folder=tmp_path, nfe=11)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("k_dpmpp_2m", sg.DPMSolverPP(2)),
        ("diffusers_dpmpp_2m_keep", sg.DPMSolverPP(2)),
        ("azula_ddim", sg.DDIM()),
    ],
)
def test_others_take_the_same_guided_model(name: str, ours: sg.Solver) -> None:
    """A method that both libraries have ends in the same states, at equal evaluations."""
    problem, sde = problems.guided_mixture(4.0, threshold=True), sg.FlowSDE()
    theirs, own = (ended(problem, each, 20, sde) for each in (PEERS[name], ours))
    assert theirs[1] == own[1] == 20
    close(theirs[0], own[0], rtol=1e-6, atol=1e-8)


def test_settings_of_a_class_that_is_a_gaussian() -> None:
    """One mean a class: F_c is a Gaussian's."""
    one = Classes(
        torch.tensor([[0.5, 0.0], [-0.5, 0.2]], dtype=torch.float64), torch.arange(2), 0.3
    )
    x, level = normal(2, 2), sg.VPSDE()(0.5)
    for k in range(2):
        exact = Gaussian(one.means[k], [0.09, 0.09]).denoise(x, level)
        close(one.denoise(x, level, torch.full((2,), k)), exact, rtol=1e-10)


def test_a_kink_costs_the_order_above_two() -> None:
    """UniPC-3, of order 4, on a guided circle: plain, clipped, and on an interval whose ends are
    no times of the walk."""

    def slope(**how: Any) -> float:
        model = problems.guided_mixture(4.0, **how).model(sg.VPSDE(), n=8)
        x = normal(8, 2)
        ends = [sg.sample(model, x, solver=sg.UniPC(3), steps=n) for n in (60, 120, 360)]
        far = [(end - ends[2]).square().mean(1).sqrt().quantile(0.5) for end in ends[:2]]
        return float((far[0] / far[1]).log2())

    assert slope() > 3.5
    assert slope(threshold=True) < 3
    assert slope(interval=(0.3, 3.0)) < 2

"""Points: errors, calls and costs, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench import problems
from sdegen.bench.errors import pathwise
from sdegen.bench.peers import PEERS, KDiffusion, Peer
from sdegen.bench.point import Settings, library_of, measure
from sdegen.metrics.kernels import energy_distance, mmd
from tests.cases import normal, refused

# ----------------------------------------------------------------------------------------- errors


def test_pathwise_errors_are_those_of_the_samples() -> None:
    found = pathwise(torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 1.0]]), torch.zeros(3, 2))
    assert found["median"] == pytest.approx(1)
    assert found["rms"] == pytest.approx(((12.5 + 0 + 1) / 3) ** 0.5)
    assert found["q90"] == pytest.approx(1 + 0.8 * (12.5**0.5 - 1))


def test_distances_between_gaussians_are_those_in_closed_form() -> None:
    """Of N(0, 1) and N(m, 1) on the line: E|x| of normals, and a Gaussian kernel's integrals."""
    m, n = 1.0, 2000
    a, b = normal(n, 1), normal(n, 1, seed=1) + m
    unit = torch.distributions.Normal(0.0, 1.0)

    def spread(mean: float) -> float:  # E|y| of y ~ N(mean, 2)
        s, at = 2**0.5, torch.tensor(mean / 2**0.5)
        return float(2 * s * unit.log_prob(at).exp() + mean * (2 * unit.cdf(at) - 1))

    exact = (2 * spread(m) - 2 * spread(0.0)) ** 0.5
    assert energy_distance(a, b) == pytest.approx(exact, rel=0.06)
    w2 = float(torch.pdist(b).median()) ** 2
    kernel = [
        (w2 / (w2 + 2)) ** 0.5 * torch.tensor(-(d**2) / (2 * (w2 + 2))).exp() for d in (0, m)
    ]
    assert mmd(a, b) == pytest.approx(float(2 * kernel[0] - 2 * kernel[1]) ** 0.5, rel=0.06)
    assert energy_distance(a, normal(n, 1, seed=2)) < 0.1 and mmd(a, normal(n, 1, seed=2)) < 0.05


# ----------------------------------------------------------------------------------------- points


def test_a_point_holds_errors_calls_and_costs(tmp_path: Path) -> None:
    problem, sde = problems.mixture(), sg.VPSDE()
    few = Settings(n=8, draws=64)

    def at(solver: Any, settings: Settings = few, walk: Any = "log_snr", **how: Any) -> Any:
        return measure(problem, sde, solver, settings, folder=tmp_path, walk=walk, **how)

    point = at(sg.DDIM(), replace(few, repeats=1), nfe=10)
    assert point["kind"] == "path" and point["nfe"] == 10
    assert 0 < point["errors"]["median"] < point["errors"]["q90"] < 1
    cost = point["cost"]
    assert cost["reads per call"] < 0.3 and cost["kernels per call"] == pytest.approx(2, abs=1)
    assert 0 < cost["solver seconds"] < cost["seconds"]
    assert at(sg.DDIM(), nfe=80)["errors"]["median"] < point["errors"]["median"] / 4
    law = at(sg.Ancestral(), nfe=20)
    assert law["kind"] == "law" and set(law["errors"]) == set(law["floor"])
    adaptive = at(sg.solvers.AdaptiveMultistep(), walk=None, tol=1e-4)
    assert adaptive["errors"]["rms"] < 1e-2 and adaptive["nfe"] > 20
    single = at(sg.DDIM(), replace(few, dtype="float32"), nfe=10)
    assert single["errors"]["median"] == pytest.approx(point["errors"]["median"], rel=1e-3)


def test_a_walk_that_climbs_adds_noise(tmp_path: Path) -> None:
    """It is judged as a distribution, and other libraries' loops cannot follow it."""
    problem, sde, few = problems.mixture(), sg.VPSDE(), Settings(n=8, draws=64)
    walk = partial(sg.walks.zigzag, grid=sg.walks.log_snr, by=sg.walks.ancestral)
    found = measure(problem, sde, sg.DDIM(), few, folder=tmp_path, walk=walk, nfe=10)
    assert found["kind"] == "law" and found["nfe"] == 10 and "strong" not in found
    with refused("This walk climbs, which k-diffusion's loops cannot follow"):
        measure(problem, sde, PEERS["k_euler"], few, folder=tmp_path, walk=walk, nfe=10)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"n": 1}, "n must be a whole number >= 2"),
        ({"draws": 2}, "draws must be a whole number >= 3"),
        ({"seed": "x"}, "seed must be a whole number >= 0"),
        ({"repeats": -1}, "repeats must be a whole number >= 0"),
        ({"dtype": "float16"}, "Unknown dtype"),
        ({"device": "tpu"}, "Unknown device"),
        ({"device": "cuda"}, "torch sees no CUDA device"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    wrong: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused(why):
        Settings(**wrong)


def test_budgets_and_tolerances_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    problem, sde = problems.mixture(), sg.VPSDE()
    for solver, how, why in (
        (sg.DDIM(), {"tol": 1e-3}, "takes a budget"),
        (sg.solvers.AdaptiveMultistep(), {"nfe": 5}, "takes a tolerance"),
        (sg.Heun(), {"nfe": 1}, "at least 2 network calls"),
        (KDiffusion("heun", evals=2), {"nfe": 1}, "at least 2 network calls"),
        (PEERS["k_dpm_adaptive"], {"tol": 1e-20}, "tol must be at least 1e-12"),
    ):
        with refused(why):
            measure(problem, sde, solver, Settings(n=4), folder=tmp_path, **how)  # type: ignore[arg-type]
    with refused("Other libraries run in float64"):
        single = Settings(n=4, dtype="float32")
        measure(problem, sde, PEERS["k_euler"], single, folder=tmp_path, nfe=4)


class Broken(Peer):
    """One sample does not arrive."""

    library = "nobody's"

    def solve(self, model: sg.ScoreModel, x: Tensor, times: Tensor, tol: float | None) -> Tensor:
        """NaN for the first."""
        model(x, times[0])
        return torch.cat([x[:1] * torch.nan, x[1:]])


def test_a_failed_solve_is_said(tmp_path: Path) -> None:
    point = measure(
        problems.mixture(), sg.EDMSDE(), Broken(), Settings(n=3), folder=tmp_path, nfe=4
    )
    assert point["failed"] == "1 of 3 samples did not arrive" and "errors" not in point


def test_whose_a_method_is() -> None:
    assert library_of(sg.DDIM()) == "sdegen" and library_of(sg.solvers.SciPy()) == "SciPy"
    assert library_of(sg.solvers.TorchDiffEq()) == "torchdiffeq"
    assert library_of(PEERS["k_heun"]) == "k-diffusion"

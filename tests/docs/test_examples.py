"""The examples that are a user's own mathematics do what they claim."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.files import read_json
from tests.cases import ROOT, close, normal
from tests.processes import typed

PATH = ROOT / "examples" / "critically_damped.py"


@pytest.fixture(scope="module")
def cld() -> ModuleType:
    """The example, imported from its file."""
    spec = importlib.util.spec_from_file_location("critically_damped", PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["critically_damped"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def coefficients(sde: sg.SDE) -> tuple[np.ndarray, np.ndarray]:
    """dx = A x dt + G dw of one coordinate and its velocity, read from drift and diffusion."""
    t = torch.tensor(0.5, dtype=torch.float64)
    basis = torch.eye(2, dtype=torch.float64)[:, None]  # two states (2, 1, 2)
    return sde.drift(basis, t)[:, 0].T.numpy(), sde.diffusion(basis, t).numpy()


def moments(sde: Any, t: float) -> tuple[Tensor, Tensor]:
    """Mean (2,) of (q, v) given q_0 = 1 and covariance (2, 2), by integrating their equations."""
    from scipy.integrate import solve_ivp

    A, G = coefficients(sde)

    def slope(_: float, y: np.ndarray) -> np.ndarray:
        m, S = y[:2], y[2:].reshape(2, 2)
        return np.concatenate([A @ m, (A @ S + S @ A.T + G @ G.T).ravel()])

    start = [1.0, 0.0, 0.0, 0.0, 0.0, sde.gamma * sde.M]
    end = solve_ivp(slope, (0, t), start, method="DOP853", rtol=1e-12, atol=1e-20).y[:, -1]
    return torch.as_tensor(end[:2]), torch.as_tensor(end[2:]).reshape(2, 2)


SETTINGS = [{}, {"M": 0.5, "beta": 2.0, "gamma": 0.3}, {"gamma": 0.0}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("t", [1e-5, 1e-3, 0.04, 0.3, 1.0])
def test_kernel_solves_the_moment_equations(
    cld: ModuleType, settings: dict[str, float], t: float
) -> None:
    """Entry by entry: at t = 1e-5 the variance of q is of order 1e-13 without gamma."""
    sde = cld.CLD(**settings)
    mean, L = sde.kernel(torch.tensor([t], dtype=torch.float64))
    m, S = moments(sde, t)
    close(mean[0], m, rtol=1e-9)
    close((L @ L.mT)[0], S, rtol=1e-9)


@pytest.mark.parametrize("t", [1e-3, 0.1, 1.0])
def test_score_is_the_gradient_of_the_log_density(cld: ModuleType, t: float) -> None:
    sde, x0 = cld.CLD(), normal(5, 3, 2)
    x, score = sde.perturb(x0, torch.full((5,), t, dtype=torch.float64), normal(5, 3, 2, seed=1))
    m, S = moments(sde, t)
    law = torch.distributions.MultivariateNormal(x0[..., :1] * m, S)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    close(score, gradient, rtol=1e-6)


def test_states_have_the_covariance_of_the_kernel(cld: ModuleType) -> None:
    """x is mean + L z and not, say, mean + L^T z: exact, from unit draws."""
    sde, t = cld.CLD(), torch.full((2,), 0.1, dtype=torch.float64)
    x, _ = sde.perturb(torch.zeros(2, 1, 2).double(), t, torch.eye(2).double()[:, None])
    close(x[:, 0].T @ x[:, 0], moments(sde, 0.1)[1], rtol=1e-9)


def test_prior_is_where_the_process_rests(cld: ModuleType) -> None:
    sde = cld.CLD(M=0.5)
    (A, G), S = coefficients(sde), torch.diag(sde.prior.std.double() ** 2).numpy()
    assert abs(A @ S + S @ A.T + G @ G.T).max() < 1e-6
    mean, L = cld.CLD().kernel(torch.tensor([1.0]))  # and where it is at T, but for 1e-5
    close(mean, torch.zeros(1, 2), atol=5e-3)
    close((L @ L.mT)[0], torch.diag(cld.CLD().prior.std.double() ** 2), atol=2e-5)


def test_solvers_reach_gaussian_data_from_the_prior(cld: ModuleType) -> None:
    """An untrained network is exact for them, and the flow is linear: its matrix is what it does
    to unit vectors, and carries the prior's covariance to the data's.
    """
    sde, std = cld.CLD(), 0.7
    model = sg.ScoreModel(cld.VelocityScore(sde, 1, std).double(), sde, predicts="score")
    m, S = moments(sde, sde.t_min)
    wanted = S + std**2 * torch.outer(m, m)
    start = torch.diag(sde.prior.std).double()[:, None]

    def error(solver: sg.Solver, steps: int | None) -> float:
        x = sg.sample(model, start, solver=solver, steps=steps, walk="quadratic")[:, 0]
        return float((x.T @ x - wanted).abs().max())

    coarse, fine = error(sg.Heun(), 100), error(sg.Heun(), 200)
    assert coarse > 3.5 * fine and fine < 1e-3
    assert error(sg.solvers.TorchDiffEq(rtol=1e-6, atol=1e-6), None) < 1e-4
    x = sg.sample(
        model, (2000, 1, 2), solver=sg.EulerMaruyama(), steps=100, walk="quadratic", seed=0
    )[:, 0]
    assert float((x.T.cov() - wanted).abs().max()) < 0.06  # four of the estimate's own deviations


@pytest.mark.slow
def test_example_learns(cld: ModuleType) -> None:
    """Samples come much closer to data than the Gaussian that no training amounts to."""
    none, trained = cld.main(steps=0, n=500), cld.main(steps=200, n=500)
    floor = trained.pop("floor")
    assert 0 < floor == none.pop("floor")
    assert len(trained) == 3
    for name, distance in trained.items():
        assert distance < 0.75 * none[name], name
    assert max(trained.values()) - min(trained.values()) < floor


@pytest.mark.slow
def test_digits_are_told_from_what_is_none() -> None:
    path = PATH.parent / "out_of_distribution.py"
    spec = importlib.util.spec_from_file_location("out_of_distribution", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    areas = module.main(steps=60, n=16)
    assert areas["shuffled digits"] > 0.9 and areas["photo patches"] > 0.75
    assert 0.4 < areas["digits"] < 0.5  # a picture is not less likely than itself


@pytest.mark.slow
def test_unclip_runs(tmp_path: Path) -> None:
    """On a run that has learned nothing: shares of the right caption that are no better than that,
    and a picture."""
    few = ["net.width=8", "net.heads=2", "text.width=8", "train.steps=1", "evaluate.budgets=[2]"]
    few += [f"~evaluate.solvers.{name}" for name in ("euler_maruyama", "ddpm", "heun", "dpmpp")]
    done = typed("train", "experiment=text/captioned_digits", *few, "device=cpu", cwd=tmp_path)
    assert done.code == 0, done.err
    spec = importlib.util.spec_from_file_location("unclip", PATH.parent / "unclip.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run = str(tmp_path / "outputs" / "text" / "captioned_digits")
    shares = module.main(str(tmp_path / "un"), run, steps=2, n=8)
    assert len(shares) == 13 and all(0 <= share <= 1 for share in shares.values())
    assert shares["retrieved, test"] < 0.1 and (tmp_path / "un" / "picture.png").is_file()


@pytest.mark.parametrize(
    "name",
    [
        "lora",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("control", "dreambooth", "slim")),
    ],
)
def test_programs_over_a_run_leave_figures_and_a_picture(name: str, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, PATH.parent / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(str(tmp_path / name), quick=True)
    found = read_json(tmp_path / name / "result.json")
    keys = {"what", "value", "beside", "of", "wished"}
    assert found["figures"] and all(set(each) == keys for each in found["figures"])
    assert (tmp_path / name / "picture.png").stat().st_size > 1000
    if name == "control":  # a control that is silent yet, in figures that can tell
        assert found["figures"][-1]["value"] == 1

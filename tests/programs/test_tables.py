"""Solvers as tables: what a method is, read from its numbers without a network."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.exact.orders import law
from sdegen.programs.table import Table, tabulate
from tests.cases import FIXED, close, ends, normal, refused, run, slopes, works_in_time

LINEAR = {name: solver for name, solver in FIXED.items() if not solver.traits.why_not_linear}
FLOW = {
    name: s for name, s in LINEAR.items() if s.traits.order and (s.traits.any_eta or s.eta == 0)
}
NOISY = {
    name: s for name, s in LINEAR.items() if s.traits.weak and (s.traits.any_eta or s.eta == 1)
}
NOISY.pop("sra1")  # its areas are draws too, of which ``law`` knows nothing
GAUSSIAN = Gaussian(torch.tensor([0.3, -0.2]), torch.tensor([0.25, 1.5]))
SDES = {"vp": sg.VPSDE(), "edm": sg.EDMSDE(), "flow": sg.FlowSDE()}
ONE_EACH = {type(solver): name for name, solver in FLOW.items()}.values()
"""A solver of each class; the others are slow."""


@pytest.mark.parametrize(
    ("name", "sde"),
    [
        pytest.param(name, sde, marks=() if sde == "vp" and name in ONE_EACH else pytest.mark.slow)
        for name, solver in FLOW.items()
        # Of order 4, the others are seen from more steps on than a test can take.
        for sde in (SDES if solver.traits.order < 4 and works_in_time(solver) else ["vp"])
    ],
)
def test_order_conditions_hold(name: str, sde: str) -> None:
    """On Gaussian data, whose flow and denoiser are known, from the table's numbers alone."""
    solver, process = FLOW[name], SDES[sde]
    top, bottom = ends(process)
    x = normal(8, 2) * top.sigma
    exact = GAUSSIAN.flow(x, top, bottom)
    errors = []
    for n in (32, 64) if solver.traits.order < 3 else (64, 128):
        table = tabulate(solver, n, process, eta=0.0)
        end = table.follow(GAUSSIAN.denoise, x)[-1]
        errors.append(float((end - exact).square().mean().sqrt()))
    assert errors[-1] < 1e-10 or slopes(errors)[-1] > solver.traits.order - 0.35


@pytest.mark.parametrize("prediction", ["x0", "eps"])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_table_integrates_polynomials_of_its_degree(k: int, prediction: str) -> None:
    """One step late in the walk, where as many values are known as the method wants.

    x_s / sigma_s - x_t / sigma_t = INT exp(lam) P dlam, where the network's x0 is P(lam), and
    x_s / alpha_s - x_t / alpha_t = -INT exp(-lam) P dlam where its eps is.
    """
    sde = sg.VPSDE()
    walk = sg.walks.levels(sde, sg.walks.log_snr(sde, 8))
    table = tabulate(sg.Multistep(k, prediction=prediction), walk, sde, predicts=prediction)

    def P(lam: Any) -> Any:
        return 0.5 * (lam - 1.0) ** (k - 1)

    states = table.follow(lambda x, t: P(t.lam).expand_as(x), normal(1, 1))[:, 0, 0]
    t, s = walk[-2:]
    assert isinstance(t, sg.Level) and isinstance(s, sg.Level)
    sign, unit = (1.0, "sigma") if prediction == "x0" else (-1.0, "alpha")
    got = states[-1] / getattr(s, unit) - states[-2] / getattr(t, unit)

    def integrand(lam: float) -> float:
        return sign * math.exp(sign * lam) * P(lam)

    close(got, quad(integrand, float(t.lam), float(s.lam), epsabs=1e-12)[0], rtol=1e-6)


def test_consistency() -> None:
    """A constant network is integrated exactly by exponential solvers of its prediction."""
    for sde in (sg.VPSDE(), sg.VESDE(), sg.EDMSDE(), sg.FlowSDE()):
        top, bottom = ends(sde)
        x = normal(3, 1)
        for solver in (
            sg.DDIM(),
            sg.DPMSolverPP(3),
            sg.UniPC(3),
            sg.solvers.SASolver(),
            sg.solvers.Singlestep(2),
        ):
            got = tabulate(solver, 5, sde, eta=0.0).follow(lambda x, t: torch.full_like(x, 2.0), x)
            ratio = bottom.sigma / top.sigma
            exact = ratio * x + (bottom.alpha - ratio * top.alpha) * 2.0
            close(got[-1], exact, rtol=1e-9)
        for solver in (
            sg.DDIM(),
            sg.Multistep(3, prediction="eps"),
            sg.solvers.DEIS(3),
            sg.solvers.IPNDM(4),
        ):
            table = tabulate(solver, 5, sde, eta=0.0, predicts="eps")
            got = table.follow(lambda x, t: torch.full_like(x, 2.0), x)
            ratio = bottom.alpha / top.alpha
            exact = ratio * x + (bottom.sigma - ratio * top.sigma) * 2.0
            close(got[-1], exact, rtol=1e-9)


@pytest.mark.parametrize("name", NOISY)
def test_the_noise_a_table_adds_gives_the_law(name: str) -> None:
    """On Gaussian data the variance of the end is a sum over the table's columns."""
    solver, sde, n = NOISY[name], sg.VPSDE(), 6
    mean, var = (torch.tensor(v, dtype=torch.float64) for v in ((0.3, -0.2), (0.25, 1e-4)))
    top, bottom = ends(sde)
    table = tabulate(solver, n, sde, eta=1.0)
    draws = sum(column.startswith("z") for column in table.columns)
    denoise = Gaussian(mean, var).denoise
    zero = torch.zeros(1, 2, dtype=torch.float64)

    def end(x: Tensor, hot: int | None = None) -> Tensor:
        z = [torch.full_like(zero, float(k == hot)) for k in range(draws)]
        return table.follow(denoise, x, z)[-1, 0]

    rest = end(zero)
    start = end(zero + 1) - rest
    noise = torch.stack([end(zero, k) - rest for k in range(draws)])
    total = start**2 * (top.alpha**2 * var + top.sigma**2) + noise.square().sum(0)
    off_mean, off_var = law(solver, sde, n, 1.0)
    close(rest + start * top.alpha * mean - bottom.alpha * mean, off_mean, atol=1e-10, rtol=1e-8)
    close(total / (bottom.alpha**2 * var + bottom.sigma**2) - 1, off_var, rtol=1e-8, atol=1e-10)


SAME = {
    "ddim and dpm-solver++(1)": (sg.DDIM(), sg.DPMSolverPP(1), sg.VPSDE(), 0.0),
    "ddim and dpm-solver-1": (sg.DDIM(), sg.DPMSolver(1), sg.VPSDE(), 0.0),
    "ddim and the exact integral of one x0": (sg.DDIM(), sg.Multistep(1), sg.EDMSDE(), 0.0),
    "ddim and the exact integral of one eps": (
        sg.DDIM(),
        sg.Multistep(1, prediction="eps"),
        sg.FlowSDE(),
        0.0,
    ),
    "ancestral and ddim with eta 1": (sg.Ancestral(), sg.DDIM(1.0), sg.VPSDE(), 1.0),
    "euler and ddim where t is sigma": (sg.Euler(), sg.DDIM(), sg.EDMSDE(), 0.0),
    "heun in t and in rho where t is rho": (sg.Heun(), sg.Heun("rho"), sg.EDMSDE(), 0.0),
    "deis in rho and exact eps in rho": (
        sg.solvers.DEIS(3, clock="rho"),
        sg.Multistep(3, prediction="eps", clock="rho"),
        sg.VPSDE(),
        0.0,
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_methods_that_are_the_same_have_one_table(name: str) -> None:
    one, other, sde, eta = SAME[name]
    assert tabulate(one, 6, sde, eta=eta).distance(tabulate(other, 6, sde, eta=eta)) < 1e-11


def test_methods_that_differ_have_tables_that_differ() -> None:
    sde = sg.VPSDE()
    two = tabulate(sg.DPMSolverPP(2), 6, sde)
    assert two.distance(tabulate(sg.Multistep(2), 6, sde)) > 1e-3
    assert two.distance(tabulate(sg.DPMSolverPP(2), 6, sde, eta=0.0)) == 0.0
    with refused("one has 6 calls, 0 draws and 6 steps, the other 5 calls"):
        two.distance(tabulate(sg.DPMSolverPP(2), 5, sde))
    with refused("different times"):
        two.distance(tabulate(sg.DPMSolverPP(2), "uniform", sde, steps=6))


@pytest.mark.parametrize("predicts", ["x0", "eps", "v", "velocity"])
@pytest.mark.parametrize("name", ["unipc", "heun", "sa", "rk4", "ddpm"])
def test_following_a_table_is_solving(name: str, predicts: str) -> None:
    solver, sde = LINEAR[name], sg.VPSDE()
    target = sg.ScoreModel(lambda x, t: x, sde, predicts).target
    x, exact = normal(3, 2), exact_model(GAUSSIAN, sde)

    def F(x: Tensor, level: sg.Level) -> Tensor:
        seen = exact(x, level)
        a, b = target(level)
        return a * seen.x0 + b * seen.eps

    noise = [torch.zeros_like(x)] * 6
    table = tabulate(solver, 6, sde, predicts=predicts)

    class Silent(sg.noise.Fresh):
        def __call__(self, x: Tensor, t: object, s: object) -> Tensor:
            return torch.zeros_like(x)

    want = run(solver, exact, x, 6, noise=Silent())
    draws = sum(column.startswith("z") for column in table.columns)
    close(table.follow(F, x, noise[:draws])[-1], want, rtol=1e-8, atol=1e-10)


def read(text: str, F: object, x: float) -> dict[str, float]:
    """Run the printed lines."""
    known = {"x0": x, "1": 1.0}
    level = ""
    for line in text.splitlines()[3:]:
        name, rest = line[:6].strip(), line[28:]
        total = 0.0
        for c, what in re.findall(r"(?<!\S)([+-]?[\d.e+-]*) ?([xFzm]\d+|1)(?!\S)", rest):
            number = {"": 1.0, "+": 1.0, "-": -1.0}.get(c.strip())
            total += (float(c) if number is None else number) * known[what]
        level = line[6:18]
        known[name] = F(total, float(level)) if "network at" in line else total  # type: ignore[operator]
    return known


@pytest.mark.parametrize("name", ["ddim", "unipc", "heun", "deis_tab2", "singlestep"])
def test_the_printed_lines_are_the_method(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    solver, sde = LINEAR[name], sg.VPSDE()
    table = sg.programs.tabulate(solver, 4, sde)
    assert capsys.readouterr().out == ""  # a library says nothing: ``print(table)`` does
    got = read(str(table), lambda x, t: 0.5 * x + t, 0.7)
    x = torch.tensor([[0.7]], dtype=torch.float64)
    want = table.follow(lambda x, level: 0.5 * x + level.t, x)
    for i in range(4):
        close(got[f"x{i + 1}"], want[i, 0, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("solver", "reason"),
    [
        (sg.PredictorCorrector(corrector=sg.Langevin(norms="batch")), "norm"),
        (sg.AdaptiveRK(), "step"),
        (sg.solvers.TorchDiffEq(), "another library"),
        (sg.solvers.SciPy(), "another library"),
    ],
    ids=str,
)
def test_a_solver_that_is_not_linear_has_no_table(solver: sg.Solver, reason: str) -> None:
    with pytest.raises(
        sg.programs.NotLinear, match=f"{type(solver).__name__} has no table: .*({reason})"
    ):
        sg.programs.tabulate(solver, 4)


def test_a_walk_is_named_as_anywhere() -> None:
    sde = sg.VPSDE()
    tables: list[Table] = [
        tabulate(sg.DDIM(), walk, sde, steps=5)
        for walk in (5, "log_snr", sg.walks.log_snr(sde, 5), sg.walks.log_snr(sde, 5).tolist())
    ]
    assert all(a.distance(b) < 1e-12 for a, b in pairwise(tables))
    with refused("walk"):
        tabulate(sg.DDIM(), "logsnr", sde)
    with refused("prediction"):
        tabulate(sg.DDIM(), 5, sde, predicts="noise")

"""Other libraries' samplers run the method that they name."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.bench import problems
from sdegen.bench.peers import PEERS, SUPPORTED, Peer, need
from sdegen.bench.point import Settings, measure, run
from sdegen.runs.build import build
from sdegen.solvers.registry import node
from tests.cases import close, refused, sdes

FLOW = {n: p for n, p in PEERS.items() if p.eta == 0 and not p.adaptive}


def end_of(solver: sg.Solver | Peer, sde: sg.LinearSDE, n: int) -> tuple[Tensor, int]:
    """Where a method ends on the mixture, and its network calls."""
    problem = problems.mixture()
    model = problem.model(sde)
    x = problem.noised(sde(torch.tensor(sde.T, dtype=torch.float64)), 8, 0)
    times = sg.walks.log_snr(sde, n)
    if isinstance(solver, Peer):
        return solver.solve(model, x, times, None), model.nfe
    return sg.solve(model, x, solver=solver, walk=times).x, model.nfe


@sdes
@pytest.mark.parametrize(
    ("peer", "ours"),
    [
        ("k_euler", sg.DDIM()),
        ("k_heun", sg.Heun("rho")),
        ("k_dpmpp_2m", sg.DPMSolverPP(2)),
        ("diffusers_deis_3", sg.Multistep(3, prediction="eps")),
        ("diffusers_dpmpp_2m", sg.DPMSolverPP(2)),
        ("diffusers_dpm_3m", sg.solvers.DPMSolverMultistep(3, published=True)),
        ("azula_heun", sg.Heun("rho")),
        ("azula_xab_3", sg.Multistep(3)),
        ("azula_zab_3", sg.Multistep(3, prediction="eps")),
    ],
)
def test_adapters_run_the_method_they_name(sde: sg.LinearSDE, peer: str, ours: sg.Solver) -> None:
    """On every SDE: 16 steps, from which on diffusers does not lower the last order."""
    theirs, calls = end_of(PEERS[peer], sde, 16)
    mine, _ = end_of(ours, sde, 16)
    close(theirs, mine, rtol=0, atol=1e-8)
    assert calls == PEERS[peer].calls(16)


@cache
def exact_end() -> Tensor:
    """Where the flow ends, by a method of order 5."""
    return end_of(sg.solvers.RK5("lam"), sg.VPSDE(), 200)[0]


@pytest.mark.parametrize("name", FLOW)
def test_peers_converge_and_their_calls_are_as_said(name: str) -> None:
    peer, sde = FLOW[name], sg.VPSDE()
    exact, errors = exact_end(), []
    for n in (24, 96):
        end, calls = end_of(peer, sde, n)
        assert end.dtype == torch.float64 and calls == peer.calls(n)
        errors.append(float((end - exact).square().mean().sqrt()))
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("name", [n for n, p in PEERS.items() if p.adaptive])
def test_peers_with_steps_of_their_own_follow_the_tolerance(name: str) -> None:
    problem, sde = problems.mixture(), sg.VPSDE()
    model = problem.model(sde)
    x = problem.noised(sde(torch.tensor(sde.T, dtype=torch.float64)), 8, 0)
    exact, times, errors = exact_end(), sg.walks.log_snr(sde, 1), []
    for tol in (1e-2, 1e-5):
        end = PEERS[name].solve(model, x, times, tol)
        errors.append(float((end - exact).square().mean().sqrt()))
    assert errors[1] < errors[0] / 10 and errors[1] < 1e-3


@pytest.mark.parametrize("name", [n for n, p in PEERS.items() if p.eta == 1])
def test_peers_that_add_noise_sample_the_mixture(name: str, tmp_path: Path) -> None:
    how: dict[str, Any] = {"folder": tmp_path, "walk": "log_snr", "nfe": 60}
    found, again = (
        measure(problems.mixture(), sg.EDMSDE(), PEERS[name], Settings(draws=512), **how)
        for _ in range(2)
    )
    assert found["errors"]["sliced"] < 3 * found["floor"]["sliced"]
    assert found["errors"] == again["errors"]


def test_peers_draw_nothing_that_the_start_was_made_of() -> None:
    """With the same seed torch's generator would hand out the start's own noise again."""
    drawn: list[Tensor] = []

    class Drawing(Broken):
        def solve(self, model: sg.ScoreModel, x: Tensor, times: Tensor, tol: Any) -> Tensor:
            drawn.extend(torch.randn_like(x) for _ in range(3))
            return x

    problem, sde = problems.gaussian(), sg.VESDE()
    start = problem.noised(sde(torch.tensor(sde.T, dtype=torch.float64)), 64, 0)
    how: dict[str, Any] = {"walk": None, "nfe": 4, "steps": None, "tol": None, "seed": 0}
    run(Drawing(), problem.model(sde), start, **how)
    for z in drawn:
        assert abs(float((z * start).mean() / start.std())) < 0.15
    assert len(drawn) == 3


@pytest.mark.parametrize("name", PEERS)
def test_peers_are_the_same_when_built_from_a_configuration(name: str) -> None:
    assert build(node(PEERS[name])) == PEERS[name]


def test_libraries_that_are_missing_or_strange_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUPPORTED, "nosuchlibrary", "1.0")
    with refused("nosuchlibrary is not installed"):
        need("nosuchlibrary")
    monkeypatch.setitem(SUPPORTED, "diffusers", "0.0")
    with refused("diffusers 0.42.* is not supported: the comparison knows 0.0"):
        need("diffusers")


class Broken(Peer):
    """One sample does not arrive."""

    library = "nobody's"

    def solve(self, model: sg.ScoreModel, x: Tensor, times: Tensor, tol: float | None) -> Tensor:
        """NaN for the first."""
        model(x, times[0])
        return torch.cat([x[:1] * torch.nan, x[1:]])

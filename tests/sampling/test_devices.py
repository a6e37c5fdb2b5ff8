"""On another device: nothing of the host is mixed in, and the samples are the host's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from tests.elsewhere import There, elsewhere

B = 3
STATES = torch.randn(B, 2, generator=torch.Generator().manual_seed(0)).double()
CATALOGUE = sg.solvers.catalogue()


QUICK = {type(entry.build()): name for name, entry in CATALOGUE.items()}
"""One of each class; all of them, and those that take their time, are slow here."""
LONG = ("scipy_dop853", "gotta_go_fast", "adaptive_multistep_x0", "torchdiffeq_adams")


def cases() -> list[Any]:
    quick = set(QUICK.values()) - set(LONG)
    return [pytest.param(n, marks=[] if n in quick else pytest.mark.slow) for n in CATALOGUE]


@pytest.mark.parametrize("name", cases())
def test_every_solver_gives_the_hosts_samples(name: str) -> None:
    solver = CATALOGUE[name].build()
    model = exact_model(Gaussian([1.0, 0.0], [0.8, 0.5]), sg.VPSDE(t_min=0.1))
    how: dict[str, Any] = {"solver": solver, "seed": list(range(B)), "denoise": True}
    if solver.traits.adaptive:
        how["solver"] = replace(solver, rtol=0.3, atol=0.3)
    else:
        how["steps"] = 3
    here = sg.sample(model, STATES, **how)
    there = elsewhere(lambda move: sg.sample(model, move(STATES), **how))
    assert torch.equal(here, there)


def test_mixing_devices_is_seen() -> None:
    with pytest.raises(AssertionError, match="same device"):
        elsewhere(lambda move: move(STATES) + STATES)
    assert torch.equal(elsewhere(lambda move: move(STATES) + STATES[0, 0]), STATES + STATES[0, 0])


class Writing(nn.Module):
    """x times its label, which it doubles in place; labels of three networks in all."""

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        assert isinstance(x, There) == isinstance(label, There)
        out = x * label[:, None]
        label.mul_(2)
        return out


def test_a_label_that_is_written_into_is_written_anew() -> None:
    model = sg.ScoreModel(Writing(), sg.VPSDE())
    how: dict[str, Any] = {"solver": sg.DPMSolverPP(2), "steps": 4}
    plain = sg.ScoreModel(lambda x, label: x * label[:, None], sg.VPSDE())
    truth = sg.sample(plain, STATES, **how)
    for _ in range(2):
        assert torch.equal(sg.sample(model, STATES, **how), truth)

    def twice(move: Any) -> tuple[Tensor, Tensor]:
        x = move(STATES)
        return sg.sample(model, x, **how), sg.sample(model, x, **how)

    assert all(torch.equal(each, truth) for each in elsewhere(twice))


class Slope(nn.Module):
    """A network with a parameter, on the device where it is made."""

    def __init__(self, move: Any) -> None:
        super().__init__()
        self.w = nn.Parameter(move(torch.tensor([[0.3, 0.1], [0.0, 0.2]]).double()))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x @ self.w + 0.1 * t[:, None]


@pytest.mark.slow
def test_a_solver_is_tuned() -> None:
    def tuned(move: Any) -> Tensor:
        model = sg.ScoreModel(Slope(move), sg.VPSDE(), "eps")
        how: dict[str, Any] = {"shape": (2,), "seeds": 32, "iterations": 4, "fine": 10}
        return torch.tensor(sg.tune(model, nfe=3, **how).times)

    assert torch.equal(tuned(lambda x: x), elsewhere(tuned))


@pytest.mark.parametrize(
    "how",
    [
        {"solver": sg.AdaptiveRK(rtol=0.1, atol=0.1)},
        {"solver": sg.UniPC(), "steps": 3},
        {"divergence": "exact", "steps": 3, "solver": sg.Heun()},
    ],
)
def test_log_prob(how: dict[str, Any]) -> None:
    model = exact_model(Gaussian([1.0, 0.0], [0.3, 0.5]), sg.VPSDE())
    here = sg.log_prob(model, STATES, seed=0, **how)
    there = elsewhere(lambda move: sg.log_prob(model, move(STATES), seed=0, **how).value)
    assert torch.equal(here.value, there)

"""Where no method is exact: what takes its bias away, against the exact posterior of a mixture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Mixture, exact_model, posterior
from sdegen.guidance import mmps

FOUR = Mixture(
    [[0.9, -0.2], [-0.1, 0.9], [-1.0, 0.5], [0.5, -1.0]], [0.25, 0.3, 0.3, 0.3], [0.25] * 4
)
Y, STD, N = torch.tensor([[0.45]]).double(), 0.1, 500


def first(x: Tensor) -> Tensor:
    return x[:, :1]


def test_langevin_steps_and_repaint_mix_modes_that_a_method_weighs_wrongly() -> None:
    """MMPS puts too much into modes of little weight; ten Langevin steps a level on
    score + grad log p(y | x_t), or RePaint's climbs, bring the mean to within half of that."""
    sde = sg.EDMSDE()
    want = posterior(FOUR, torch.tensor([[1.0, 0.0]]), Y, STD)
    mean = float((want.weights[:, None] * want.means).sum(0)[1])
    model = mmps(exact_model(FOUR, sde), Y, first, STD, iterations=1)
    mixing = sg.PredictorCorrector(sg.DDIM(), sg.Langevin(0.7), n=10)
    how: dict[str, dict[str, Any]] = {
        "plain": {"solver": sg.DPMSolverPP(2), "steps": 20, "eta": 1.0},
        "langevin": {"solver": mixing, "steps": 20},
        "repaint": sg.recipes.repaint(20, 5, 8, grid=sg.walks.log_snr),
    }
    off = {
        name: abs(float(sg.sample(model, (N, 2), seed=0, **each).double()[:, 1].mean()) - mean)
        for name, each in how.items()
    }
    assert off["plain"] > 0.25
    assert off["langevin"] < off["plain"] / 2 and off["repaint"] < off["plain"] / 2, off

"""Time labels where an SDE ends: what is infinite there is no label."""

from __future__ import annotations

from typing import Any

import pytest

import sdegen as sg
from sdegen.networks import MLP
from tests.cases import refused


@pytest.mark.parametrize("how", [{"time": "c_noise"}, {"time": "lam"}, {"predicts": "edm"}])
def test_a_label_that_is_infinite_at_pure_noise_is_refused(how: dict[str, Any]) -> None:
    """Told infinity a network says NaN, and every sample that begins at T would be one."""
    sde = sg.FlowSDE(T=1.0)
    with refused("infinite at t = 1, where FlowSDE.* has no signal left.*take time='tau'"):
        sg.ScoreModel(MLP(2, width=8), sde, **{"predicts": "velocity", **how})
    for time in ("tau", "t"):
        model = sg.ScoreModel(
            MLP(2, width=8), sde, **{"predicts": "velocity", **how, "time": time}
        )
        x = sg.sample(model, (2, 2), solver=sg.DDIM(), walk="straight", steps=2, seed=0)
        assert bool(x.isfinite().all())
    sg.ScoreModel(MLP(2, width=8), sg.FlowSDE(), **{"predicts": "velocity", **how})

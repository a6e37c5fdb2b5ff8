"""torchdiffeq's pairs stay inside, and give no sample up for the others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import exact_model
from tests.cases import MIXTURE, close, normal


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun"])
def test_torchdiffeq_stays_inside_and_ends_at_the_end(method: str) -> None:
    seen: list[float] = []

    def label(level: sg.sde.Instant) -> Tensor:
        seen.append(float(level.t))
        return level.t

    sde = sg.VPSDE()
    exact = exact_model(MIXTURE, sde)
    model = sg.ScoreModel(lambda x, t: exact(x, t).eps, sde, time=label)
    seen.clear()
    walk = torch.tensor([1.0, 0.4, 1e-3], dtype=torch.float64)
    out = sg.solve(
        model, normal(4, 2), solver=sg.solvers.TorchDiffEq(method, 1e-4, 1e-4), walk=walk
    )
    assert len(seen) == model.nfe == int(out.nfe[0])
    # 0.4 is the end of one step and the start of the next, and belongs to both
    turn = seen.index(0.4)
    assert all(0.4 <= t <= 1.0 for t in seen[:turn])
    assert all(1e-3 <= t <= 1.0 for t in seen)
    assert out.status.tolist() == [0] * 4


def test_torchdiffeq_gives_no_sample_up_for_the_others() -> None:
    """The error norm is the worst sample's: ten thousand that rest do not loosen its tolerance."""
    model = sg.ScoreModel(lambda x, t: 5 * torch.sin(9 * t)[:, None] * x, sg.VPSDE(), "velocity")
    alone = normal(1, 2)
    crowd = torch.cat([alone, torch.zeros(10_000, 2, dtype=torch.float64)])
    for method in ("dopri5", "bosh3"):
        one, all_ = (
            sg.solve(model, x, solver=sg.solvers.TorchDiffEq(method)) for x in (alone, crowd)
        )
        assert one.nfe[0] == all_.nfe[0]
        close(all_.x[:1], one.x)

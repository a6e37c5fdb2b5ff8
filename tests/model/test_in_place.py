"""Networks that work in place: what they are handed is not theirs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from tests.cases import close, normal, refused


class InPlace(nn.Module):
    """Its first layer writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.ReLU(inplace=True), nn.Linear(2, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y: Tensor = self.last(self.first(x))
        return y


@pytest.mark.parametrize("predicts", ["v", "edm"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_a_network_that_writes_into_its_input_spoils_nothing(mode: Any, predicts: str) -> None:
    """It samples as one that copies first, and what it is handed stays as it was."""
    net, x = InPlace(), normal(3, 2, dtype=torch.float32)
    start = x.clone()
    one = sg.ScoreModel(net, sg.VPSDE(), predicts)
    two = sg.ScoreModel(lambda x, t: net(x.clone(), t), sg.VPSDE(), predicts, module=net)
    with mode():
        for _ in range(2):
            assert torch.equal(one(x, 0.5).x0, two(x, 0.5).x0)
            assert torch.equal(x, start)
    for solver in (sg.DDIM(), sg.Heun(), sg.AdaptiveRK(rtol=0.5, atol=0.5)):
        how = {} if solver.traits.adaptive else {"steps": 3}
        with mode():
            end, want = (sg.sample(model, x, solver=solver, **how) for model in (one, two))  # type: ignore[arg-type]
        close(end, want, rtol=1e-5, atol=1e-5)
        assert torch.equal(x, start)


def test_a_network_that_writes_into_a_condition_is_refused() -> None:
    def net(x: Tensor, t: Tensor, c: Tensor, d: dict[str, Tensor]) -> Tensor:
        return x + c.mul_(0.5) if bool(t[0] > 0.3) else x + d["e"].mul_(0.5)

    for t, name in ((0.5, "c"), (0.2, "d")):
        model = sg.ScoreModel(net, sg.VPSDE()).given(c=normal(3, 2), d={"e": normal(3, 2)})
        with refused(f"The network has written into its condition {name}, which every call is"):
            model(normal(3, 2), t)


def test_states_are_copied_once_where_nothing_is_written_and_a_later_write_is_refused() -> None:
    handed, rude = list[Tensor](), [False]

    def net(x: Tensor, t: Tensor) -> Tensor:
        handed.append(x)
        return x.mul_(2.0) if rude[0] else 2 * x

    model, x = sg.ScoreModel(net, sg.VPSDE(), "x0"), normal(3, 2)
    for _ in range(3):
        model(x, 0.5)
    assert [each is x for each in handed] == [False, True, True]
    rude[0] = True
    with refused("The network has written into the states that it was handed, which it had not"):
        model(x.clone(), 0.5)
    before = x.clone()
    close(model(x, 0.5).x0, 2 * before)
    assert torch.equal(x, before)

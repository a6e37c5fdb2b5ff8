"""The share of a consistency loss that learns the flow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.distill import Consistency, squared
from sdegen.networks import MLP
from tests.cases import normal, refused


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_share_of_consistency_learns_the_flow(share: float) -> None:
    """At no distance, at all times, by its own labels and by what flow matching says; the others
    go to the end. A network that is the exact flow has no slope there."""
    torch.manual_seed(0)
    sde, b, seen = sg.FlowSDE(T=1.0), 600, list[tuple[Tensor, Tensor]]()
    v = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def net(x: Tensor, tau: Tensor, jump: Tensor, y: Tensor) -> Tensor:
        """Of data at one point a class, 3 y: eps - x0 with x0 known."""
        seen.append((tau, torch.zeros_like(tau) + jump))
        return (x - 3.0 * y[:, None]) / tau[:, None] + v

    y = torch.randint(2, (b,))
    x0 = 3.0 * y[:, None].double().expand(b, 2).contiguous()
    model = sg.ScoreModel(net, sde, predicts="velocity", time="tau").given(y=y)
    loss = Consistency(steps=4, distance=squared, share=share)(model, x0)
    assert loss.shape == (b,) and float(loss.detach().max()) < 1e-20
    tau, jump = seen[-1]  # of the student, after its target
    still = jump == 0
    assert len(seen) == 2 and abs(int(still.sum()) - share * b) < 4 * math.sqrt(b / 4)
    assert abs(float(tau[still].mean()) - 0.5) < 0.06 and float(tau[still].min()) < 0.1
    assert bool((jump[~still] > 0.1).all())
    (slope,) = torch.autograd.grad(loss.sum(), v)
    assert abs(float(slope)) < 1e-9


def test_without_a_share_consistency_is_what_it_was() -> None:
    """To the bit, and its draws too; a batch of one is of either kind."""
    model = sg.ScoreModel(
        MLP(2, width=8, depth=1, numbers=("jump",)).double(), sg.VPSDE(), "v", time="tau"
    )
    x0 = normal(8, 2)

    def of(x: Tensor, seed: int, loss: Consistency) -> Tensor:
        return loss(model, x, torch.Generator().manual_seed(seed)).detach()

    for seed in range(2):
        plain = of(x0, seed, Consistency(steps=4))
        assert torch.equal(plain, of(x0, seed, Consistency(steps=4, share=0.0)))
        assert not torch.equal(plain, of(x0, seed, Consistency(steps=4, share=0.5)))
    assert all(
        bool(of(x0[:1], seed, Consistency(steps=4, share=0.5)).isfinite()) for seed in range(8)
    )


def test_a_share_is_a_part() -> None:
    with refused("share lies in"):
        Consistency(share=1.5)

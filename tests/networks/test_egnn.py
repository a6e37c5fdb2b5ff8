"""Clouds of points: turned, put in another order, and short of points."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.networks import EGNN
from tests.cases import close, normal, refused

T = torch.tensor([0.1, 0.7, 0.4], dtype=torch.float64)


def trained(dims: int = 3, features: int = 2, **told: Any) -> EGNN:
    """One whose weights are none of those that it begins with."""
    net = EGNN(features, 16, 2, dims, **told).double()
    with torch.no_grad():
        for k, p in enumerate(net.parameters()):
            p.copy_(0.3 * normal(*p.shape, seed=k))
    return net


def turned(x: Tensor, R: Tensor) -> Tensor:
    return torch.cat([R @ x[:, : len(R)], x[:, len(R) :]], 1)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("features", [0, 2])
@pytest.mark.parametrize("mirrored", [False, True])
def test_turns_with_the_cloud(dims: int, features: int, mirrored: bool) -> None:
    net, x = trained(dims, features), normal(3, dims + features, 5)
    R = torch.linalg.qr(normal(dims, dims, seed=1))[0]
    if (torch.linalg.det(R) < 0) != mirrored:
        R = torch.cat([-R[:1], R[1:]])
    close(net(turned(x, R), T), turned(net(x, T), R), atol=1e-12)
    assert float(net(x, T).detach().abs().max()) > 0.1


def test_goes_with_the_order_of_points() -> None:
    net, x, order = trained(), normal(3, 5, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    there = torch.arange(6) < torch.tensor([[6], [4], [2]])
    close(
        net(x[..., order], T, there=there[:, order]),
        net(x, T, there=there)[..., order],
        atol=1e-12,
    )


def test_points_that_are_not_there_are_seen_by_none() -> None:
    """A cloud of three points is one of three, whatever stands in the places of others."""
    net, x = trained(), normal(3, 5, 6)
    x[0, :, 4], x[1, 0, 5] = float("nan"), 1e200
    there = torch.arange(6) < 3
    out = net(x, T, there=there.expand(3, -1))
    close(out[..., :3], net(x[..., :3], T), atol=1e-12)
    assert not out[..., 3:].any()
    x = normal(3, 5, 6)
    close(net(x, T, there=torch.ones(3, 6, dtype=torch.bool)), net(x, T), atol=0)


def test_two_points_at_one_place_have_a_gradient() -> None:
    net, x = trained(), normal(1, 5, 3).expand(3, -1, -1).clone()
    x[..., 1] = x[..., 0]
    x.requires_grad_()
    net(x, T).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_one_point_goes_along_its_place() -> None:
    net, x = trained(features=1), normal(3, 4, 1)
    assert torch.linalg.matrix_rank(torch.cat([net(x, T)[0, :3], x[0, :3]], 1)) == 1


def test_samples_turn_with_their_start() -> None:
    """The law that is drawn has no orientation: the start's is none, and each step keeps it."""
    model = sg.ScoreModel(trained(numbers=["w"]), sg.VPSDE(), "edm").given(w=0.5)
    x, R = normal(3, 5, 4), torch.linalg.qr(normal(3, 3, seed=2))[0]
    ends = [sg.sample(model, each, nfe=6) for each in (x, turned(x, R))]
    close(ends[1], turned(ends[0], R), atol=1e-9)


def test_misfits_are_refused() -> None:
    net = EGNN(2)
    with refused(r"x has shape \(3, 4, 5\), expected \(B, 5, n\): 3 of a place, 2 features"):
        net(torch.zeros(3, 4, 5), T.float())
    with refused(r"x has shape \(3, 5\), expected"):
        net(torch.zeros(3, 5), T.float())
    for there in (torch.ones(3, 4), torch.ones(3, 5, dtype=torch.bool), torch.ones(4) > 0):
        with refused(r"there is .*, expected booleans \(3, 4\)"):
            net(torch.zeros(3, 5, 4), T.float(), there=there)
    for words, bad in (
        ({"features": -1}, "features"),
        ({"width": 0}, "width"),
        ({"dims": 4}, "dims"),
    ):
        with refused(bad):
            EGNN(**{"features": 1, **words})

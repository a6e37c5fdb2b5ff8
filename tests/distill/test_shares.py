"""The share of a consistency loss that learns the flow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.distill import Consistency, squared
from sdegen.exact import Gaussian, exact_model
from sdegen.networks import MLP
from tests.cases import close, normal, refused


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


def test_without_a_share_consistency_is_the_published_loss() -> None:
    """Written out on the flow, where y is x: d(f(x_t, t), f(x_u, u)) / (t - u), one x0 and z."""
    sde, n, x0 = sg.FlowSDE(T=0.99, t_min=0.01), 4, normal(8, 2)
    net = MLP(2, width=8, depth=1, numbers=("jump",)).double()
    torch.nn.init.normal_(net.leave.weight)
    model = sg.ScoreModel(net, sde, "velocity", time="tau")

    def to_the_end(x: Tensor, t: Tensor) -> Tensor:
        way = (t - 0.01)[:, None]
        return x - way * net(x, t, jump=way[:, 0])

    draws = torch.Generator().manual_seed(0)
    i = torch.randint(n, (8,), generator=draws)
    z = torch.randn(8, 2, generator=draws, dtype=torch.float64)
    times = torch.linspace(0.99, 0.01, n + 1, dtype=torch.float64)
    t, u = times[i], times[i + 1]
    one, two = (to_the_end((1 - s)[:, None] * x0 + s[:, None] * z, s) for s in (t, u))
    wanted = (one - two).square().mean(1) / (t - u)
    loss = Consistency(steps=n, distance=squared)(model, x0, torch.Generator().manual_seed(0))
    close(loss, wanted, rtol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_learns_the_teachers_flow(share: float) -> None:
    """That of reflow of N(0, s^2), x0 = s z, is straight: its every jump is its velocity, and a
    student that is it has nothing to learn, though pairs of data and noise say another flow."""
    torch.manual_seed(0)
    sde, s = sg.FlowSDE(T=1.0), 0.2
    more = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def flow(x: Tensor, tau: Tensor) -> Tensor:
        return (1 - s) * x / ((1 - tau) * s + tau)[:, None]

    def net(x: Tensor, tau: Tensor, jump: Tensor) -> Tensor:
        return flow(x, tau) + more * x

    how = {"predicts": "velocity", "time": "tau", "flow_only": True}
    teacher, student = sg.ScoreModel(flow, sde, **how), sg.ScoreModel(net, sde, **how)
    loss = Consistency(teacher, steps=8, distance=squared, share=share)(
        student, s * normal(500, 1)
    )
    (slope,) = torch.autograd.grad(loss.sum(), more)
    assert float(loss.detach().max()) < 1e-20 and abs(float(slope)) < 1e-9


@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.EDMSDE(), sg.SubVPSDE()])
def test_all_of_a_batch_learns_a_teachers_flow_on_every_sde(sde: sg.LinearSDE) -> None:
    """The exact denoiser rests there; by the data's own pairs it would be told the noise too."""
    problem, x0 = Gaussian(torch.zeros(2).double(), torch.ones(2).double()), normal(50, 2)

    def denoise(x: Tensor, t: Tensor, jump: Tensor) -> Tensor:
        return problem.denoise(x, sde(t))

    student = sg.ScoreModel(denoise, sde, "x0")
    for teacher, low, high in ((exact_model(problem, sde), 0.0, 1e-16), (None, 1e-2, 1e9)):
        loss = Consistency(teacher, steps=4, share=1.0)(student, x0).mean()
        assert low <= float(loss) < high


class Counted(torch.nn.Module):
    """Zero, and how many samples were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x: Tensor, t: Tensor, jump: Tensor | float = 0.0) -> Tensor:
        self.asked += len(x)
        return torch.zeros_like(x)


@pytest.mark.parametrize(("share", "calls"), [(0.0, 2.0), (0.5, 1.5), (1.0, 1.0)])
def test_a_teacher_is_asked_for_what_is_used(share: float, calls: float) -> None:
    """Twice by Heun's rule for a jump, once for its flow."""
    sde, teacher, student = sg.VPSDE(), Counted(), Counted()
    models = [sg.ScoreModel(net, sde, "v") for net in (teacher, student)]
    Consistency(models[0], steps=4, share=share)(models[1], normal(400, 2))
    assert student.asked == 800 and abs(teacher.asked / 400 - calls) < 0.1


def test_a_batch_of_one_is_of_either_kind() -> None:
    net = MLP(2, width=8, depth=1, numbers=("jump",)).double()
    model, teacher = (sg.ScoreModel(net, sg.VPSDE(), "v", time="tau") for _ in range(2))
    for seed in range(8):
        loss = Consistency(teacher, steps=4, share=0.5)(
            model, normal(1, 2), torch.Generator().manual_seed(seed)
        )
        assert bool(loss.isfinite())


def test_a_share_is_a_part() -> None:
    with refused("share lies in"):
        Consistency(share=1.5)

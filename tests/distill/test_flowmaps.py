"""Flow maps against the exact ones of Gaussian data."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.distill import Consistency, Growing, MeanFlow, PseudoHuber, Shortcut, squared
from sdegen.distill.flowmaps import slope
from sdegen.distill.straight import both, ends, heun, moved, place, times_at, velocity
from sdegen.exact.distributions import Gaussian
from sdegen.networks import MLP, UNet
from sdegen.sde.level import expand
from sdegen.solvers import Jump, Student
from tests.cases import SDES, close, normal, refused

DATA = Gaussian([0.3, -0.2], [[0.5, 0.1], [0.1, 0.3]])
ALL = {**SDES, "flow_whole": sg.FlowSDE(T=1.0)}
every_sde = pytest.mark.parametrize("sde", ALL.values(), ids=ALL)


class ExactMap(torch.nn.Module):
    """The mean prediction of x0 on the way from tau = label to tau - jump, for each sample."""

    def __init__(self, sde: sg.LinearSDE) -> None:
        super().__init__()
        self.sde = sde

    def gains(self, t: sg.Level, s: sg.Level) -> tuple[Tensor, Tensor]:
        """Per axis of the data: x_s - its mean = gain (x_t - its mean), (b, 2)."""
        variances = torch.linalg.eigvalsh(
            torch.tensor([[0.5, 0.1], [0.1, 0.3]], dtype=torch.float64)
        )
        std = [
            (at.alpha[:, None] ** 2 * variances + at.sigma[:, None] ** 2).sqrt() for at in (t, s)
        ]
        return std[1] / std[0], variances

    def forward(self, x: Tensor, tau: Tensor, jump: Tensor | float = 0.0) -> Tensor:
        far = torch.zeros_like(tau) + jump
        t, s = self.sde(times_at(self.sde, tau)), self.sde(times_at(self.sde, tau - far))
        mean = torch.tensor([0.3, -0.2], dtype=torch.float64)
        _, axes = torch.linalg.eigh(torch.tensor([[0.5, 0.1], [0.1, 0.3]], dtype=torch.float64))
        gain, variances = self.gains(t, s)
        along = (x - t.alpha[:, None] * mean) @ axes
        x_s = s.alpha[:, None] * mean + (gain * along) @ axes.T
        still = far.abs() < 1e-9
        u = (place(x_s, s) - place(x, t)) / torch.where(still, 1.0, -far)[:, None]
        # At s = t the velocity itself: eps - x0 of the exact posterior mean.
        a, v = t.alpha[:, None], t.alpha[:, None] ** 2 * variances + t.sigma[:, None] ** 2
        x0 = mean + (a * variances / v * along) @ axes.T
        eps = (t.sigma[:, None] / v * along) @ axes.T
        return both(x, t, torch.where(still[:, None], eps - x0, u))[0]


def exact_map(sde: sg.LinearSDE) -> sg.ScoreModel:
    return sg.ScoreModel(ExactMap(sde), sde, predicts="x0", time="tau")


@every_sde
@pytest.mark.parametrize("steps", [1, 3])
def test_a_jump_ends_where_the_flow_does(sde: sg.LinearSDE, steps: int) -> None:
    """One jump or three, from T to t_min: DDIM's line with the mean prediction of the way."""
    x = sde.prior.sample(normal(4, 2))
    model = exact_map(sde)
    solution = sg.solve(model, x, solver=Jump(), walk=sg.walks.straight(sde, steps))
    close(solution.x, DATA.flow(x, sde(sde.T), sde(sde.t_min)), rtol=1e-10, atol=1e-12)
    assert solution.nfe.tolist() == [steps] * 4


@pytest.mark.parametrize("sde", [s for n, s in ALL.items() if n != "marginal"], ids=str)
def test_mean_velocities_obey_their_equation(sde: sg.LinearSDE) -> None:
    """u = v - (tau_t - tau_s) du/dtau along the flow, on every linear SDE: MeanFlow's identity.

    (A curve's time is found by bisection, through which this test's own map has no derivative.)
    """
    model, (first, last) = exact_map(sde), ends(sde)
    tau = torch.linspace(first * 0.98, last + 0.1 * (first - last), 5, dtype=torch.float64)
    far = (tau - last) * torch.linspace(0.9, 0.2, 5, dtype=torch.float64)
    level = sde(times_at(sde, tau))
    x = sde.mix(normal(5, 2), level, normal(5, 2, seed=1))
    said = model(x, level)  # told nothing: the flow at x itself
    du = slope(model, said.x0, said.eps, tau, far)
    close(
        velocity(model.given(jump=far), x, level),
        said.eps - said.x0 - far[:, None] * du,
        rtol=1e-7,
        atol=1e-8,
    )


@every_sde
def test_shortcut_is_at_rest_at_the_exact_map(sde: sg.LinearSDE) -> None:
    """Two half jumps of the exact map are the whole one, from any place."""
    torch.manual_seed(0)
    loss = Shortcut(share=1.0, halvings=4)(exact_map(sde), normal(16, 2))
    assert loss.shape == (16,) and float(loss.max()) < 1e-16


@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.FlowSDE(T=1.0), sg.EDMSDE()], ids=str)
@pytest.mark.parametrize("solver", [None, sg.DDIM(), sg.Heun()], ids=str)
def test_consistency_distillation_rests_at_its_solvers_samples(
    sde: sg.LinearSDE, solver: sg.Solver | None
) -> None:
    """On Gaussian data f(x_t) = g_i x_t with the gains of the solver's own steps has loss 0."""
    data, grid, n = Gaussian([0.0], [[0.36]]), sg.walks.uniform, 5
    teacher = sg.exact.exact_model(data, sde)
    levels = sg.walks.levels(sde, grid(sde, n))
    gains = [torch.ones((), dtype=torch.float64)]
    one = torch.ones(1, 1, dtype=torch.float64)
    p = sg.Reverse(teacher, 0.0)
    for t, s in list(pairwise(levels))[::-1]:
        ends = heun(teacher, one, t, s) if solver is None else solver.step(p, one, t, s).x
        gains.insert(0, gains[0] * ends.squeeze())
    model = table(sde, levels, torch.stack(gains))
    loss = Consistency(teacher, solver, n, grid, squared)
    off = loss(model, data.sample(64, torch.Generator().manual_seed(0)))
    assert float(off.detach().max()) < 1e-20
    worse = loss(table(sde, levels, torch.stack(gains) * torch.linspace(1.1, 1, n + 1)), one)
    assert float(worse.detach().max()) > 1e-6


def table(sde: sg.LinearSDE, levels: list[sg.Level], gains: Tensor) -> sg.ScoreModel:
    """A flow map to t_min that multiplies by a number for each level, as a model of x0."""
    taus = torch.stack([level.tau for level in levels])
    learned = gains.clone().requires_grad_()

    class Table(torch.nn.Module):
        def forward(self, x: Tensor, tau: Tensor, jump: Tensor | float) -> Tensor:
            i = (taus - tau[:, None]).abs().argmin(1)
            t, s = sde(times_at(sde, tau)), levels[-1]
            x_s = learned[i][:, None] * x
            u = (place(x_s, s) - place(x, t)) / expand(s.tau - t.tau, x)
            return both(x, t, torch.where((i < len(taus) - 1)[:, None], u, 0 * x))[0]

    module = Table()
    module.gains = torch.nn.Parameter(learned)
    learned = module.gains
    return sg.ScoreModel(module, sde, predicts="x0", time="tau")


def test_consistency_training_rests_at_ddims_samples() -> None:
    """Without a teacher its minimum is the n-step DDIM sample, not the flow's: a bias of order
    1 / n.  The loss's gradient is zero there within its error, and not at the flow's gains."""
    sde, std, n = sg.FlowSDE(T=1.0), 0.6, 4
    data, grid = Gaussian([0.0], [[std**2]]), sg.walks.uniform
    levels = sg.walks.levels(sde, grid(sde, n))
    p, one = (
        sg.Reverse(sg.exact.exact_model(data, sde), 0.0),
        torch.ones(1, 1, dtype=torch.float64),
    )
    ddim, flow = [torch.ones((), dtype=torch.float64)], [torch.ones((), dtype=torch.float64)]
    for t, s in list(pairwise(levels))[::-1]:
        ddim.insert(0, ddim[0] * sg.DDIM().step(p, one, t, s).x.squeeze())
        flow.insert(0, flow[0] * data.flow(one, t, s).squeeze())
    close(ddim[0], 0.42, rtol=2e-3)  # of 0.6, from pure noise

    def pull(gains: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and error of the gradient by the gain of the first level."""
        model = table(sde, levels, torch.stack(gains))
        found = []
        for seed in range(20):
            loss = Consistency(None, sg.Heun(), n, grid, squared)
            draws = torch.Generator().manual_seed(seed)
            value = loss(model, data.sample(2000, draws), draws).mean()
            found.append(torch.autograd.grad(value, model.net.gains)[0][0])
        all_of = torch.stack(found)
        return all_of.mean(), all_of.std() / math.sqrt(20)

    mean, error = pull(ddim)
    assert abs(float(mean)) < 4 * float(error)
    mean, error = pull(flow)
    assert abs(float(mean)) > 6 * float(error)


def test_losses_train_networks_and_their_targets_do_not() -> None:
    """Each loss is of the batch's length and has a finite gradient for all that is used."""
    torch.manual_seed(0)
    sde, x0 = sg.FlowSDE(T=1.0), torch.randn(8, 2)
    for loss in (Consistency(steps=4), Shortcut(share=0.5), MeanFlow(share=0.5)):
        net = MLP(2, width=8, depth=1, numbers=("jump",))
        for weight in net.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        model = sg.ScoreModel(net, sde, predicts="velocity", time="tau")
        value = loss(model, x0)
        assert value.shape == (8,) and bool(value.isfinite().all())
        value.mean().backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())


@pytest.mark.parametrize("b", [1, 9])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_mean_flow_derives_only_what_moves(b: int, share: float) -> None:
    """Each sample's loss and the gradient are those of the whole batch's derivative, with which
    this test says the loss; what stays is not differentiated at all."""
    torch.manual_seed(3)
    net = MLP(2, width=8, depth=1, classes=3, numbers=("jump",)).double()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    seen: list[int] = []
    net.register_forward_hook(lambda net, given, out: seen.append(len(out)))
    sde = sg.VPSDE()
    model = sg.ScoreModel(net, sde, predicts="v", time="tau")
    model, x0 = model.given(y=torch.arange(b) % 3), normal(b, 2)
    loss = MeanFlow(share=share)(model, x0, torch.Generator().manual_seed(1))

    draws = torch.Generator().manual_seed(1)
    z = torch.randn(b, 2, generator=draws, dtype=torch.float64)
    two = torch.sigmoid(torch.randn(2, b, generator=draws, dtype=torch.float64) - 0.4)
    still = torch.rand(b, generator=draws) < share
    tau, least = two.clamp(*reversed(ends(sde))).sort(0, descending=True).values
    far = torch.where(still, 0.0, tau - least)
    moving = int((~still).sum())
    assert seen == ([b, moving] if moving else [b])

    at = sde(times_at(sde, tau))
    u = velocity(model.given(jump=far), sde.mix(x0, at, z), at)
    target = z - x0 - far[:, None] * slope(model, x0, z, tau, far)
    off = (u - target).square().sum(1)
    close(loss, off / (off.detach() + 0.01), rtol=1e-12)
    weights = list(net.parameters())
    for found, wanted in zip(
        torch.autograd.grad(loss.sum(), weights),
        torch.autograd.grad((off / (off.detach() + 0.01)).sum(), weights),
        strict=True,
    ):
        close(found, wanted, rtol=1e-9, atol=1e-12)


def test_mean_flow_runs_through_attention() -> None:
    """The fused kernels have no forward mode; the loss takes the plain one."""
    torch.manual_seed(0)
    net = UNet(1, width=8, mults=(1, 2), numbers=("jump",), heads=2)
    model = sg.ScoreModel(net, sg.VPSDE(), predicts="v", time="tau")
    MeanFlow()(model, torch.randn(4, 1, 4, 4)).mean().backward()
    assert net.middle.attention.qkv.weight.grad is not None


def test_dropout_is_the_same_in_student_and_target() -> None:
    """A target seen through another mask would be another network's."""
    masks: list[Tensor] = []

    class Dropped(torch.nn.Module):
        def forward(self, x: Tensor, tau: Tensor, jump: Tensor | float) -> Tensor:
            masks.append(torch.rand(4))
            return 0 * x

    model = sg.ScoreModel(Dropped(), sg.FlowSDE(T=1.0), predicts="velocity", time="tau")
    draws = torch.Generator().manual_seed(0)
    Consistency(steps=4)(model, torch.randn(3, 2), draws)
    close(masks[0], masks[1])


def test_growing_doubles_to_its_end() -> None:
    """Song & Dhariwal (2024), sec. 3.4: 10, 20, .., 1280 at eight equal intervals."""
    growing = Growing(10, 1280, 800)
    assert [growing(k) for k in (0, 99, 100, 350, 799, 10_000)] == [10, 10, 20, 80, 1280, 1280]
    assert Consistency(steps=growing).at(350).step == 350


def test_pseudo_huber_is_quadratic_then_linear() -> None:
    close(PseudoHuber(1.0)(torch.full((1, 4), 1e-3).double()), torch.tensor([0.5e-6]), rtol=1e-2)
    close(PseudoHuber(1e-6)(torch.full((1, 4), 3.0)), torch.tensor([3.0]), rtol=1e-4)


def test_at_no_distance_a_jump_stays() -> None:
    """Whatever the network says: there is nothing to parametrise away."""
    sde = sg.VPSDE()
    level = sde(torch.tensor(0.4, dtype=torch.float64))
    x = normal(3, 2)
    close(moved(x, level, level, normal(3, 2, seed=1)), x, rtol=1e-15)


def test_a_network_is_told_numbers_that_begin_silent() -> None:
    """The weights of a network without them are a network with them; 0 is the same as nothing."""
    torch.manual_seed(0)
    plain = MLP(2, width=8, depth=1)
    torch.nn.init.normal_(plain.leave.weight)
    told = MLP(2, width=8, depth=1, numbers=("jump", "w"))
    missing, _ = told.load_state_dict(plain.state_dict(), strict=False)
    assert {name.split(".")[2] for name in missing} == {"of_jump", "of_w"}
    x, t = torch.randn(3, 2), torch.rand(3)
    close(told(x, t, jump=0.3, w=torch.rand(3)), plain(x, t))
    torch.nn.init.normal_(told.conditioning.told["of_jump"].out.weight)
    assert bool((told(x, t, jump=0.3) != plain(x, t)).any())
    close(told(x, t, jump=torch.zeros(3)), told(x, t))
    with refused("given far, but the numbers that it knows are jump, w"):
        told(x, t, far=1.0)
    with refused(r"jump has shape \(2,\), expected \(\) or \(3,\)"):
        told(x, t, jump=torch.rand(2))


def test_a_jump_needs_a_network_that_is_told() -> None:
    model = sg.ScoreModel(MLP(2, width=8), sg.VPSDE())
    with refused("given jump, but the numbers that it knows are none: build it with numbers"):
        sg.sample(model, (2, 2), solver=Jump(), steps=2)


def test_a_student_walks_its_own_walk_alone() -> None:
    """It is DDIM there, and refuses what it was not trained for."""
    model = sg.exact.exact_model(DATA, sg.VPSDE())
    times = sg.walks.log_snr(sg.VPSDE(), 4)
    x = normal(3, 2)
    close(
        sg.solve(model, x, solver=Student(tuple(times.tolist()))).x,
        sg.solve(model, x, solver=sg.DDIM(), walk=times).x,
    )
    with refused("walk"):
        sg.solve(model, x, solver=Student(tuple(times.tolist())), steps=8)
    with refused("never trained where that ends, which denoise=True would ask it at"):
        sg.sample(model, (2, 2), solver=Student(tuple(times.tolist())), denoise=True)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MeanFlow(share=2.0), "share lies in"),
        (lambda: Shortcut(halvings=0), "halvings"),
        (lambda: Growing(20, 10), "first <= last"),
        (
            lambda: Shortcut()(exact_map(sg.VPSDE()), torch.zeros(2, 2, dtype=torch.int64)),
            "must be floating point",
        ),
        (
            lambda: Consistency(sg.exact.exact_model(DATA, sg.VESDE()), steps=4)(
                exact_map(sg.VPSDE()), normal(2, 2)
            ),
            "The teacher's states are those of VESDE",
        ),
        (
            lambda: Consistency(sg.ScoreModel(UNet(1, width=8, dropout=0.1), sg.VPSDE()), steps=4)(
                exact_map(sg.VPSDE()), torch.zeros(2, 1, 4, 4)
            ),
            "The teacher is in training mode",
        ),
    ],
)
def test_refusals(make: object, words: str) -> None:
    with refused(words):
        make()  # type: ignore[operator]


def test_velocity_and_place_are_each_others() -> None:
    """x0 and eps of a velocity make x again, and that velocity."""
    sde = sg.SubVPSDE()
    level = sde(torch.linspace(0.1, 1, 3, dtype=torch.float64))
    x, model = normal(3, 2), exact_map(sde)
    u = velocity(model, x, level)
    x0, eps = both(x, level, u)
    close(sde.mix(x0, level, eps), x, rtol=1e-12)
    close(eps - x0, u, rtol=1e-12)


@every_sde
def test_the_teachers_own_step_is_near_its_flow(sde: sg.LinearSDE) -> None:
    """The first of eight steps from T, where clocks of other kinds are nine times off on VE."""
    data = Gaussian([0.0], [[0.25]])
    t, u, *_ = sg.walks.levels(sde, sg.walks.straight(sde, 8))
    x = sde.prior.sample(normal(6, 1))
    truth = data.flow(x, t, u)
    step = heun(sg.exact.exact_model(data, sde), x, t, u)
    assert float((step - truth).norm() / truth.norm()) < 0.05


def test_a_small_batch_learns_jumps_too() -> None:
    """Which part of a batch does is drawn: of one sample a quarter of the times."""
    seen: list[float] = []

    def net(x: Tensor, tau: Tensor, jump: Tensor) -> Tensor:
        seen.append(float(jump.max()))
        return 0 * x

    model = sg.ScoreModel(net, sg.FlowSDE(T=1.0), predicts="velocity", time="tau")
    torch.manual_seed(0)
    for _ in range(100):
        Shortcut(share=0.25)(model, torch.zeros(1, 1))
    last = seen[2::3]  # the student's own call, after two of the target
    assert 10 < sum(each > 0 for each in last) < 45


@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.FlowSDE(T=1.0)], ids=str)
def test_multistep_consistency_keeps_the_law(sde: sg.LinearSDE) -> None:
    """With the exact map, down, up and down again ends in the data's mean and covariance."""
    walk = sg.walks.multistep(sde, sg.walks.straight(sde, 3))
    x = sg.solve(exact_map(sde), (4000, 2), solver=Jump(), walk=walk, seed=1).x.double()
    truth = torch.tensor([[0.5, 0.1], [0.1, 0.3]], dtype=torch.float64)
    assert float((torch.cov(x.T) - truth).abs().max()) < 0.05
    assert float((x.mean(0) - torch.tensor([0.3, -0.2])).abs().max()) < 0.05

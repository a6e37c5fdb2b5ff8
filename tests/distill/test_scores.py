"""Score distillation: its gradient in closed form, and where it leads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.distill import Within, sds_loss
from sdegen.exact import Gaussian, Mixture, exact_model
from sdegen.guidance import CFG
from sdegen.networks import MLP
from tests.cases import CLOSED, awake, close, normal, refused

FOUR = {name: CLOSED[name] for name in ("vp", "subvp", "edm", "flow")}
sdes = pytest.mark.parametrize("sde", FOUR.values(), ids=FOUR)


def at(share: float) -> Callable[[sg.SDE, Tensor], tuple[Tensor, Tensor]]:
    """One time for all."""
    return lambda sde, u: (sde.t_min + share * (sde.T - sde.t_min) + 0 * u, torch.ones_like(u))


def gradient(loss: Tensor, x: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss.sum(), x)
    return found


def seeded(model: Any, x: Tensor, **how: Any) -> Tensor:
    return sds_loss(model, x, generator=torch.Generator().manual_seed(0), **how)


def many(theta: list[float], n: int = 20_000) -> Tensor:
    return torch.tensor(theta, dtype=torch.float64).expand(n, -1).clone().requires_grad_()


@sdes
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_of_a_gaussian_the_gradient_is_known(sde: sg.LinearSDE, share: float) -> None:
    """w sigma alpha (theta - mu) / (alpha^2 s^2 + sigma^2) of N(mu, s^2)."""
    mu, s2 = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.25, 1.5]).double()
    x = many([1.0, 0.3])
    g = gradient(seeded(exact_model(Gaussian(mu, s2), sde), x, times=at(share)), x)
    t = sde(sde.t_min + share * (sde.T - sde.t_min))
    wanted = t.sigma**3 * t.alpha * (x[0] - mu) / (t.alpha**2 * s2 + t.sigma**2)
    error = (g.mean(0) - wanted).abs() / (g.std(0) / len(g) ** 0.5 + 1e-15)
    assert error.max() < 4


@sdes
def test_it_goes_down_a_divergence(sde: sg.LinearSDE) -> None:
    """w sigma / alpha of the slope of KL(N(alpha theta, sigma^2) | p_t), by quadrature, for a
    mixture."""
    mixture = Mixture([[-1.0], [0.8]], [0.3, 0.5], [0.4, 0.6])
    t = sde(sde.t_min + 0.4 * (sde.T - sde.t_min))

    def divergence(theta: Tensor) -> Tensor:
        nodes = torch.linspace(-9, 9, 4001, dtype=torch.float64)[:, None]
        law = torch.distributions.Normal(0.0, 1.0)
        weight = law.log_prob(nodes).exp()[:, 0] * (nodes[1, 0] - nodes[0, 0])
        y = t.alpha * theta + t.sigma * nodes
        return (
            weight * (law.log_prob(nodes)[:, 0] - t.sigma.log() - mixture.log_prob(y, t))
        ).sum()

    theta = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(divergence(theta), theta)
    x = many([0.2])
    g = gradient(seeded(exact_model(mixture, sde), x, times=at(0.4)), x)
    wanted = t.sigma**3 / t.alpha * slope
    assert abs(float(g.mean() - wanted)) < 4 * float(g.std()) / len(g) ** 0.5


def test_no_gradient_goes_through_the_network() -> None:
    net = awake(MLP(2, 16, 2))
    model, x = sg.ScoreModel(net, sg.VPSDE(), "eps"), normal(5, 2).requires_grad_()
    loss = seeded(model, x)
    loss.sum().backward()
    assert all(p.grad is None for p in net.parameters()) and model.nfe == 1
    draws = torch.Generator().manual_seed(0)
    u = torch.rand(5, dtype=torch.float64, generator=draws)
    t = model.sde(Within()(model.sde, u)[0])
    z = torch.randn(5, 2, dtype=torch.float64, generator=draws)
    w = t.sigma[:, None]
    with torch.no_grad():
        eps = model(t.alpha[:, None] * x + w * z, t).eps
    assert x.grad is not None
    close(x.grad, w**2 * (eps - z))
    close(loss, x.grad.square().sum(1) / 2)


def test_what_made_the_state_gets_it_by_the_chain_rule() -> None:
    model, W = exact_model(Gaussian([0.0, 0.0], [1.0, 1.0]), sg.VPSDE()), normal(3, 2)
    theta = normal(4, 3, seed=1).requires_grad_()
    x = (theta @ W).detach().requires_grad_()
    close(gradient(seeded(model, theta @ W), theta), gradient(seeded(model, x), x) @ W.T)


def test_weights_and_factors_multiply() -> None:
    model, x = exact_model(Gaussian([1.0], [0.5]), sg.VPSDE()), normal(6, 1).requires_grad_()
    plain = gradient(seeded(model, x, weighting=lambda t: torch.ones_like(t.sigma)), x)

    def times(sde: sg.SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        t, one = Within()(sde, u)
        return t, 3 * one

    three = gradient(seeded(model, x, weighting=lambda t: 0 * t.sigma + 2, times=times), x)
    close(three, 6 * plain)


def test_times_lie_within_their_part() -> None:
    sde, u = sg.FlowSDE(), torch.tensor([0.0, 0.5, 1.0]).double()
    t, factor = Within(0.25, 0.75)(sde, u)
    close(t, sde.t_min + torch.tensor([0.25, 0.5, 0.75]).double() * (sde.T - sde.t_min))
    assert factor.tolist() == [1, 1, 1]


def test_it_is_of_the_guided_model() -> None:
    """With CFG: eps of both, extrapolated."""
    inner = sg.ScoreModel(awake(MLP(2, 16, 2, classes=3)), sg.VPSDE(), "eps")
    model, x = inner.given(y=torch.tensor([0, 1, 2, 0])), normal(4, 2).requires_grad_()
    without = inner.given(y=torch.full((4,), 3))
    a, b = (gradient(seeded(m, x), x) for m in (without, model))
    c = gradient(seeded(CFG(model, 7.0, without={"y": 3}), x), x)
    close(c, a + 7 * (b - a), rtol=1e-9)


def settled(high: float, steps: int = 400) -> tuple[Tensor, Tensor]:
    """Where 60 particles end, by Adam, and how far from the modes, in deviations of these."""
    modes, s = 4 * torch.tensor([[-1.0, 0.0], [1.0, 0.5], [0.0, -1.2]]).double(), 0.15
    model = exact_model(Mixture(modes, [s] * 3, [1 / 3] * 3), sg.VPSDE())
    torch.manual_seed(0)
    x = (6 * normal(60, 2)).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        sds_loss(model, x, times=Within(0.02, high)).sum().backward()
        optimizer.step()
        schedule.step()
    away = torch.cdist(x.detach(), modes)
    assert len(away.argmin(1).unique()) == 3
    return x.detach(), away.amin(1) / s


def test_particles_seek_modes_and_not_the_distribution() -> None:
    """Where modes are apart at all of its noise: within three deviations of one, and nearer than
    draws are, as its fixed points have no variance."""
    _, away = settled(0.3)
    assert away.max() < 3
    assert away.square().mean() < 0.3 * 2  # of draws, chi-square of two


def test_noise_in_which_modes_are_one_draws_to_their_middle() -> None:
    """With the published times particles end between modes and the mean of all data."""
    x, away = settled(0.98)
    assert away.min() > 3 and x.norm(dim=1).max() < 5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda m, x: sds_loss(m, x.long()), "floating point"),
        (lambda m, x: sds_loss(m, x[:0]), "b >= 1"),
        (lambda m, x: sds_loss(m, x * torch.nan), "finite"),
        (lambda m, x: Within(0.9, 0.2), "0 <= low < high <= 1, not 0.9 and 0.2"),
        (lambda m, x: Within(-0.1, 0.2), "low < high"),
        (
            lambda m, x: sds_loss(sg.ScoreModel(m.net, m.sde, "x0", flow_only=True), x),
            "Score distillation works with the score",
        ),
    ],
)
def test_what_has_no_score_is_refused(wrong: Callable[[Any, Tensor], Any], said: str) -> None:
    with refused(said):
        wrong(exact_model(Gaussian([0.0], [1.0]), sg.VPSDE()), normal(3, 1))


class OnlyDrift(sg.SDE):
    """An SDE without marginals."""

    T, t_min = 1.0, 0.0

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return -(x**3)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tensor(0.5)

    @property
    def prior(self) -> sg.Prior:
        return sg.Prior()


def test_an_sde_without_marginals_is_refused() -> None:
    with refused("Score distillation needs alpha and sigma"):
        sds_loss(sg.ScoreModel(lambda x, t: x, OnlyDrift(), "score"), normal(3, 1))

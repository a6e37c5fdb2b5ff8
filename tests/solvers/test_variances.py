"""Learned variances against the best ones, of data whose posterior variance is known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.exact.distributions import Gaussian
from sdegen.guidance import CFG, Thresholded
from sdegen.likelihood import discrete_elbo
from sdegen.losses import hybrid_loss
from sdegen.noise import Seeded
from sdegen.solvers import LearnedVariance, Range, Residual, Square
from sdegen.solvers.variances import parts
from tests.cases import MIXTURE, close, normal, refused

VP = sg.VPSDE()
LEVELS: list[Any] = sg.walks.levels(VP, sg.walks.log_snr(VP, 6))


def posterior_variance(data: Any, x: Tensor, level: sg.Level) -> Tensor:
    """Var[x0_i | x_t] = sigma^2 / alpha d x0_i / d x_i, (b, d).  Tweedie's second formula."""
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: data.denoise(y[None], level)[0]))(x)
    return level.sigma**2 / level.alpha * jacobian.diagonal(dim1=1, dim2=2)


def two_heads(data: Any, sde: sg.LinearSDE, says: Any) -> sg.ScoreModel:
    """The exact mean of x0 beside what ``says`` makes of x, its level and that mean."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        level = sde(t[0])
        x0 = data.denoise(x, level)
        return torch.cat([x0, says(x, level, x0)], dim=1)

    return sg.ScoreModel(net, sde, predicts="x0", heads=2)


def of_square(data: Any) -> Any:
    """E[eps^2 | x_t]."""

    def says(x: Tensor, level: sg.Level, x0: Tensor) -> Tensor:
        eps = (x - level.alpha * x0) / level.sigma
        return eps**2 + posterior_variance(data, x, level) / level.rho**2

    return says


def of_residual(data: Any) -> Any:
    """Var[eps | x_t]."""
    return lambda x, level, x0: posterior_variance(data, x, level) / level.rho**2


@pytest.mark.parametrize(("more", "name"), [(-1.0, "small"), (1.0, "large")])
def test_the_ends_of_the_range_are_ddpms_variances(more: float, name: Any) -> None:
    """Of the bound, to rounding, and of the sampler."""
    model = two_heads(MIXTURE, VP, lambda x, level, x0: 0 * x + more)
    x = MIXTURE.sample(5, torch.Generator().manual_seed(0))
    learned = discrete_elbo(model, x, steps=6, variance=Range(), seed=0)
    close(learned.diffusion, discrete_elbo(model, x, steps=6, variance=name, seed=0).diffusion)
    how: dict[str, Any] = {"steps": 6, "seed": 0}
    close(
        sg.sample(model, (4, 2), solver=LearnedVariance(), **how),
        sg.sample(model, (4, 2), solver=sg.Ancestral(name), **how),
        rtol=1e-6,
    )


@pytest.mark.parametrize("mean_eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("head", [Square(), Residual()], ids=str)
def test_a_gaussians_law_is_kept_at_any_number_of_steps(head: Any, mean_eta: float) -> None:
    """With the posterior's variance a step keeps the marginal's: three steps are exact."""
    data = Gaussian([0.0], [[0.3]])
    says = (of_square if isinstance(head, Square) else of_residual)(data)
    model, solver = two_heads(data, VP, says), LearnedVariance(head, mean_eta)
    levels: list[Any] = sg.walks.levels(VP, sg.walks.log_snr(VP, 3))
    for t, s in pairwise(levels):
        one = torch.ones(1, 1, dtype=torch.float64)
        said = model(one, t)
        keep = parts(t, s, mean_eta)[1]
        gain = said.view(s.alpha, s.sigma * keep)  # at x = 1
        v = head.variance(said, t, s, mean_eta)
        var_t, var_s = (0.3 * at.alpha**2 + at.sigma**2 for at in (t, s))
        close(gain**2 * var_t + v, var_s.reshape(1, 1), rtol=1e-9)
    x = sg.sample(model, (20_000, 1), solver=solver, steps=3, seed=0)
    assert abs(float(x.var()) - float(var_s)) < 0.015


def test_the_best_variance_has_the_best_bound() -> None:
    """Of a mixture at 10 steps: better than DDPM's two by far, and than the best scalar."""
    x = MIXTURE.sample(400, torch.Generator().manual_seed(0))
    model = two_heads(MIXTURE, VP, of_residual(MIXTURE))
    how: dict[str, Any] = {"steps": 10, "seed": 0}
    best = discrete_elbo(model, x, variance=Residual(), **how).diffusion
    small, large = (
        discrete_elbo(model, x, variance=v, **how).diffusion for v in ("small", "large")
    )
    assert float(best.mean()) < float(large.mean()) - 0.05 < float(small.mean())
    square = two_heads(MIXTURE, VP, of_square(MIXTURE))
    close(best, discrete_elbo(square, x, variance=Square(), **how).diffusion, rtol=1e-9)


def test_the_optimum_of_the_range_is_the_posteriors_variance() -> None:
    """Its loss over the posterior is least where v = small + w^2 Var[x0 | x_t]."""
    data = Gaussian([0.0], [[0.3]])
    t, s = LEVELS[3], LEVELS[4]
    fresh, _, w = parts(t, s, 1.0)
    x = normal(1, 1)
    x0 = data.denoise(x, t)
    V = posterior_variance(data, x, t)
    best = s.sigma**2 * fresh + w**2 * V
    low, high = fresh * s.sigma**2, fresh * t.sigma**2
    f = (best.log() - low.log()) / (high.log() - low.log())
    nodes = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    weights = torch.exp(-(nodes**2) / 2)
    drawn = (x0 + V.sqrt() * nodes[:, None]).expand(4001, 1)
    more = (2 * f - 1).clone().requires_grad_()
    many = more.expand(4001, 1)
    said = sg.ScoreModel(
        lambda y, time: torch.cat([x0.expand(4001, 1), many], 1), VP, "x0", heads=2
    )(x.expand(4001, 1), t)
    loss = (Range().loss(said, drawn, drawn, t, s)[:, 0] * weights).sum() / weights.sum()
    (slope,) = torch.autograd.grad(loss, more)
    close(slope, torch.zeros(1, 1), atol=1e-9)


class Pair(nn.Module):
    """A mean and a second output with parameters of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([self.mean(x), self.head(x)], dim=1)


@pytest.mark.parametrize("head", [Range(), Square(), Residual()], ids=str)
def test_what_the_head_learns_does_not_move_the_mean(head: Any) -> None:
    """Its gradient on the first channels is none at all, and the mean's on it."""
    torch.manual_seed(0)
    net = Pair()
    model, x0 = sg.ScoreModel(net, VP, heads=2), torch.randn(6, 2)
    gradients = []
    for share in (0.0, 1.0):
        net.zero_grad()
        draws = torch.Generator().manual_seed(1)
        loss = hybrid_loss(model, x0, head=head, steps=20, share=share, generator=draws)
        assert loss.shape == (6,)
        loss.mean().backward()
        gradients.append([p.grad.clone() for p in net.parameters()])  # type: ignore[union-attr]
    (plain, whole) = gradients
    assert torch.equal(plain[0], whole[0]) and torch.equal(plain[1], whole[1])
    assert not bool(plain[2].any()) and bool(whole[2].any())
    before = model.nfe
    hybrid_loss(model, x0, head=head)
    assert model.nfe == before + 1


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (
            lambda: sg.sample(
                sg.exact.exact_model(MIXTURE, VP), (2, 2), solver=LearnedVariance(), steps=2
            ),
            r"make the model ScoreModel\(net, sde, heads=2\)",
        ),
        (
            lambda: sg.sample(
                Thresholded(sg.ScoreModel(Pair(), VP, heads=2), data_range=(-1, 1)),
                (2, 2),
                solver=LearnedVariance(),
                steps=2,
            ),
            "a wrapper has one output",
        ),
        (
            lambda: sg.sample(
                sg.ScoreModel(Pair(), sg.FlowSDE(T=1.0), "velocity", heads=2),
                (2, 2),
                solver=LearnedVariance(Residual()),
                steps=2,
                walk="uniform",
            ),
            "where there is no signal: end the SDE earlier",
        ),
        (
            lambda: hybrid_loss(
                sg.ScoreModel(Pair(), sg.FlowSDE(T=0.99, t_min=0.0), "velocity", heads=2),
                normal(2, 2).float(),
                head=Range(),
                steps=5,
                grid=sg.walks.uniform,
            ),
            "goes to data without noise",
        ),
        (lambda: LearnedVariance(Range(), 0.5), "Range is between DDPM's variances"),
        (lambda: LearnedVariance(Square(), 1.5), "mean_eta lies in"),
        (
            lambda: hybrid_loss(sg.ScoreModel(lambda x, t: x, VP), normal(2, 2), head=Range()),
            r"heads=2",
        ),
        (
            lambda: discrete_elbo(
                sg.exact.exact_model(MIXTURE, VP), normal(2, 2), steps=2, variance=Range()
            ),
            "heads=2",
        ),
    ],
)
def test_refusals(use: Any, words: str) -> None:
    with refused(words):
        use()


def test_a_sample_is_its_own() -> None:
    """Alone as in a batch, with the noise of its own stream."""
    torch.manual_seed(0)
    model = sg.ScoreModel(Pair().double(), VP, heads=2)
    x = normal(3, 2)
    how: dict[str, Any] = {"solver": LearnedVariance(Residual()), "steps": 4}
    both = sg.solve(model, x, noise=Seeded(0), **how).x
    close(both[1:2], sg.solve(model, x[1:2], noise=Seeded(0, 1), **how).x, rtol=1e-12)


def test_guidance_moves_the_mean_alone() -> None:
    """CFG of a model of two heads is CFG of its first output: the second is not mixed in,
    and is not handed on."""

    def first(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return x * (1 + y[:, None])

    def both(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return torch.cat([first(x, t, y), 100.0 + 0 * x], dim=1)

    x, y = normal(3, 2), torch.tensor([1, 2, 0])
    one, two = sg.ScoreModel(first, VP).given(y=y), sg.ScoreModel(both, VP, heads=2).given(y=y)
    guided = [CFG(model, 3.0, {"y": 0})(x, VP(0.5)) for model in (one, two)]
    assert torch.equal(guided[0].eps, guided[1].eps)
    assert guided[1].more is None


@pytest.mark.parametrize("far", [0.5, 30.0])
def test_the_bounds_mean_is_not_clipped(far: float) -> None:
    """A mean outside the data's range costs what it is off, in the loss and in the bound, in nats:
    clipping is of samplers."""
    model = sg.ScoreModel(
        lambda x, t: torch.cat([0 * x + far, 0 * x - 1], dim=1),
        VP,
        "x0",
        heads=2,
        data_range=(-1.0, 1.0),
    )
    x0 = torch.tensor([[0.5]], dtype=torch.float64)
    t, s = VP(VP.T), VP(VP.t_min)
    want = 0.5 * ((2 * s.lam).exp() - (2 * t.lam).exp()) * (far - 0.5) ** 2
    close(discrete_elbo(model, x0, steps=1, variance=Range(), seed=0).diffusion[0], want, 1e-6)
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    with_head, without = (
        hybrid_loss(model, x0, head=Range(), steps=1, share=share, generator=g)
        for share, g in zip((1.0, 0.0), draws, strict=True)
    )
    close(with_head - without, want.reshape(1), 1e-6, 1e-6)

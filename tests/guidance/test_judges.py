"""Similarities and styles: their gradients in closed form, each sample's own; encoders' losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.guidance import Encoder, Guided, Similarity, Style, gram
from sdegen.losses import matched
from tests.cases import SDES, Plain, close, normal, refused

SDE = sg.VPSDE()
LEVEL = SDE(0.4)
NORMAL = exact_model(Gaussian([0.0] * 3, [1.0, 0.5, 0.2]), SDE)


def same(x: Tensor, level: sg.Level) -> Tensor:
    return x


def test_a_similarity_is_the_slope_of_a_cosine() -> None:
    """grad cos(x, c) = (c / |c| - cos(x, c) x / |x|) / |x|."""
    x, c = normal(5, 3), normal(5, 3).flip(0)
    guided = Guided(NORMAL, Similarity(same), 2.0, given={"target": c})
    n, m = x.norm(dim=1, keepdim=True), c.norm(dim=1, keepdim=True)
    cos = (x * c).sum(1, keepdim=True) / (n * m)
    want = NORMAL(x, LEVEL).score + 2.0 * (c / m - cos * x / n) / n
    close(guided(x, LEVEL).score, want, rtol=1e-11, atol=1e-11)
    one = Guided(NORMAL, Similarity(same), 2.0, given={"target": c[:1]})
    close(one(x[:1], LEVEL).score, want[:1], rtol=1e-11, atol=1e-11)
    assert one(x, LEVEL).score.shape == (5, 3)


def test_a_style_is_the_slope_of_its_gram_matrices() -> None:
    """G = F F^T / (c p): the gradient of -|G - T|^2 by F is -4 (G - T) F / (c p)."""
    x, other = normal(4, 2, 3, 3), normal(4, 2, 3, 3).flip(0)
    close(gram(x), gram(x.flip(-1).flip(-2)))  # it does not know places
    model = sg.ScoreModel(lambda x, t: 0.5 * x, SDE, "x0")
    guided = Guided(model, Style(same), 3.0, given={"target": gram(other)})
    off = (gram(x) - gram(other)).unflatten(1, (2, 2))
    slope = -4 * torch.einsum("bij,bjp->bip", off, x.flatten(2)).view_as(x) / 18
    close(guided(x, LEVEL).score, model(x, LEVEL).score + 3.0 * slope, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("through", [False, True])
def test_each_sample_has_its_own(through: bool) -> None:
    x, c = normal(4, 3), normal(4, 3).flip(0)
    guided = Guided(NORMAL, Similarity(same), 2.0, through=through, given={"target": c})
    how: dict[str, Any] = {"solver": sg.AdaptiveRK("bosh3", rtol=1e-2, atol=1e-2)}
    whole = sg.sample(guided, x, **how)
    for i in range(4):
        one = torch.tensor([i])
        close(sg.sample(guided.take(one), x[one], **how), whole[one], atol=1e-12)


@pytest.mark.parametrize("name", ["vp", "edm"])
def test_a_quadratic_one_moves_the_flow_as_its_equation_says(name: str) -> None:
    """log p = -k/2 |x - c|^2 on N(0, V): dx/dt = f x - g^2 / 2 (-x / n^2 - k (x - c)), which SciPy
    solves."""
    sde, V, k, c = SDES[name], 0.5, 0.8, 0.7
    model = exact_model(Gaussian([0.0], [V]), sde)
    guided = Guided(model, lambda x, level: -0.5 * k * (x - c).square().sum(1))
    start, stop = (0.8, 0.05) if name == "vp" else (3.0, 0.05)

    def slope(t: float, x: Any) -> Any:
        level = sde(t)
        score = -x / float(level.alpha**2 * V + level.sigma**2) - k * (x - c)
        state = torch.tensor([[x[0]]], dtype=torch.float64)
        f, g = float(sde.drift(state, t)), float(sde.diffusion(state, t))
        return [f - 0.5 * g**2 * score[0]]

    want = solve_ivp(slope, (start, stop), [1.3], rtol=1e-10, atol=1e-12).y[0, -1]
    walk = sg.walks.log_snr(sde, 200, start=start, stop=stop)
    x = torch.tensor([[1.3]]).double()
    close(sg.sample(guided, x, solver=sg.UniPC(3), walk=walk), [[want]], rtol=5e-5)


class Scaled(nn.Module):
    """E[W x0 | x_t] of N(0, diag(1, 1/2, 1/5)), times a factor that is to be learned."""

    def __init__(self, W: Tensor) -> None:
        super().__init__()
        self.W, self.factor = W, nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.factor * (NORMAL(x, SDE(label)).x0 @ self.W.T)


def test_an_encoder_learns_the_mean_of_what_its_teacher_says() -> None:
    """The slope of ``matched`` by a factor on the true mean is 0 at 1, within its s.e."""
    W, n = normal(2, 3), 20_000
    encoder = Encoder(Scaled(W), SDE, time="t", sigma_data=None)
    g = torch.Generator().manual_seed(0)
    x0 = Gaussian([0.0] * 3, [1.0, 0.5, 0.2]).sample(n, g)
    loss = matched(encoder, x0, teacher=lambda x: x @ W.T, generator=g)
    assert loss.shape == (n,)
    (slope,) = torch.autograd.grad(loss.mean(), encoder.net.factor)  # type: ignore[arg-type]
    assert abs(float(slope)) < 8 * float(loss.detach().std()) / n**0.5
    half = Encoder(Scaled(W), SDE, time="t", sigma_data=None)
    nn.init.constant_(half.net.factor, 0.5)  # type: ignore[arg-type]
    g.manual_seed(0), Gaussian([0.0] * 3, [1.0, 0.5, 0.2]).sample(n, g)
    assert matched(half, x0, teacher=lambda x: x @ W.T, generator=g).mean() > 1.05 * loss.mean()


def test_what_does_not_fit_is_refused() -> None:
    x = normal(3, 3)
    with refused(r"Features of the states are \(3, 3\), but the target is \(1, 2\)"):
        Guided(NORMAL, Similarity(same), given={"target": normal(1, 2)})(x, 0.5)
    with refused(r"Features of the states are \(3, 3\), but the target is \(3,\)"):
        Guided(NORMAL, Similarity(same), given={"target": normal(3, 1)[:, 0]})(x, 0.5)
    assert gram(200 * torch.ones(1, 2, 32, 32, dtype=torch.float16)).isfinite().all()
    with refused(r"Feature maps are \(b, channels, \*\), but they are \(3, 3\)"):
        Guided(NORMAL, Style(same), given={"target": normal(1, 9)})(x, 0.5)
    with refused("A network of noisy states needs"):
        Encoder(nn.Linear(2, 2), Plain())
    encoder = Encoder(Scaled(normal(2, 3)), SDE, time="t", sigma_data=None)
    with refused(r"The teacher makes features \(3, 3\) of data \(3, 3\), but the encoder makes"):
        matched(encoder, x, teacher=lambda x: x)
    with refused("The judge knows the noisy states of VPSDE"):
        Guided(exact_model(Gaussian([0.0], [1.0]), sg.EDMSDE()), Similarity(encoder))

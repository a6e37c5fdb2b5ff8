"""A contrastive pair: guidance by it in closed form, its embeddings, and what a tower reads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.guidance import CLIP, Encoder, Guided, Similarity, TextTower, as_token, on_sphere
from sdegen.likelihood import slerp
from sdegen.networks import UNet
from sdegen.text import Words, WordTransformer, encoded
from tests.cases import SDES, close, normal, refused

R = 9.0


class Lifted(nn.Module):
    """x on the line -> (x / R, sqrt(1 - x^2 / R^2)), of norm 1: cosines are linear in x."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        return self.one * torch.cat([x / R, (1 - (x / R) ** 2).sqrt()], 1)


class Ways(nn.Module):
    """Features of captions of one word, 1 or 2: one way, and the other."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return (3.0 - 2.0 * tokens.double()) * torch.tensor([5.0, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("name", ["vp", "edm"])
def test_guidance_by_a_linear_pair_moves_the_flow_as_its_equation_says(name: str) -> None:
    """exp(logit_scale) <f, g> = k x, +-: dx/dt = f x - g^2 / 2 (-x / n^2 +- s k) on N(0, V)."""
    sde, V, s = SDES[name], 0.5, 0.4
    clip = CLIP(Encoder(Lifted(), sde, time="t", sigma_data=None), Ways()).double()
    told = {"tokens": torch.tensor([[1], [2]]), "mask": torch.ones(2, 1, dtype=torch.bool)}
    target, scale = clip.embed_text(**told), s * clip.scale.item()
    model = exact_model(Gaussian([0.0], [V]), sde)
    guided = Guided(model, Similarity(clip.image), scale, given={"target": target})
    start, stop = (0.8, 0.05) if name == "vp" else (3.0, 0.05)

    def ends(way: float) -> float:
        def slope(t: float, x: Any) -> Any:
            level = sde(t)
            score = -x[0] / float(level.alpha**2 * V + level.sigma**2) + way * scale / R
            state = torch.tensor([[x[0]]], dtype=torch.float64)
            f, g = float(sde.drift(state, t)), float(sde.diffusion(state, t))
            return [f - 0.5 * g**2 * score]

        return float(solve_ivp(slope, (start, stop), [1.3], rtol=1e-8, atol=1e-10).y[0, -1])

    walk = sg.walks.log_snr(sde, 100, start=start, stop=stop)
    x = torch.full((2, 1), 1.3, dtype=torch.float64)
    got = sg.sample(guided, x, solver=sg.UniPC(3), walk=walk)
    close(got, [[ends(1.0)], [ends(-1.0)]], rtol=2e-4)


def small(encoder: Any, sde: sg.LinearSDE, d: int = 4) -> CLIP:
    torch.manual_seed(0)
    image = nn.Sequential(nn.Flatten(), nn.Linear(4, d))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = image

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            out: Tensor = self.inner(x) + t[:, None]
            return out

    return CLIP(Encoder(Net(), sde), TextTower(encoder, d, width=8))


@pytest.mark.parametrize("name", ["vp", "ve", "flow"])
def test_embeddings_are_of_clean_data_and_lie_on_a_sphere(name: str) -> None:
    sde, words = SDES[name], Words(8).learn(["a red one", "two"])
    clip, x0 = small(words, sde), normal(5, 1, 2, 2).float()
    z, z_t = clip.embed(x0), clip.embed_text(**words(["two", "a red one", ""]))
    for each in (z, z_t, on_sphere(normal(6, 4))):
        close(each.norm(dim=1), torch.full((len(each),), 2.0), rtol=1e-6)
    level = sde(torch.full((5,), sde.t_min, dtype=torch.float64))
    x = (level.alpha[:, None, None, None] * x0).float()
    close(z, on_sphere(clip.image(x, level)), rtol=1e-5)
    logits = clip(x, level, **words(["two", "a red one", ""]))
    close(logits, clip.scale * z @ z_t.T / 4, rtol=1e-5, atol=1e-6)
    with refused("The embedding of clean data has no value where sigma is 0, at t = 0"):
        small(words, sg.FlowSDE(t_min=0.0)).embed(x0)


class Vectors:
    """An encoder of frozen vectors, one of a caption."""

    width, words, most = 3, 0, 2

    def reader(self) -> None: ...

    def __call__(self, captions: Any) -> dict[str, Tensor]:
        tokens = torch.stack([normal(2, 3, seed=len(each)) for each in captions])
        return {"tokens": tokens, "mask": torch.tensor([[bool(each), False] for each in captions])}


@pytest.mark.parametrize("encoder", [Words(8), WordTransformer(8, heads=2), Vectors()])
def test_a_tower_reads_what_the_mask_keeps(encoder: Any) -> None:
    said = ["a red one", "two", "", "red a one"]
    encoder = encoder.learn(said) if hasattr(encoder, "learn") else encoder
    torch.manual_seed(0)
    tower = TextTower(encoder, 5, width=8).double()
    told, which = encoded(encoder, said)
    tower.fit(**told)
    out = tower(**told)
    assert out.shape == (4, 5) and which.tolist() == [0, 1, 2, 3]
    other = torch.where(
        told["mask"].reshape(*told["mask"].shape, *[1] * (told["tokens"].ndim - 2)),
        told["tokens"],
        torch.ones_like(told["tokens"]),
    )
    close(tower(other, told["mask"]), out.detach())
    assert (out[0] - out[1]).abs().max() > 1e-3
    if encoder.width == 8:  # words in another order say something else
        assert (out[0] - out[3]).abs().max() > 1e-4
    empty = tower(told["tokens"], torch.zeros_like(told["mask"]))
    close(empty.detach(), out[2:3].detach().expand(4, 5))


def decoder(sde: sg.LinearSDE, d: int) -> sg.ScoreModel:
    """A U-Net that is told an embedding as a token, with no weight at zero."""
    torch.manual_seed(0)
    net = UNet(1, width=8, mults=(1,), attention=(0,), heads=2, token_width=d, length=1)
    for weight in net.parameters():
        nn.init.normal_(weight, std=0.15)
    return sg.ScoreModel(net.double(), sde, "edm")


def test_variations_begin_where_the_picture_does() -> None:
    """Up the flow under an embedding and down again is the identity; down under another it is
    not, and under none neither."""
    model, x = decoder(sg.VPSDE(), 3), normal(2, 1, 4, 4)
    z = on_sphere(normal(2, 3, seed=1))
    told = model.given(**as_token(z))
    how: dict[str, Any] = {"solver": sg.UniPC(3), "steps": 100}
    x_T = sg.encode(told, x, **how)
    close(sg.decode(told, x_T, **how), x, rtol=0, atol=1e-3)
    how["steps"] = 10
    other = sg.decode(model.given(**as_token(-z)), x_T, **how)
    none = sg.decode(told.given(mask=torch.zeros(2, 1, dtype=torch.bool)), x_T, **how)
    assert (other - x).abs().max() > 0.05 and (none - x).abs().max() > 0.05


def test_interpolations_and_differences_stay_on_the_sphere() -> None:
    a, b = on_sphere(normal(3, 8)), on_sphere(normal(3, 8, seed=1))
    for w in (0.0, 0.25, 0.5, 1.0):
        close(slerp(a, b, w).norm(dim=1), [math.sqrt(8)] * 3)
    difference = on_sphere(b - a)
    close(slerp(a, difference, 0.3).norm(dim=1), [math.sqrt(8)] * 3)
    with refused(r"Embeddings are \(b, d\), but z is \(8,\)"):
        as_token(a[0])
    with refused("tokens are torch.float64 of shape .*, expected vectors of"):
        decoder(sg.VPSDE(), 3).given(**as_token(a))(normal(3, 1, 4, 4), 0.5)


def test_a_prior_draws_embeddings_as_their_law_has_them() -> None:
    """z | text ~ N(A z_t, S) by a network that predicts z itself: moments within 3 s.e."""
    sde, n, d = sg.VPSDE(), 4000, 3
    A = torch.tensor([[0.8, 0.1, 0.0], [0.0, 0.6, 0.2], [0.3, 0.0, 0.7]], dtype=torch.float64)
    S = torch.tensor([0.3, 0.15, 0.4], dtype=torch.float64)

    def net(x: Tensor, t: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        level, m = sde(t), tokens[:, 0] @ A.T
        alpha, sigma = level.alpha[:, None], level.sigma[:, None]
        return m + alpha * S / (alpha**2 * S + sigma**2) * (x - alpha * m)

    z_t = on_sphere(normal(1, d, seed=2))
    prior = sg.ScoreModel(net, sde, "x0", time="t", scale_input=False)
    told = prior.given(**as_token(z_t.expand(n, d)))
    z = sg.sample(told, (n, d), steps=60, seed=0).double()
    off = z - z_t @ A.T
    assert (off.mean(0) / (S / n).sqrt()).abs().max() < 3
    cov = off.T @ off / n
    error = ((S[:, None] * S + torch.diag(2 * S**2 - S**2)) / n).sqrt()
    assert ((cov - torch.diag(S)) / error).abs().max() < 3

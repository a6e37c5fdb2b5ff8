"""A coupling that is learned with the flow, on Gaussians, where all of it is in closed form."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.data import toy
from sdegen.files import read_tensors
from sdegen.losses import Encoder, Learned, MinibatchOT, low_discrepancy
from sdegen.networks import MLP
from sdegen.training import Trainer, TrainSettings
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import close, normal, refused

FLOW = sg.FlowSDE(T=1.0)


class Linear(nn.Module):
    """m = a x0 and s."""

    def __init__(self, a: float, s: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))
        self.log_s = nn.Parameter(torch.tensor(math.log(s), dtype=torch.float64))

    def forward(self, x0: Tensor) -> Tensor:
        return torch.cat([self.a * x0, self.log_s + 0 * x0], dim=1)


def left(a: Tensor, s: Tensor, n: int = 20_001) -> Tensor:
    """INT Var[z - x0 | x_t] dt of x0 ~ N(0, 1) and z = a x0 + s e."""
    t = torch.linspace(0, 1, n, dtype=torch.float64)
    v = a**2 + s**2
    of_u = v - 2 * a + 1
    with_u = (t * v - (1 - t)) + a * (1 - 2 * t)
    of_x = (1 - t) ** 2 + t**2 * v + 2 * t * (1 - t) * a
    return torch.trapezoid(of_u - with_u**2 / of_x, t)


def exact(a: float, s: float) -> sg.ScoreModel:
    """E[z - x0 | x_t]."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        t, v = t.double()[:, None], a**2 + s**2
        with_u = (t * v - (1 - t)) + a * (1 - 2 * t)
        return with_u / ((1 - t) ** 2 + t**2 * v + 2 * t * (1 - t) * a) * x

    return sg.ScoreModel(net, FLOW, "velocity", time="t", flow_only=True)


def price(a: Tensor, s: Tensor) -> Tensor:
    """KL(q(z | x0) || N(0, 1)), its mean over x0."""
    return 0.5 * (a**2 + s**2 - 1) - s.log()


def best(beta: float) -> tuple[float, float]:
    """a and s of the least loss."""
    p = torch.tensor([0.5, -0.2], dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([p], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        total = left(p[0], p[1].exp(), 2001) + beta * price(p[0], p[1].exp())
        total.backward()  # type: ignore[no-untyped-call]
        return total

    search.step(loss)  # type: ignore[no-untyped-call]
    a, log_s = p.tolist()
    return a, math.exp(log_s)


@pytest.mark.parametrize("r", [0.0, 0.6, 0.9])
def test_what_is_left_at_a_correlation(r: float) -> None:
    """Where z keeps its law: sqrt(1 - r^2) arccos r, and a KL of -log(1 - r^2) / 2."""
    s = math.sqrt(1 - r**2)
    both = torch.tensor(r).double(), torch.tensor(s).double()
    close(left(*both), torch.tensor(s * math.acos(r)).double(), rtol=1e-6)
    x0 = normal(40_000, 1, seed=3)
    x0 = (x0 - x0.mean()) / x0.std(unbiased=False)
    draws = torch.Generator().manual_seed(0)
    coupled = Learned(Linear(r, s), beta=0.7, weighting="straight", draw=low_discrepancy)
    with torch.no_grad():
        loss = coupled(exact(r, s), x0, draws)
    want = s * math.acos(r) - 0.7 * math.log(s)
    assert abs(float(loss.mean()) - want) < 4 * float(loss.std()) / 200


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_the_encoder_rests_at_the_best_coupling(beta: float) -> None:
    """With the flow's own network there is no slope there, and there is one beside it."""
    a, s = best(beta)
    assert 0.05 < a < 0.95
    x0 = normal(100_000, 1, seed=4)
    x0 = (x0 - x0.mean()) / x0.std(unbiased=False)

    def slopes(a: float, s: float) -> list[float]:
        encoder = Linear(a, s)
        coupled = Learned(encoder, beta, weighting="straight", draw=low_discrepancy)
        loss = coupled(exact(a, s), x0, torch.Generator().manual_seed(1)).mean()
        return [float(g) for g in torch.autograd.grad(loss, [encoder.a, encoder.log_s])]

    assert all(abs(slope) < 0.02 for slope in slopes(a, s))
    assert slopes(a - 0.3, s)[0] < -0.1 and slopes(a, s * 1.3)[1] > 0.1


def test_dearer_noise_keeps_more_of_its_law() -> None:
    """The larger beta, the less the correlation."""
    found = [best(beta)[0] for beta in (0.3, 1.0, 3.0)]
    assert found == sorted(found, reverse=True)


def test_it_begins_as_independent_pairs() -> None:
    """m = 0, s = 1 and no KL: the usual loss, with the same draws."""
    torch.manual_seed(0)
    x0 = toy("moons", n=30).x
    model = sg.ScoreModel(MLP(2, width=8), FLOW, "velocity", time="tau", flow_only=True)
    ours = Learned(Encoder(2), weighting="straight")(model, x0, torch.Generator().manual_seed(0))
    plain = sg.dsm_loss(
        model, x0, weighting="straight", generator=torch.Generator().manual_seed(0)
    )
    close(ours.detach(), plain.detach(), rtol=1e-6)


def training(folder: Path, steps: int) -> Trainer:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    net = MLP(2, width=8, depth=1)
    return Trainer(
        sg.ScoreModel(net, FLOW, "velocity", time="tau", flow_only=True),
        toy("moons", n=50),
        Learned(Encoder(2, width=8), weighting="straight"),
        lambda weights: torch.optim.AdamW(weights, lr=1e-2),
        TrainSettings(steps=steps, batch_size=8, save_every=100, device="cpu"),
        folder,
    )


def test_the_encoder_is_trained_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    list(training(tmp_path / "whole", 8).steps())
    list(training(tmp_path / "parts", 5).steps())
    list(training(tmp_path / "parts", 8).steps())
    whole, parts = (read_tensors(tmp_path / n / CHECKPOINT)[0] for n in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert bool(whole["loss.encoder.layers.4.weight"].any())


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda: Learned(Encoder(2), beta=0.0), "beta must be above 0"),
        (
            lambda: Learned(Encoder(2))(sg.ScoreModel(lambda x, t: x, FLOW), normal(3, 2).float()),
            "make the model",
        ),
        (
            lambda: Learned(nn.Identity())(exact(0.5, 0.5), normal(3, 1)),
            "twice the channels",
        ),
        (
            lambda: Learned(Encoder(2))(exact(0.5, 0.5), torch.randn(3, 1, 8, 8)),
            r"of vectors \(b, 2\), but the data are \(3, 1, 8, 8\): say their dim",
        ),
        (
            lambda: Learned(Encoder(2))(exact(0.5, 0.5), torch.randn(3, 5)),
            r"of vectors \(b, 2\), but the data are \(3, 5\)",
        ),
    ],
)
def test_refusals(use: Any, words: str) -> None:
    with refused(words):
        use()


def test_the_coupling_is_its_own() -> None:
    """Another one would be left out without a word."""
    with pytest.raises(TypeError, match="couple"):
        Learned(Encoder(2), couple=MinibatchOT())  # type: ignore[call-arg]

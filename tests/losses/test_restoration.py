"""``paired`` and the loss of a part: on Gaussians, whose best conditional model is known."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import sdegen as sg
from sdegen.distill import Consistency
from sdegen.losses import (
    Degraded,
    Inpaint,
    Superresolve,
    Uncertainty,
    dequantised,
    dropped,
    paired,
    vdm_loss,
)
from sdegen.networks import UNet
from sdegen.sde.process import SDE as AnySDE
from tests.cases import normal, refused

SDE = sg.VPSDE()
T = 0.4
D = 4
"""Numbers of a picture of 2 x 2."""

ROOT = torch.tensor([[1.0, 0, 0, 0], [0.7, 0.6, 0, 0], [-0.3, 0.4, 0.8, 0], [0.2, 0.5, 0.3, 0.4]])
COV = (ROOT @ ROOT.T).double()


def at_T(sde: AnySDE, u: Tensor) -> tuple[Tensor, Tensor]:
    """Every time the same."""
    return torch.full_like(u, T), torch.ones_like(u)


class Linear(nn.Module):
    """x0 as a linear function of (x, c)."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.zeros(D, 2 * D, dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        both = torch.cat([x.flatten(1), c.flatten(1)], 1)
        return (both @ self.W.T).reshape(x.shape)


def corner(x0: Tensor, generator: Any = None) -> Degraded:
    """All but the last pixel is seen; there is noise in its place."""
    hole = torch.zeros(len(x0), 1, 2, 2, dtype=torch.bool)
    hole[:, :, 1, 1] = True
    return Degraded(torch.where(hole, torch.randn_like(x0), x0), hole)


PROBLEMS: dict[str, tuple[Any, Tensor, Tensor]] = {
    # how it is spoilt, A of what is seen, and the coordinates that count
    "superresolve": (Superresolve(2), torch.full((1, D), 0.25).double(), torch.ones(D).bool()),
    "inpaint": (corner, torch.eye(D)[:3].double(), torch.arange(D) == 3),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_best_linear_model_is_the_posterior_mean(name: str) -> None:
    """The minimum of ``paired`` over linear networks, at a quadratic's Newton step, has the loss
    of E[x0 | x_t, A x0], which for Gaussians is linear in both, and known."""
    degrade, A, counts = PROBLEMS[name]
    n, level = 20_000, SDE(T)
    x0 = (normal(n, D, seed=1) @ ROOT.T.double()).reshape(n, 1, 2, 2)
    net = Linear()
    loss = partial(sg.dsm_loss, times=at_T)

    def mean_loss(W: Tensor) -> Tensor:
        """Of the same draws for every W."""
        torch.manual_seed(0)
        call = partial(torch.func.functional_call, net, {"W": W})
        told = sg.ScoreModel(lambda x, t, c: call((x, t, c)), SDE, "x0", module=net)
        return paired(told, x0, degrade=degrade, loss=loss).mean()

    # Quadratic, with one Hessian for every row of W that counts: the last one does.
    slope = torch.func.grad(mean_loss)
    zero = torch.zeros(D, 2 * D, dtype=torch.float64)
    columns = []
    for k in range(2 * D):
        step = zero.clone()
        step[-1, k] = 1.0
        columns.append((slope(step) - slope(zero))[-1])
    W = -slope(zero) @ torch.linalg.pinv(torch.stack(columns), rcond=1e-9)
    found = float(mean_loss(W))

    alpha, sigma = float(level.alpha), float(level.sigma)
    seen = torch.cat([alpha * torch.eye(D).double(), A])
    noise = torch.diag(torch.cat([torch.full((D,), sigma**2), torch.zeros(len(A))]).double())
    gain = COV @ seen.T @ torch.linalg.pinv(seen @ COV @ seen.T + noise, rcond=1e-12)
    best = zero.clone()
    best[:, :D] = gain[:, :D]
    best[:, D : D + len(A)] = gain[:, D:]
    true = float(mean_loss(best))
    assert 0 <= true - found < 0.01 * true  # fitted to these draws, it is a little below

    def weighted(cov: Tensor) -> float:
        """An error of x0, where it counts, as one of eps."""
        return float(cov.diagonal()[counts].mean()) * (alpha / sigma) ** 2

    exact = weighted(COV - gain @ seen @ COV)
    assert abs(true / exact - 1) < 4 * (2 / (n * int(counts.sum()))) ** 0.5
    blind = COV - COV @ torch.linalg.inv(COV + torch.eye(D) * (sigma / alpha) ** 2) @ COV
    assert exact < 0.9 * weighted(blind)  # what is seen is worth something


MASK = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5
X0 = normal(3, 2, 4, 4)


def pointwise(**how: Any) -> Tensor:
    torch.manual_seed(0)
    x0 = how.pop("x0", X0)
    model = sg.ScoreModel(lambda x, t: 0.3 * x + 0.1 * x**3, SDE, how.pop("predicts", "eps"))
    return sg.dsm_loss(model, x0, **how)


@pytest.mark.parametrize("weighting", ["sigma2", "edm"])
def test_of_all_is_the_loss_itself_bit_for_bit(weighting: Any) -> None:
    everywhere = torch.ones(3, 1, 4, 4, dtype=torch.bool)
    for predicts in ("eps", "x0", "edm"):
        plain = pointwise(predicts=predicts, weighting=weighting)
        assert torch.equal(
            plain, pointwise(predicts=predicts, weighting=weighting, where=everywhere)
        )
        part = pointwise(predicts=predicts, weighting=weighting, where=MASK)
        assert not torch.equal(plain, part)


def test_of_levels_that_differ_between_coordinates_too() -> None:
    model = sg.ScoreModel(lambda x, t: 0.3 * x, sg.sde.AnisotropicVPSDE([1.0, 2.0]))
    x0, kept = normal(5, 2), torch.tensor([True, False])
    losses = []
    for where in (None, torch.ones(5, 2).bool(), kept[None], ~kept[None]):
        torch.manual_seed(0)
        losses.append(sg.dsm_loss(model, x0, where=where))
    assert torch.equal(losses[0], losses[1])
    torch.testing.assert_close((losses[2] + losses[3]) / 2, losses[0], rtol=1e-12, atol=0)


def test_parts_make_the_whole() -> None:
    inside, outside = (pointwise(where=each) for each in (MASK, ~MASK))
    share = MASK.double().mean((1, 2, 3))
    torch.testing.assert_close(
        share * inside + (1 - share) * outside, pointwise(), rtol=1e-12, atol=0
    )


def test_what_does_not_count_changes_nothing() -> None:
    """Of a network that sees each value by itself; and an error that is infinite there."""
    other = torch.where(MASK, X0, 7 * X0 + 1)
    assert torch.equal(pointwise(where=MASK), pointwise(where=MASK, x0=other))
    assert not torch.equal(pointwise(where=~MASK), pointwise(where=~MASK, x0=other))
    torch.manual_seed(0)
    broken = sg.ScoreModel(lambda x, t: torch.where(MASK, 0.3 * x + 0.1 * x**3, torch.inf), SDE)
    assert torch.equal(sg.dsm_loss(broken, X0, where=MASK), pointwise(where=MASK))
    nowhere = MASK & torch.tensor([True, False, True])[:, None, None, None]
    assert (pointwise(where=nowhere) == 0).tolist() == [False, True, False]


def test_what_is_no_part_is_refused() -> None:
    with refused("where is boolean, true where the error counts, but it is torch.float32"):
        pointwise(where=MASK.float())
    with refused(r"where has the shape \(4, 4\), but states are \(3, 2, 4, 4\)"):
        pointwise(where=MASK[0, 0])
    with refused("vdm_loss is a loss of all of the data, and takes no where="):
        paired(told(), X0, degrade=Inpaint(), loss=vdm_loss)
    with refused("vdm_loss is a loss of all"):
        paired(told(), X0, degrade=Inpaint(), loss=partial(dequantised, levels=17, loss=vdm_loss))

    for inner, name in ((vdm_loss, "vdm_loss"), (Consistency(steps=4), "Consistency")):
        for loss in (inner, Uncertainty(inner)):
            with refused(f"{name} is a loss of all of the data"):
                paired(told(), X0, degrade=Inpaint(), loss=loss)


def test_a_part_is_weighted_by_its_uncertainty() -> None:
    """Which is 0 at first."""
    losses = []
    weighted = Uncertainty(sg.dsm_loss)
    for loss in (sg.dsm_loss, weighted, partial(weighted), Uncertainty(Uncertainty(sg.dsm_loss))):
        torch.manual_seed(0)
        losses.append(paired(told(), X0, degrade=Inpaint(), loss=loss).detach())
    assert all(torch.equal(losses[0], each) for each in losses)


def told() -> sg.ScoreModel:
    return sg.ScoreModel(lambda x, t, c, y=0: 0.1 * x + 0.2 * c, SDE)


def test_losses_around_losses_carry_the_part() -> None:
    """Dropped never, and quantised without bins, they are the loss itself."""
    labels = torch.zeros(3, dtype=torch.int64)
    for around in (
        partial(dropped, loss=sg.dsm_loss, p=0.0, without={"y": 1}),
        partial(dequantised, loss=sg.dsm_loss, levels=10**9),
    ):
        model = told().given(y=labels)
        generator = [torch.Generator().manual_seed(5) for _ in range(2)]
        torch.manual_seed(0)
        if around.func is dequantised:
            torch.rand_like(X0)
        plain = paired(model, X0, degrade=Inpaint(), generator=generator[0])
        torch.manual_seed(0)
        got = paired(model, X0, degrade=Inpaint(), loss=around, generator=generator[1])
        torch.testing.assert_close(got, plain, rtol=1e-6, atol=0)


def test_a_run_that_restores_is_continued_bit_for_bit(tmp_path: Path) -> None:
    from sdegen.training import Trainer, TrainSettings

    def trained(folder: Path, *steps: int) -> Tensor:
        folder.mkdir()
        for n in steps:
            torch.manual_seed(0)
            model = sg.ScoreModel(UNet(1, width=4, attention=(), heads=1, beside=1), SDE)
            loss = partial(paired, degrade=Inpaint(0.5, "random"))
            data = TensorDataset(normal(16, 1, 4, 4).float())
            make = partial(torch.optim.AdamW, lr=1e-2)
            settings = TrainSettings(steps=n, batch_size=4, device="cpu", log_every=1)
            run = Trainer(model, data, loss, make, settings, folder)
            list(run.steps())
        return torch.cat([p.detach().flatten() for p in run.model.parameters()])

    assert torch.equal(trained(tmp_path / "a", 6), trained(tmp_path / "b", 3, 6))

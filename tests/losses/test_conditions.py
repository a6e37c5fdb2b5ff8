"""Dropped conditions and judges: what is trained, and that the draws move nothing else."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.guidance import Guided, Judge
from sdegen.losses import dropped, noisy_ce
from tests.cases import close, normal, refused
from tests.labelled import CLASSES, NULL, WEIGHTS, labelled, log_class

SDE = sg.VPSDE()
Y = torch.tensor([0, 1, 2, 1])
X0 = normal(4, 2)


def seen(model: Any, x0: Tensor) -> Tensor:
    """A loss that says which labels it was given, and a draw."""
    return model.conditions["y"].double() + torch.rand(())


def losses(p: Any, seed: int = 0, y: Tensor = Y, **how: Any) -> Tensor:
    torch.manual_seed(seed)
    model = labelled(SDE).given(y=y)
    return dropped(model, X0, loss=sg.dsm_loss, p=p, without={"y": NULL}, **how)


def test_never_and_always_are_the_two_models_bit_for_bit() -> None:
    for p, y in ((0.0, Y), (1.0, torch.full_like(Y, NULL))):
        got = losses(p)
        torch.manual_seed(0)
        assert torch.equal(got, sg.dsm_loss(labelled(SDE).given(y=y), X0))
    assert not torch.equal(losses(0.0), losses(1.0))


def test_a_sample_in_ten_is_dropped_and_another_each_time() -> None:
    n = 20_000
    torch.manual_seed(0)
    model = sg.ScoreModel(lambda x, t, y: x, SDE).given(y=torch.zeros(n, dtype=torch.int64))
    x0 = torch.zeros(n, 1)
    gone = [dropped(model, x0, loss=seen, p=0.1, without={"y": 1}).floor() for _ in range(2)]
    for each in gone:
        assert abs(float(each.mean()) - 0.1) < 4 * (0.1 * 0.9 / n) ** 0.5
    assert abs(float((gone[0] * gone[1]).mean()) - 0.01) < 4 * (0.01 * 0.99 / n) ** 0.5
    torch.manual_seed(0)
    assert torch.equal(dropped(model, x0, loss=seen, p=0.1, without={"y": 1}).floor(), gone[0])


def test_another_is_dropped_where_the_loss_draws_elsewhere() -> None:
    """As on a GPU, whose generator is not the host's; and in every part of a batch."""
    n = 64
    model = sg.ScoreModel(lambda x, t, y: x, SDE).given(y=torch.zeros(n, dtype=torch.int64))

    def told(model: Any, x0: Tensor) -> Tensor:
        return model.conditions["y"].double()  # type: ignore[no-any-return]

    torch.manual_seed(0)
    how: dict[str, Any] = {"loss": told, "p": 0.5, "without": {"y": 1}}
    one, two = (dropped(model, torch.zeros(n, 1), **how) for _ in range(2))
    assert not torch.equal(one, two)
    own = [torch.Generator().manual_seed(3) for _ in range(2)]
    one, two = (dropped(model, torch.zeros(n, 1), **how, generator=g) for g in own)
    assert torch.equal(one, two)


def test_dropping_does_not_know_the_times() -> None:
    """The mask is none of the draws that the loss makes after it."""
    n = 20_000
    model = sg.ScoreModel(lambda x, t, y: x, SDE).given(y=torch.zeros(n, dtype=torch.int64))

    def both(model: Any, x0: Tensor) -> Tensor:
        return torch.stack([model.conditions["y"].double(), torch.rand(n).double()])

    torch.manual_seed(0)
    y, u = dropped(model, torch.zeros(n, 1), loss=both, p=0.5, without={"y": 1})
    assert abs(float(torch.corrcoef(torch.stack([y, u]))[0, 1])) < 4 / n**0.5


@pytest.mark.parametrize("together", [True, False])
def test_several_conditions_together_or_apart(together: bool) -> None:
    n = 20_000
    c = torch.zeros(n, 3)
    model = sg.ScoreModel(lambda x, t, a, c: x, SDE).given(a=torch.zeros(n), c=c)

    def told(model: Any, x0: Tensor) -> Tensor:
        a, c = model.conditions["a"], model.conditions["c"]
        assert torch.equal(c, c[:, :1] * torch.tensor([1.0, 2.0, 3.0]))
        return torch.stack([a, c[:, 0]])

    torch.manual_seed(0)
    null = {"a": 1.0, "c": torch.tensor([1.0, 2.0, 3.0])}
    a, b = dropped(model, c, loss=told, p=0.2, without=null, together=together)
    want = 0.2 if together else 0.04
    assert abs(float((a * b).mean()) - want) < 4 * (want * (1 - want) / n) ** 0.5
    if not together:
        a, b = dropped(model, c, loss=told, p={"a": 0.5, "c": 0.1}, without=null, together=False)
        assert abs(float(a.mean()) - 0.5) < 0.02 and abs(float(b.mean()) - 0.1) < 0.02


def test_what_cannot_be_dropped_is_refused() -> None:
    with refused("dropped puts a null in the place of y, but the model was given no condition"):
        dropped(labelled(SDE), X0, loss=sg.dsm_loss, p=0.1, without={"y": 3})
    with refused(r"p lies in \[0, 1\], but it is 1.5"):
        losses(1.5)
    with refused(r"dropped: y is a torch.int64 of shape \(4,\), and .* cannot stand in its place"):
        dropped(
            labelled(SDE).given(y=Y), X0, loss=sg.dsm_loss, p=0.1, without={"y": torch.ones(3)}
        )
    with refused("p by name takes together=False, and a number for each that is dropped"):
        losses({"y": 0.1})


class Scores(nn.Module):
    """Logits of three isotropic Gaussians of one width: linear in x, quadratic terms cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        level = SDE(label)
        each = torch.stack([c.log_prob(x, level) for c in CLASSES], 1) + WEIGHTS.log()
        return self.scale * each


def test_the_true_posterior_is_the_minimum_of_a_judges_loss() -> None:
    """The slope by a factor on the true logits is 0 at 1, within its standard error."""
    judge = Judge(Scores(), SDE, time="t", sigma_data=None)
    n = 20_000
    g = torch.Generator().manual_seed(0)
    y = torch.multinomial(WEIGHTS, n, replacement=True, generator=g)
    x0 = torch.stack([c.sample(n, g) for c in CLASSES])[y, torch.arange(n)]
    loss = noisy_ce(judge, x0, y, generator=g)
    assert loss.shape == (n,)
    (slope,) = torch.autograd.grad(loss.mean(), judge.logits.net.scale)  # type: ignore[arg-type]
    assert abs(float(slope)) < 4 * float(loss.detach().std()) / n**0.5
    with torch.no_grad():
        level, x = SDE(0.5), normal(6, 2)
        close(judge(x, level, y[:6]), log_class(x, level, y[:6]))
    guided = Guided(labelled(SDE).given(y=torch.full((6,), NULL)), judge, given={"y": y[:6]})
    want = labelled(SDE).given(y=y[:6])(normal(6, 2), level).eps
    close(guided(normal(6, 2), level).eps, want, rtol=1e-8, atol=1e-8)


def test_a_run_that_drops_is_continued_bit_for_bit(tmp_path: Any) -> None:
    from torch.utils.data import TensorDataset

    from sdegen.networks import MLP
    from sdegen.training import Trainer, TrainSettings

    def trained(folder: Any, *steps: int) -> Tensor:
        for n in steps:
            torch.manual_seed(0)
            model = sg.ScoreModel(MLP(dim=2, width=8, depth=1, classes=3), SDE)
            loss = partial(dropped, loss=sg.dsm_loss, p=0.5, without={"y": 3})
            data = TensorDataset(normal(32, 2).float(), torch.arange(32) % 3)
            make = partial(torch.optim.AdamW, lr=1e-2)
            settings = TrainSettings(steps=n, batch_size=8, device="cpu", log_every=1)
            run = Trainer(model, data, loss, make, settings, folder, conditional=True)
            list(run.steps())
        return torch.cat([p.detach().flatten() for p in run.model.parameters()])

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert torch.equal(trained(tmp_path / "a", 6), trained(tmp_path / "b", 3, 6))

"""Second outputs for models that are trained already, against the best there is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sdegen as sg
from sdegen.distill import fit_head, with_head
from sdegen.exact import exact_model
from sdegen.exact.distributions import Mixture
from sdegen.guidance import Thresholded
from sdegen.likelihood import discrete_elbo
from sdegen.losses import variance_loss
from sdegen.networks import MLP
from sdegen.solvers import LearnedVariance, Range, Residual, Square
from tests.cases import MIXTURE, close, normal, refused

VP = sg.VPSDE()
TWO = Mixture([[-1.5], [1.0]], [0.2, 0.4], [0.4, 0.6])


def test_the_mixtures_variance_is_that_of_tweedie() -> None:
    """sigma^2 / alpha d x0 / d x, of each coordinate."""
    x, level = normal(5, 2), VP(0.3)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: MIXTURE.denoise(y[None], level)[0]))(x)
    want = level.sigma**2 / level.alpha * jacobian.diagonal(dim1=1, dim2=2)
    close(MIXTURE.variance(x, level), want, rtol=1e-9)


class Constant(nn.Module):
    """The logarithm of a second output, the same for all."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.log + 0 * x


@pytest.mark.parametrize("head", [Residual(), Square()], ids=str)
@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_the_optimum_of_each_head(head: Any, bias: float) -> None:
    """Of Residual, on a step's own KL, E[(eps - eps_hat)^2 | x_t], of a mean that is off too; of
    Square, on its squares, E[eps^2 | x_t], whatever the mean is."""
    from sdegen.solvers.variances import kl

    t, s = VP(0.3), VP(0.2)
    x = torch.tensor([[0.4]], dtype=torch.float64)
    fine = torch.linspace(-4, 4, 8001, dtype=torch.float64)[:, None]
    p = (TWO.log_prob(fine) - (x - t.alpha * fine)[:, 0] ** 2 / (2 * t.sigma**2)).softmax(0)
    model = sg.ScoreModel(lambda y, time: TWO.denoise(y, t) + bias, VP, "x0")
    two = with_head(model, Constant())
    said = two(x, t)
    eps = (x - t.alpha * fine) / t.sigma
    want = (p[:, None] * (eps - said.eps).square()).sum()
    close(want, ((TWO.variance(x, t) + bias**2) / t.rho**2)[0, 0], rtol=1e-6)
    if isinstance(head, Square):
        want = (p[:, None] * eps.square()).sum()
    with torch.no_grad():
        two.net.head.log.copy_(want.log())
    said = two(x, t)
    if isinstance(head, Square):
        each = head.loss(said, fine, eps, t, s)
    else:
        log_v = head.variance(said, t, s, 1.0).log()
        each = kl(said.x0.detach(), log_v.expand_as(fine), fine, t, s)
    (slope,) = torch.autograd.grad((p[:, None] * each).sum(), two.net.head.log)
    close(slope, torch.zeros(()), atol=1e-6)


@pytest.mark.parametrize("begin", [-3.0, 2.0])
def test_a_square_is_learned_from_anywhere(begin: float) -> None:
    """From below eps_hat^2 too, where its variance is clamped and the bound has no slope: data at
    one point have eps_hat = z and E[eps^2] = 1 of all levels together."""
    at_zero = sg.ScoreModel(lambda x, t: 0 * x, VP, "x0")
    two = with_head(at_zero, Constant())
    two.net.head.log.data.fill_(begin)
    draws = torch.Generator().manual_seed(0)
    x0 = torch.zeros(64, 1, dtype=torch.float64)
    for step in range(200):
        loss = variance_loss(two, x0, head=Square(), generator=draws).mean()
        (slope,) = torch.autograd.grad(loss, two.net.head.log)
        two.net.head.log.data -= (0.3 if step < 100 else 0.02) * slope.clamp(-3, 3)
    assert abs(float(two.net.head.log.detach())) < 0.15


def test_a_fitted_head_has_nearly_the_best_bound() -> None:
    """Of a mixture at 10 steps: after so little training already most of the way from large."""
    model = sg.ScoreModel(lambda x, t: TWO.denoise(x, VP(t)), VP, "x0", time="t")
    data = TWO.sample(2000, torch.Generator().manual_seed(1)).float()
    torch.manual_seed(0)
    net = MLP(1, width=16, depth=1)
    two = fit_head(model, Residual(), data, 150, net=net, lr=1e-2)
    x = TWO.sample(1000, torch.Generator().manual_seed(2))

    def exact(y: Tensor, t: Tensor) -> Tensor:
        level = VP(t)
        return torch.cat(
            [TWO.denoise(y, level), TWO.variance(y, level) / level.rho[:, None] ** 2], 1
        )

    best = sg.ScoreModel(exact, VP, "x0", time="t", heads=2)
    how: dict[str, Any] = {"steps": 10, "seed": 0}
    ours, ideal, large = (
        float(discrete_elbo(m, x, variance=v, **how).bits(1).mean())
        for m, v in ((two, Residual()), (best, Residual()), (best, "large"))
    )
    assert ideal - 0.01 < ours < (ideal + large) / 2, (ideal, ours, large)


def test_the_mean_is_the_models_own() -> None:
    """To the bit, whatever the head says; the model that was given is as it was."""
    torch.manual_seed(0)
    net = MLP(2, width=8, depth=1)
    model = sg.ScoreModel(net, VP, time="c_noise")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    two = fit_head(model, Square(), normal(20, 2).float(), 3, net=MLP(2, width=8), batch_size=5)
    x = normal(3, 2).float()
    assert torch.equal(two(x, 0.3).eps, model(x, 0.3).eps) and not two.training
    assert bool((two(x, 0.3).more > 0).all())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())
    two.train()
    assert two.net.head.training and not two.net.net.training
    x = sg.sample(two, (3, 2), solver=LearnedVariance(Square()), steps=3, seed=0)
    assert bool(x.isfinite().all())


def test_the_seed_is_of_all_that_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the device that the model is on: nothing is left to torch's own generator."""
    x0 = normal(20, 2).float()

    def fitted(seed: int, others: int) -> Tensor:
        torch.manual_seed(7)
        net = MLP(2, width=8, depth=1)
        model = sg.ScoreModel(MLP(2, width=8, depth=1), VP)
        torch.manual_seed(others)
        two = fit_head(model, Residual(), x0, 3, net=net, batch_size=5, seed=seed)
        return torch.cat([w.detach().flatten() for w in two.net.head.parameters()])

    assert torch.equal(fitted(0, 1), fitted(0, 2)) and not torch.equal(fitted(0, 1), fitted(1, 1))
    made: list[Any] = []
    there = torch.device("meta")

    class Stopped(Exception):
        pass

    def generator(device: Any = "cpu") -> torch.Generator:
        made.append(torch.device(device))
        return torch._C.Generator()

    def loss(model: Any, x0: Tensor, *, generator: Any, **how: Any) -> Tensor:
        assert generator is not None and x0.device == there
        raise Stopped

    monkeypatch.setattr("torch.Generator", generator)
    monkeypatch.setattr("sdegen.distill.heads.variance_loss", loss)
    model = sg.ScoreModel(MLP(2, width=8, depth=1).to(there), VP)
    with pytest.raises(Stopped):
        fit_head(model, Residual(), x0.to(there), 3, net=MLP(2, width=8, depth=1).to(there))
    assert made == [there]


@pytest.mark.parametrize("steps", [1, 5])
def test_a_loss_that_is_not_finite_is_refused(steps: int) -> None:
    """Of the last step's weights too, of which no step is left to see: the mean is so far off that
    the first one makes the head say e^(10^6)."""
    model = sg.ScoreModel(lambda x, t: 9 + 0 * x, VP)
    with refused(f"The head's loss is (inf|nan) at step 1 of {steps}: lower .*lr=1e.06"):
        x0 = normal(20, 2).float()
        fit_head(model, Residual(), x0, steps, net=MLP(2, width=8), lr=1e6, batch_size=5)


def test_labels_go_with_their_data() -> None:
    """Of a conditional model both networks get them."""

    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each = nn.Embedding(2, 2)

        def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return self.each(y) + 0 * x

    x0, y = normal(7, 2).float(), torch.arange(7) % 2
    model = sg.ScoreModel(Told(), VP).given(y=y)
    two = fit_head(model, Residual(), x0, 2, net=Told(), batch_size=5)
    assert two.given(y=torch.zeros(3, dtype=torch.int64))(x0[:3], 0.5).more.shape == (3, 2)


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda m: fit_head(m, Range(), normal(4, 2), 2, net=Constant()), "Range lies between"),
        (lambda m: with_head(with_head(m, Constant()), Constant()), "of two"),
        (
            lambda m: with_head(Thresholded(m, data_range=(-1, 1)), Constant()),
            "for a ScoreModel of one",
        ),
        (
            lambda m: with_head(sg.ScoreModel(lambda x, t: x, VP, flow_only=True), Constant()),
            "of a flow alone",
        ),
        (lambda m: variance_loss(m, normal(4, 2), head=Residual()), "heads=2"),
    ],
)
def test_refusals(use: Any, words: str) -> None:
    with refused(words):
        use(exact_model(MIXTURE, VP))


def test_a_head_of_another_shape_is_refused() -> None:
    two = with_head(exact_model(MIXTURE, VP), nn.Module())
    two.net.head.forward = lambda x, t: x[:, :1]  # type: ignore[method-assign]
    with refused("second output is of the first one's shape"):
        two(normal(2, 2), 0.5)

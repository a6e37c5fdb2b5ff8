"""The learned schedule: an SDE like any other, and one that its loss improves."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import sdegen as sg
from sdegen.exact.distributions import exact_model
from sdegen.guidance import Judge
from sdegen.networks import MLP
from tests.cases import MIXTURE, close, normal, refused


def bent() -> sg.sde.LearnedVPSDE:
    """A schedule that has learned something."""
    sde = sg.sde.LearnedVPSDE(first=4.5, last=-4.0)
    with torch.no_grad():
        sde.weights.copy_(2 * normal(len(sde.weights)))
    return sde


def test_it_is_a_linear_sde() -> None:
    sde = bent()
    t = torch.linspace(0, 1, 41, dtype=torch.float64).requires_grad_()
    level = sde(t)
    assert bool((level.lam.diff() < 0).all())
    close(level.lam[[0, -1]].detach(), [4.5, -4.0])
    close(level.alpha.detach() ** 2 + level.sigma.detach() ** 2, torch.ones(41), rtol=1e-14)
    close(sde.time(level.lam).detach(), t.detach(), rtol=0, atol=1e-14)
    for value, slope in ((level.alpha, level.d_alpha), (level.sigma**2, level.d_var)):
        (exact,) = torch.autograd.grad(value.sum(), t, retain_graph=True)
        close(slope.detach(), exact, rtol=1e-10, atol=1e-14)
    with refused("first = -1, last = 2"):
        sg.sde.LearnedVPSDE(first=-1.0, last=2.0)


@pytest.mark.parametrize(
    "name",
    ["dpmpp", "ddpm", *(pytest.param(n, marks=pytest.mark.slow) for n in ("heun", "unipc"))],
)
def test_solvers_sample_from_it(name: str) -> None:
    model = exact_model(MIXTURE, bent())
    solver = sg.solvers.catalogue()[name].build()
    x = sg.sample(model, (4000, 2), solver=solver, steps=60, seed=0)
    exact = MIXTURE.sample(100_000, torch.Generator().manual_seed(0))
    close(x.mean(0), exact.mean(0), rtol=0, atol=0.06)
    close(x.std(0), exact.std(0), rtol=0.08)


def test_its_likelihood_is_the_data_s() -> None:
    model, exact = exact_model(MIXTURE, bent()), MIXTURE.sample(4)
    found = sg.log_prob(model, exact[:4], divergence="exact").value
    close(found, MIXTURE.log_prob(exact[:4]), rtol=0, atol=0.1)


def test_its_parameters_are_the_model_s() -> None:
    model = sg.ScoreModel(torch.nn.Linear(2, 2), sg.sde.LearnedVPSDE())
    assert {"sde.ends", "sde.weights"} < set(model.state_dict())


def test_the_loss_is_the_bound() -> None:
    model = exact_model(MIXTURE, bent())
    x = MIXTURE.sample(20_000, torch.Generator().manual_seed(0))
    loss = sg.losses.vdm_loss(model, x).detach()
    exact = -sg.elbo(model, x[:2000], draws=60).value
    error = float(loss.std()) / len(x) ** 0.5 + float(exact.std()) / 2000**0.5
    assert abs(float(loss.mean()) - float(exact.mean()) / 2) < 4 * error
    with refused("vdm_loss learns the schedule of a LearnedVPSDE"):
        sg.losses.vdm_loss(exact_model(MIXTURE, sg.VPSDE()), x)


LOSSES = {
    "dsm_loss": sg.dsm_loss,
    "perturbed": sg.losses.perturbed,
    "exposed": sg.losses.exposed,
    "variance_loss": partial(sg.losses.variance_loss, head=sg.solvers.Residual()),
    "hybrid_loss": partial(sg.losses.hybrid_loss, head=sg.solvers.Range()),
    "Consistency": sg.distill.Consistency(steps=4),
    "Shortcut": sg.distill.Shortcut(),
    "MeanFlow": sg.distill.MeanFlow(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_other_losses_move_no_schedule(name: str) -> None:
    """They would move it to where their error is small; one that is kept is an SDE as others."""
    torch.manual_seed(0)
    sde, net = bent(), MLP(2, width=8, depth=1, out=4, numbers=["jump"])
    model = sg.ScoreModel(net, sde, heads=2)
    if name in ("Consistency", "Shortcut", "MeanFlow"):
        model = sg.ScoreModel(MLP(2, width=8, depth=1, numbers=["jump"]), sde)
    x0 = normal(8, 2).float()
    with refused(f"{name} would also move the schedule of LearnedVPSDE.*vdm_loss.*requires_grad_"):
        LOSSES[name](model, x0)
    with torch.no_grad():
        assert bool(sg.dsm_loss(model, x0).isfinite().all())
    sde.requires_grad_(False)
    LOSSES[name](model, x0).sum().backward()
    assert sde.ends.grad is None and any(p.grad is not None for p in model.parameters())


def test_a_judge_leaves_a_learned_schedule_as_it_is() -> None:
    """It is trained beside a model that may learn, and of which it is told the levels alone."""
    torch.manual_seed(0)
    judge = Judge(MLP(2, width=8, depth=1, out=3), bent())
    for weight in judge.parameters():
        weight.data += 0.1 * torch.randn(weight.shape)
    x0, y = normal(8, 2).float(), torch.arange(8) % 3
    sg.losses.noisy_ce(judge, x0, y).sum().backward()
    learnt = {name for name, each in judge.named_parameters() if each.grad is not None}
    assert learnt and all(name.startswith("logits.net.") for name in learnt)


def test_a_head_leaves_a_learned_schedule_as_it_is() -> None:
    sde = bent()
    model = sg.ScoreModel(MLP(2, width=8, depth=1), sde)
    x0, net = normal(64, 2).float(), MLP(2, width=8, depth=1)
    two = sg.distill.fit_head(model, sg.solvers.Residual(), x0, 2, net=net)
    close(two.sde(0.3).lam, sde(0.3).lam.detach())
    assert sde.ends.requires_grad and sde.ends.grad is None


@pytest.mark.slow
def test_learning_cuts_the_variance_and_improves_the_bound() -> None:
    """With the exact denoiser only the schedule is left to learn."""
    torch.manual_seed(0)
    sde = sg.sde.LearnedVPSDE(first=2.0, last=-1.0)  # too short at the data's end
    model = exact_model(MIXTURE, sde)
    x = MIXTURE.sample(20_000, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(sde.parameters(), lr=0.05)

    def spread() -> tuple[float, float]:
        with torch.no_grad():
            loss = torch.cat([sg.losses.vdm_loss(model, part) for part in x.split(500)])
        return float(loss.mean()), float(loss.std())

    before = spread()
    for i in range(600):
        optimizer.zero_grad()
        sg.losses.vdm_loss(model, x[torch.arange(500) + 500 * (i % 40)]).mean().backward()
        optimizer.step()
    after = spread()
    assert after[0] < before[0] - 0.01
    first, last = sde.ends.tolist()
    assert first > 2.5
    # Between the same ends, the straight schedule's estimates are wider spread.
    straight = sg.sde.LearnedVPSDE(first, last)
    even = torch.cat([sg.losses.vdm_loss(exact_model(MIXTURE, straight), p) for p in x.split(500)])
    assert after[1] < 0.92 * float(even.detach().std())

"""What a loss learns of its own size at every level."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sdegen as sg
from sdegen.distill import Consistency, MeanFlow, Shortcut
from sdegen.files import read_tensors
from sdegen.losses import Uncertainty, dequantised, exposed
from sdegen.networks import MLP
from sdegen.training.checkpoint import CHECKPOINT
from tests.cases import close, refused
from tests.trainers import trainer

SDE = sg.VPSDE()
TIMES = torch.tensor([0.05, 0.3, 0.6, 0.9], dtype=torch.float64)
LOSSES = torch.tensor([0.02, 1.0, 3.0, 40.0], dtype=torch.float64)


def model_of(dim: int = 2) -> sg.ScoreModel:
    torch.manual_seed(0)
    return sg.ScoreModel(MLP(dim, width=8, depth=1), SDE)


def constant(model: Any, x0: Tensor) -> Tensor:
    """A loss that is a number at each of four levels, whatever the data are."""
    model(x0, SDE(TIMES.to(x0)))
    return LOSSES.to(x0)


def test_it_learns_the_mean_loss_of_every_level() -> None:
    """e^u = L, where L is constant; then the loss is 1 + u."""
    torch.manual_seed(0)
    loss, x0 = Uncertainty(constant, count=16).double(), torch.randn(4, 2).double()
    model = model_of().double()
    optimizer = torch.optim.LBFGS(loss.parameters(), max_iter=400, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss(model, x0).mean()
        total.backward()
        return total

    for _ in range(3):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    u = loss.u(SDE(TIMES), SDE).detach()
    close(u.exp(), LOSSES, rtol=1e-4)
    close(loss(model, x0).detach(), 1 + LOSSES.log(), rtol=1e-4, atol=1e-4)


def test_at_first_it_is_the_loss_itself() -> None:
    model, x0 = model_of(), torch.randn(8, 2)
    torch.manual_seed(3)
    alone = sg.dsm_loss(model, x0)
    weighted = Uncertainty(sg.dsm_loss)
    torch.manual_seed(3)
    assert torch.equal(weighted(model, x0), alone)


def test_any_loss_and_level() -> None:
    """Of a flow's ends, where the label is infinite; around another loss, and within one."""
    torch.manual_seed(0)
    sde, x0 = sg.FlowSDE(T=1.0), torch.randn(3, 2)
    model = sg.ScoreModel(MLP(2, width=8, depth=1), sde, predicts="velocity", time="tau")
    u = Uncertainty(sg.dsm_loss)
    u.weight.data.normal_()
    ends = sde(torch.tensor([0.0, 1.0, 0.5], dtype=torch.float64))
    assert bool(u.u(ends, sde).isfinite().all())
    assert u.u(sde(torch.tensor(0.5)), sde).shape == ()
    around = Uncertainty(partial(dequantised, levels=17, loss=sg.dsm_loss))
    within = partial(dequantised, levels=17, loss=Uncertainty(sg.dsm_loss))
    for loss in (around, within):
        found = loss(model, x0)
        assert found.shape == (3,) and bool(found.isfinite().all())
        where = torch.zeros(3, 2, dtype=torch.bool)
        assert not loss(model, x0, where=where).any()  # of nothing, and u = 0
    blurred = sg.ScoreModel(MLP(2, width=8, depth=1), sg.sde.AnisotropicVPSDE((0.5, 2.0)))
    assert u(blurred, x0).shape == (3,)


def test_the_level_is_that_of_the_call_that_learns() -> None:
    """Not that of the step by which ``exposed`` makes its states, nor of a target's; under
    no_grad, where no call learns, the last."""
    torch.manual_seed(0)
    asked: list[Any] = []

    def two(model: Any, x0: Tensor) -> Tensor:
        with torch.no_grad():
            model(x0, SDE(TIMES[:1].to(x0).expand(4)))
        model(x0, SDE(TIMES.to(x0)))
        return LOSSES.to(x0)

    loss, model, x0 = Uncertainty(two, count=4), model_of(), torch.randn(4, 2)
    loss.weight.data.normal_()
    u = loss.u(SDE(TIMES), SDE).detach().to(x0)
    close(loss(model, x0).detach(), LOSSES.to(x0) / u.exp() + u, rtol=1e-5)
    with torch.no_grad():
        close(loss(model, x0), LOSSES.to(x0) / u.exp() + u, rtol=1e-5)

    class Asked(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            asked.append((torch.is_grad_enabled(), t))
            return 0 * x

    inner = partial(exposed, p=1.0, gap=1.0)
    of = Uncertainty(inner, count=4)
    of.weight.data.normal_()
    student = sg.ScoreModel(Asked(), SDE)
    torch.manual_seed(1)
    plain = inner(student, x0)
    (step, before), (learns, at) = asked
    assert (step, learns) == (False, True) and bool((before > at).all())
    torch.manual_seed(1)
    u = of.u(SDE(at), SDE).detach()
    close(of(student, x0).detach(), plain / u.exp() + u, rtol=1e-4)


def test_targets_of_students_are_not_weighted() -> None:
    """A consistency model's lower neighbour does not count, the student's own call does; of a
    shortcut too, and of MeanFlow, whose level is that of a derivative's tensors."""
    torch.manual_seed(0)
    asked: list[tuple[bool, Tensor]] = []

    class Asked(torch.nn.Module):
        def forward(self, x: Tensor, tau: Tensor, jump: Tensor) -> Tensor:
            asked.append((torch.is_grad_enabled(), tau.double()))
            return x * jump[:, None]

    sde = sg.FlowSDE(T=1.0)
    model = sg.ScoreModel(Asked(), sde, predicts="velocity", time="tau")
    for inner in (Consistency(steps=4), Shortcut(share=1.0), MeanFlow()):
        asked.clear()
        loss = Uncertainty(inner, count=4)
        loss.weight.data.normal_()
        torch.manual_seed(1)
        plain = inner(model, torch.ones(6, 2))
        (at,) = [tau for learns, tau in asked if learns]
        assert not isinstance(inner, Consistency) or bool((asked[0][1] < at).all())
        u = loss.u(sde(at), sde).detach().to(plain)
        torch.manual_seed(1)
        close(loss(model, torch.ones(6, 2)).detach(), plain.detach() / u.exp() + u, rtol=1e-4)


def test_at_rest_it_is_the_loss_itself() -> None:
    """A held-out loss is comparable, whatever has been learned, within other losses too."""
    torch.manual_seed(0)
    model, x0 = model_of(), torch.randn(8, 2)
    for wrap in (lambda loss: loss, lambda loss: partial(dequantised, levels=17, loss=loss)):
        loss = Uncertainty(sg.dsm_loss)
        loss.weight.data.normal_()
        torch.manual_seed(3)
        alone = wrap(sg.dsm_loss)(model, x0)
        torch.manual_seed(3)
        assert not torch.equal(wrap(loss)(model, x0), alone)
        loss.eval()
        torch.manual_seed(3)
        assert torch.equal(wrap(loss)(model, x0), alone)


def test_held_out_losses_compare(tmp_path: Path) -> None:
    """With the same weights a run with ``Uncertainty`` has the held-out loss of one without."""
    held = sg.data.toy("moons", n=30)
    still: dict[str, Any] = {"validate_every": 4, "held_out": held, "steps": 8}
    found = {}
    for name, loss in (("alone", sg.dsm_loss), ("weighted", Uncertainty(sg.dsm_loss, count=4))):
        run = trainer(tmp_path / name, loss, **still)
        for group in run.optimizer.param_groups:
            group["lr"] = 0.0
        run.base_lr = [0.0 for _ in run.base_lr]
        if name == "weighted":
            run.loss.weight.data.normal_()
        found[name] = [each.held_out for each in run.steps()]
    assert found["alone"] == found["weighted"] and all(found["alone"])


def test_what_it_cannot_weight_is_refused() -> None:
    with refused("Uncertainty weights a loss by the level at which it calls the model, but this"):
        Uncertainty(lambda model, x0: x0.sum(1))(model_of(), torch.randn(3, 2))
    with refused("calls none: use it alone"):
        Uncertainty(lambda model, x0: x0.sum(1)).eval()(model_of(), torch.randn(3, 2))
    with refused("count must be a whole number >= 1"):
        Uncertainty(sg.dsm_loss, count=0)


def test_it_is_saved_with_the_training_and_not_with_the_model(tmp_path: Path) -> None:
    def run(name: str, steps: int) -> Any:
        torch.manual_seed(0)
        return trainer(tmp_path / name, Uncertainty(sg.dsm_loss, count=4), steps=steps)

    list(run("whole", 8).steps())
    list(run("part", 5).steps())
    list(run("part", 8).steps())
    whole, part = (read_tensors(tmp_path / n / CHECKPOINT)[0] for n in ("whole", "part"))
    assert whole.keys() == part.keys() and all(torch.equal(whole[k], part[k]) for k in whole)
    own = {k for k in whole if k.startswith("loss.")}
    assert own == {"loss.weight", "loss.waves.frequencies", "loss.waves.phases"}
    assert whole["loss.weight"].any()
    assert not any("waves" in k for k in whole if not k.startswith("loss."))

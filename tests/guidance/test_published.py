"""DPS and MCG as published: steps of a length that knows no noise, as functions of the level."""

from __future__ import annotations

import weakref
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Gaussian, exact_model
from sdegen.guidance import Guided, Mask, PublishedDPS, ddnm, dps, mcg, mmps, pigdm, tmpd
from sdegen.sde import AnisotropicVPSDE
from tests.cases import MIXTURE, SDES, Plain, close, normal, refused

SDE = sg.VPSDE()
X, Y = normal(4, 2), torch.tensor([[0.3], [0.1], [-0.2], [0.9]]).double()
TIMES = sg.walks.log_snr(SDE, 6)
FIRST = Mask(torch.tensor([[True, False]]))


def measure(x: Tensor) -> Tensor:
    return x[:, :1] + 0.3 * x[:, 1:] ** 2


@pytest.mark.parametrize("sde", ["vp", "edm", "flow", "ve", "subvp"])
def test_it_is_ddpm_and_a_step_down_the_norm(sde: str) -> None:
    """Alg. 1, written out: a DDPM step, then - zeta grad |y - A x0(x_t)| of each sample."""
    process, zeta = SDES[sde], 0.2
    times, plain = sg.walks.log_snr(process, 6), exact_model(MIXTURE, process)
    start = float(process.prior.std) * X
    want = start
    for t, s in pairwise(times):
        state = want.clone().requires_grad_()
        with torch.enable_grad():
            length = (Y - measure(plain(state, process(t)).x0)).norm(dim=1)
            (slope,) = torch.autograd.grad(length.sum(), state)
        a, b = process(t), process(s)
        keep = (a.lam - b.lam).exp()
        p = plain(want, a)
        z = sg.Seeded(0)(want, a, b)
        step = b.alpha * p.x0 + b.sigma * (keep * p.eps + (1 - keep**2).sqrt() * z)
        want = step - zeta * slope
    guided = PublishedDPS(plain, Y, measure, times, zeta)
    got = sg.sample(guided, start, solver=sg.DDIM(1.0), walk=times, seed=0)
    close(got, want, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sde", ["vp", "flow", "ve"])
def test_the_last_step_is_one_to_sigma_zero(sde: str) -> None:
    """Alg. 1's own last step: x0 of the walk's end, - zeta grad |y - A x0|, in full."""
    process, zeta = SDES[sde], 0.3
    times, plain = sg.walks.log_snr(process, 6), exact_model(MIXTURE, process)
    start = float(process.prior.std) * X
    guided = PublishedDPS(plain, Y, measure, times, zeta)
    how: dict[str, Any] = {"solver": sg.DDIM(1.0), "walk": times, "seed": 0}
    state = sg.sample(guided, start, **how).requires_grad_()
    with torch.enable_grad():
        x0 = plain(state, process(times[-1])).x0
        (slope,) = torch.autograd.grad((Y - measure(x0)).norm(dim=1).sum(), state)
    close(sg.sample(guided, start, denoise=True, **how), x0 - zeta * slope, rtol=1e-9, atol=1e-10)


def test_it_belongs_to_its_walk() -> None:
    """Another solver's levels between the times, another walk's and any other are refused before
    the network is called; levels of each sample's own are the walk's or not, each by itself."""
    plain = exact_model(MIXTURE, SDE)
    guided = PublishedDPS(plain, Y, measure, TIMES, 0.3)
    for how in (
        {"solver": sg.DDIM(1.0), "walk": "log_snr", "steps": 7},
        {"solver": sg.DDIM(1.0), "walk": "uniform", "steps": 6},
        {"nfe": 20},
        {"solver": sg.AdaptiveRK("bosh3")},
    ):
        with refused("of its walk's 7 times, of which t = .* is none: sample with solver=DDIM"):
            sg.sample(guided, X, seed=0, **how)  # type: ignore[arg-type]
    own = TIMES[torch.tensor([1, 6, 3, 0])]
    each = guided(X, SDE(own)).x0
    for i in range(4):
        alone = guided.take(torch.tensor([i]))(X[i : i + 1], SDE(own[i])).x0
        close(each[i : i + 1], alone, rtol=1e-12, atol=1e-13)
    before = plain.nfe
    with refused("of which t = 0.45 is none"):
        guided.output(X, SDE(torch.where(torch.arange(4) == 2, 0.45, own)))
    assert plain.nfe == before
    close(guided.output(X, SDE(TIMES[2].float())), guided.output(X, SDE(TIMES[2])), rtol=1e-4)
    assert (
        guided.jumps and mcg(plain, Y, FIRST, TIMES).jumps and not dps(plain, Y, measure, 1).jumps
    )


def test_in_short_steps_it_is_bayes_form_of_another_noise() -> None:
    """std^2 = 2 h sigma^2 |r| / zeta, up to the step's length."""
    plain, zeta = exact_model(MIXTURE, SDE), 0.7
    x, y, lam = X[:1], Y[:1], SDE(0.4).lam
    errors = []
    for h in (0.02, 0.01):
        times = torch.stack([SDE.time(lam), SDE.time(lam + h)])
        level = SDE(times[0])
        r = float((y - measure(plain(x, level).x0.detach())).norm())
        std = float((2 * h * level.sigma**2 * r / zeta).sqrt())
        one = PublishedDPS(plain, y, measure, times, zeta)(x, level).x0
        two = dps(plain, y, measure, std)(x, level).x0
        errors.append(float(((one - two).norm() / (two - plain(x, level).x0).norm()).detach()))
    assert errors[0] < 0.05 and abs(errors[0] / errors[1] - 2) < 0.2


def test_its_push_is_bounded_and_of_each_sample() -> None:
    """However far y is; and at r = 0 there is none. (The norm of a batch would move others.)"""
    plain, level = exact_model(Gaussian([0.0, 0.0], [1.0, 0.5]), SDE), SDE(TIMES[3])
    known = Mask(torch.tensor([[True, False]]))

    def push(y: Tensor) -> Tensor:
        p = PublishedDPS(plain, y, known, TIMES, 1.0)
        return p(X, level).x0 - plain(X, level).x0

    seen = known(plain(X, level).x0)
    near, far = push(seen + 1e-6 * known(X)), push(seen + 1e6 * known(X))
    close(near, far, rtol=1e-6, atol=1e-9)
    mixed = seen.clone()
    mixed[0] += 1e3
    assert torch.equal(push(mixed)[1:], torch.zeros(3, 2).double())


def test_mcg_sets_the_state_to_what_is_seen() -> None:
    """Without a step it is DDNM; with one, what is seen is y at the end, whatever zeta is."""
    plain, mask = exact_model(MIXTURE, SDE), Mask(torch.tensor([[True, False]]))
    y = mask(normal(4, 2, seed=3))
    level = SDE(TIMES[2])
    assert torch.equal(
        mcg(plain, y, mask, TIMES, 0.0).output(X, level), ddnm(plain, y, mask).output(X, level)
    )
    how: dict[str, Any] = {"solver": sg.DDIM(1.0), "walk": TIMES, "seed": 0, "denoise": True}
    ends = [sg.sample(mcg(plain, y, mask, TIMES, zeta), X, **how) for zeta in (0.0, 0.5)]
    for end in ends:
        close(mask(end), y, rtol=1e-12, atol=1e-12)
    assert not torch.equal(ends[0], ends[1])


def test_its_cost() -> None:
    model = exact_model(MIXTURE, SDE)
    with torch.no_grad():
        PublishedDPS(model, Y, measure, TIMES).output(X, SDE(TIMES[1]))
    assert (model.nfe, model.vjps) == (1, 1)


def test_what_cannot_be_is_refused() -> None:
    model = exact_model(MIXTURE, SDE)
    with refused("zeta must be a number >= 0, but it is -1"):
        PublishedDPS(model, Y, measure, TIMES, -1.0)
    with refused("A walk's times fall, but .* is followed by"):
        PublishedDPS(model, Y, measure, TIMES.flip(0))
    with refused("times are those of the walk, .n . 1,., but they are 5"):
        PublishedDPS(model, Y, measure, 5)  # type: ignore[arg-type]
    with refused("levels of AnisotropicVPSDE differ between coordinates"):
        wide = AnisotropicVPSDE((1.0, 2.0))
        PublishedDPS(exact_model(MIXTURE, wide), Y, measure, TIMES)
    with refused(r"A makes \(4, 1\) of states \(4, 2\), but y is \(4, 2\)"):
        PublishedDPS(model, X, measure, TIMES).output(X, SDE(0.5))
    assert model.nfe == 0
    with refused("y is a floating-point tensor with the batch's axis"):
        PublishedDPS(model, torch.tensor(0.3), measure, TIMES)
    with refused("y is a floating-point tensor .* not torch.int64 of shape"):
        dps(model, torch.ones(4, 1).long(), measure, 0.1)
    with refused("ddnm projects by A.., A is an Operator|ddnm projects by"):
        mcg(model, Y, measure, TIMES)  # type: ignore[arg-type]
    with refused("PublishedDPS changes E.x0 . x., which needs alpha and sigma, but Plain"):
        PublishedDPS(sg.ScoreModel(lambda x, t: x, Plain(), "score"), Y, measure, TIMES)


class Watched(torch.nn.Module):
    """A network that knows which of its activations are alive, and whose graph they belong to."""

    def __init__(self) -> None:
        super().__init__()
        self.W = torch.nn.Parameter(normal(2, 2))
        self.kept: list[weakref.ref[Tensor]] = []
        self.graphs: list[int] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.graphs.append(sum(each() is not None for each in self.kept))
        with torch.autograd.graph.saved_tensors_hooks(self.pack, lambda x: x):
            return torch.tanh(x @ self.W)

    def pack(self, x: Tensor) -> Tensor:
        copy = x.detach().clone()
        self.kept.append(weakref.ref(copy))
        return copy


def through(m: Any) -> Guided:
    return Guided(m, lambda x0, level: -x0.square().sum(1), 0.1, through=True)


GRADIENTS = {
    "dps": lambda m: dps(m, Y, measure, 0.9),
    "pigdm": lambda m: pigdm(m, Y, measure, 0.5),
    "tmpd": lambda m: tmpd(m, Y, measure, 0.5),
    "mmps": lambda m: mmps(m, Y, measure, 0.5),
    "published": lambda m: PublishedDPS(m, Y, measure, TIMES, 0.1),
    "guided": through,
}


@pytest.mark.parametrize("kind", GRADIENTS)
def test_one_forward_graph_is_kept(kind: str) -> None:
    """Nothing of a call's graph is alive at the next one, and a call makes one."""
    net = Watched()
    model = GRADIENTS[kind](sg.ScoreModel(net, SDE, "x0"))
    sg.sample(model, X, solver=sg.DDIM(), walk=TIMES)
    assert net.graphs == [0] * 6 and len(net.kept) % 6 == 0 and net.kept
    assert not any(each() is not None for each in net.kept)

"""Estimators of the divergence against their own error, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.likelihood.density import log_prob
from sdegen.likelihood.divergence import Divergence
from sdegen.likelihood.flow import decode, encode
from tests.cases import MIXTURE, Smooth, close, normal, refused
from tests.solutions import gaussian, model_density

FINE = {"solver": sg.AdaptiveRK(clock="lam", rtol=1e-8, atol=1e-8), "divergence": "exact"}


# ------------------------------------------------------------------------------------ estimators


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "hutch++"])
def test_estimators_are_right_and_know_their_error(kind: Any) -> None:
    """Over many seeds: unbiased, and as far off as they say."""
    sde, data = sg.VPSDE(), gaussian(8)
    model, x = exact_model(data, sde), data.sample(1, torch.Generator().manual_seed(0))
    exact = log_prob(model, x, **FINE).value  # type: ignore[arg-type]
    many = 400
    found = log_prob(
        model,
        x.expand(many, -1),
        divergence=kind,
        probes=3,
        seed=1,
        solver=sg.AdaptiveRK(clock="lam", rtol=1e-6, atol=1e-6),
    )
    off = found.value - exact
    true = off.square().mean().sqrt()
    assert off.mean().abs() < 3.5 * true / many**0.5
    assert found.error.square().mean().sqrt() / true == pytest.approx(1, abs=0.15)
    # Of three probes it is Student's t of 2 degrees: 90 % within three errors, of normal values.
    assert (off.abs() < 3 * found.error).double().mean() > 0.8
    one = log_prob(model, x, divergence=kind, probes=1)
    assert one.error.isnan().all() and one.value.isfinite().all()


@pytest.mark.parametrize("kind", [None, "rademacher", "gaussian"])
def test_an_error_of_zero_is_no_error(kind: Any) -> None:
    """Two draws of two signs are one, up to sign, half of the time: no evidence."""
    data, sde = Gaussian([0.3, -0.2], [[1.0, 0.8], [0.8, 1.0]]), sg.VPSDE()
    model, x = exact_model(data, sde), data.sample(200, torch.Generator().manual_seed(0))
    truth = model_density(data, sde, x)
    found = log_prob(model, x, divergence=kind, solver=sg.AdaptiveRK(clock="lam", rtol=1e-6))
    sure = found.error == 0
    if kind is None:  # exact
        assert sure.all()
        close(found.value, truth, rtol=0, atol=1e-4)
        return
    assert not sure.any()
    off = (found.value - truth).abs()
    untold = found.error.isnan()
    assert (0.35 < untold.double().mean() < 0.65) == (kind == "rademacher")
    assert off[untold].max() > 1 if kind == "rademacher" else not untold.any()


@pytest.mark.parametrize(("d", "probes", "exact"), [(1, 1, True), (4, 2, True), (5, 2, False)])
def test_few_dimensions_are_exact_by_default(d: int, probes: int, exact: bool) -> None:
    model, x = exact_model(gaussian(d), sg.VPSDE()), normal(3, d)
    found = log_prob(model, x, probes=probes, solver=sg.Heun("lam"), steps=4)
    assert (found.error == 0).all() == exact
    assert found.vjps == 8 * (d if exact else probes)


def test_hutch_plus_plus_is_better_where_a_jacobian_is_of_low_rank() -> None:
    """At equal work: a sketch and its square beside as many plain probes as backward passes."""
    direction = normal(40, seed=5)
    cov = torch.outer(direction, direction) + 0.01 * torch.eye(40, dtype=torch.float64)
    data = Gaussian(torch.zeros(40), cov)
    model = exact_model(data, sg.VPSDE())
    x = data.sample(1, torch.Generator().manual_seed(0)).expand(60, -1)
    plain = log_prob(model, x, divergence="rademacher", probes=6, seed=0).value.std()
    better = log_prob(model, x, divergence="hutch++", probes=2, seed=0).value.std()
    assert better < 0.3 * plain


def test_the_divergence_of_a_field() -> None:
    """Each kind on a field whose Jacobian is known; chunks make no difference."""
    A = normal(2, 6, 6)
    x = normal(2, 2, 3).requires_grad_()
    out = torch.einsum("bij,bj->bi", A, x.reshape(2, 6)).reshape(2, 2, 3) + x.sin()
    exact = A.diagonal(dim1=1, dim2=2).sum(1) + x.detach().cos().flatten(1).sum(1)
    for chunk in (1, 4, 64):
        field = Divergence("exact", chunk=chunk)
        got = field(out, x, field.draw(x, sg.Seeded(0), sg.VPSDE()(0.5)))
        assert got.shape == (2, 1)
        close(got[:, 0], exact)
    field = Divergence("hutch++", probes=5)
    got = field(out, x, field.draw(x.detach(), sg.Seeded(0), sg.VPSDE()(0.5)))
    assert got.shape == (2, 5) and not torch.equal(got[:, 0], got[:, 1])


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "exact"])
def test_states_that_are_numbers(kind: Any) -> None:
    """(b,), as (b, 1) with the same probes."""
    model, x = sg.ScoreModel(lambda x, t: torch.tanh(x) * 0.5, sg.VPSDE()), normal(4)
    flat, column = (log_prob(model, y, divergence=kind) for y in (x, x[:, None]))
    close(flat.value, column.value, rtol=1e-12)
    assert flat.z.shape == (4,)
    with refused("sketches all 1 dimensions"):
        log_prob(model, x, divergence="hutch++", probes=1)


class Reads(TorchDispatchMode):
    """How often the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.n += any(each in name for each in ("scalar_dense", "check_errors", "nonzero"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["rademacher", "gaussian", "hutch++", "exact"])
def test_fixed_steps_read_nothing_back(kind: Any) -> None:
    """As often with 40 steps as with 10, the check of the network's gradient included."""
    layer = torch.nn.Linear(6, 6).double()
    model, x = sg.ScoreModel(lambda x, t: layer(x).tanh(), sg.VPSDE(), module=layer), normal(3, 6)
    reads = []
    for steps in (10, 40):
        for _ in range(2):  # what is remembered of a walk is read the first time alone
            with Reads() as seen:
                log_prob(model, x, solver=sg.UniPC(), steps=steps, divergence=kind)
        reads.append(seen.n)
    assert reads[0] == reads[1]


@dataclass
class Counted:
    """A network and how often it was asked."""

    calls: int = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return torch.tanh(x) * 0.5


def test_one_network_call_for_drift_and_divergence() -> None:
    net = Counted()
    model, x = sg.ScoreModel(net, sg.VPSDE()), normal(3, 4)
    for kind in ("rademacher", "hutch++", "exact"):
        net.calls = 0
        found = log_prob(model, x, solver=sg.Heun("lam"), steps=10, divergence=kind)  # type: ignore[arg-type]
        assert net.calls == 20 and found.nfe.tolist() == [20] * 3


def test_a_sample_s_value_is_its_own() -> None:
    model, x = sg.ScoreModel(Smooth(), sg.VPSDE()), normal(6, 2)
    solver = sg.AdaptiveRK(clock="lam", rtol=1e-4, atol=1e-4, per_sample=True)
    seeds = [5, 3, 9, 2, 8, 7]
    whole = log_prob(model, x, solver=solver, seed=seeds)
    order = torch.tensor([4, 1, 3])
    part = log_prob(model, x[order], solver=solver, seed=[seeds[int(i)] for i in order])
    close(part.value, whole.value[order], rtol=1e-12)
    assert part.nfe.tolist() == whole.nfe[order].tolist()
    shared = log_prob(model, x, seed=seeds)
    close(shared.value, whole.value, rtol=0, atol=1e-2)


def test_a_float32_network_is_integrated_in_float64() -> None:
    single, double = (
        sg.ScoreModel(Smooth(dtype=dtype), sg.VPSDE()) for dtype in (torch.float32, torch.float64)
    )
    x = normal(4, 2, dtype=torch.float32)
    mine, theirs = (log_prob(model, x, divergence="exact") for model in (single, double))
    assert mine.value.dtype == torch.float64
    close(mine.value, theirs.value, rtol=0, atol=1e-3)


# ------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    "solver", [sg.RK4("lam"), sg.AdaptiveRK(clock="lam", rtol=1e-7, atol=1e-7)]
)
def test_gradients_are_those_of_the_closed_form(solver: sg.Solver) -> None:
    sde, data = sg.VPSDE(), gaussian(3)
    x = normal(3, 3).requires_grad_()
    steps = None if solver.traits.adaptive else 60
    found = log_prob(exact_model(data, sde), x, solver=solver, steps=steps, divergence="exact")
    (mine,) = torch.autograd.grad(found.value.sum(), x)
    (exact,) = torch.autograd.grad(model_density(data, sde, x).sum(), x)
    close(mine, exact, rtol=1e-4, atol=1e-4)
    assert not log_prob(exact_model(data, sde), x.detach()).value.requires_grad


# -------------------------------------------------------------------------------------- failures


def test_a_failed_sample_leaves_the_others_alone() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        bad = (x[:, :1] > 50).any(1, keepdim=True)
        return torch.where(bad, torch.nan, torch.tanh(x))

    model, x = sg.ScoreModel(net, sg.VPSDE()), normal(4, 2)
    alone = log_prob(model, x[[0, 2]], seed=[0, 2])
    x[1] = 100.0
    with pytest.warns(UserWarning, match=r"samples \[1\] are NaN: NONFINITE"):
        found = log_prob(model, x[:3], seed=[0, 1, 2])
    assert found.failed == [1] and found.value.isfinite().tolist() == [True, False, True]
    assert found.error.isfinite().tolist() == [True, False, True]
    close(found.value[[0, 2]], alone.value, rtol=0, atol=1e-3)
    with pytest.warns(UserWarning, match=r"likelihoods of samples \[1\]") as seen:
        assert log_prob(model, x[:3], divergence="exact").error.isnan().tolist() == [
            False,
            True,
            False,
        ]
    assert seen[0].filename == __file__


@pytest.mark.parametrize("solver", [sg.AdaptiveRK(), sg.UniPC()], ids=["adaptive", "fixed"])
def test_encodings_that_failed_are_named(solver: sg.Solver) -> None:
    """And NaN as a whole, whichever coordinate went astray."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(x > 1e6, torch.nan, torch.tanh(x))

    model, x = sg.ScoreModel(net, sg.VPSDE()), normal(4, 2)
    x[1, 0] = 1e9
    steps = None if solver.traits.adaptive else 20
    for go, what in ((encode, "encodings"), (decode, "decodings")):
        with pytest.warns(UserWarning, match=rf"{what} of samples \[1\] are NaN: NON") as seen:
            y = go(model, x, solver=solver, steps=steps)
        assert seen[0].filename == __file__
        assert y.isfinite().tolist() == [[True] * 2, [False] * 2, [True] * 2, [True] * 2]
    with pytest.warns(UserWarning, match=r"samples \[0, 1, 2, 3\] are NaN: BUDGET"):
        encode(model, x.clamp(max=1.0), solver=sg.AdaptiveRK(max_nfe=20))


def test_what_has_no_likelihood_is_refused() -> None:
    model, x = exact_model(MIXTURE, sg.VPSDE()), normal(3, 2)
    with refused("integer images first, or use bits_per_dim|use bits_per_dim"):
        log_prob(model, torch.zeros(3, 2, dtype=torch.uint8))
    for probes in (0, -1, 1.5):
        with refused("probes must be a whole number >= 1"):
            log_prob(model, x, probes=probes)  # type: ignore[arg-type]
    with refused("Unknown divergence"):
        log_prob(model, x, divergence="hutchinson")  # type: ignore[arg-type]
    with refused("hutch\\+\\+ with 2 probes sketches all 2 dimensions"):
        log_prob(model, x, divergence="hutch++")
    detached = sg.ScoreModel(lambda x, t: x.detach(), sg.VPSDE())
    with refused("no gradient with respect to its input"):
        log_prob(detached, x)
    layer = torch.nn.Linear(2, 2).double()  # its weights have gradients, its input has none
    with refused("no gradient with respect to its input"):
        log_prob(sg.ScoreModel(lambda x, t: layer(x.detach()), sg.VPSDE(), module=layer), x)
    for none, why in (("hen", "no solver 'hen'"), (sg.UniPC, "A solver is a Solver")):
        for go in (log_prob, encode, decode):
            with refused(why):
                go(model, x, solver=none)  # type: ignore[operator]
    with refused("AdaptiveMultistep.* chooses its own steps"):
        log_prob(model, x, steps=10)
    for go, what in ((log_prob, "Data"), (encode, "Data"), (decode, "An encoding")):
        with refused(f"{what} is a torch.Tensor .* of ndarray"):
            go(model, x.numpy())  # type: ignore[operator]
        with refused(f"{what} is a batch .* its shape is \\(0, 2\\)"):
            go(model, x[:0])  # type: ignore[operator]
        with refused(f"{what} is of floating-point numbers, but it is torch.int64"):
            go(model, x.long())  # type: ignore[operator]
    with refused("seed or a noise source"):
        log_prob(model, x, seed=1, noise=sg.Seeded(1))
    with refused("this one climbs"):
        log_prob(model, x, solver=sg.DDIM(), walk=[1.0, 0.3, 0.5, 0.001])
    with refused("from T = 1 to t_min = 0.001; this one goes from 0.5 to 0.1"):
        log_prob(model, x, solver=sg.DDIM(), walk=torch.linspace(0.5, 0.1, 9))
    with refused("exactly one of steps and nfe"):
        log_prob(model, x, solver=sg.DDIM())
    whole = exact_model(MIXTURE, sg.FlowSDE(T=1.0))
    with refused("At t = 1 no signal is left"):
        log_prob(whole, x, solver=sg.Heun(), steps=5, walk="uniform")
    with refused("At t = 1 no signal is left"):
        log_prob(whole, x)
    still = exact_model(MIXTURE, sg.VPSDE(t_min=0.0))
    with refused(r"At t_min = 0 no noise is left.*VPSDE\(t_min=1e-5\)"):
        log_prob(still, x)
    for go in (encode, decode):
        with refused("log.* of VPSDE is infinite at an end.*begins later"):
            go(still, x)  # type: ignore[operator]
    with refused("UniPC with a network that predicts x0 has no value at t = 0"):
        encode(still, x, walk="uniform", steps=5)


def test_data_out_of_range_is_refused() -> None:
    """Where the model knows what it was trained on."""
    inner = exact_model(MIXTURE, sg.VPSDE())
    model = sg.ScoreModel(inner.net, inner.sde, inner.target, data_range=(-1.0, 1.0))
    x, bytes_ = normal(3, 2).clamp(-1, 1), torch.full((3, 2), 255, dtype=torch.uint8)
    for go in (log_prob, encode, sg.elbo, lambda m, x: sg.likelihood.discrete_elbo(m, x, steps=3)):
        go(model, x)  # type: ignore[operator]
        with refused("trained on data in \\[-1, 1\\], but sample 0 reaches from"):
            go(model.given(), 127.5 * (x + 1))  # type: ignore[operator]
    how: Any = {"solver": sg.UniPC(), "steps": 5}
    assert sg.bits_per_dim(model, bytes_, **how).value.isfinite().all()
    half = sg.ScoreModel(inner.net, inner.sde, inner.target, data_range=(0.0, 0.9))
    for go in (sg.bits_per_dim, sg.elbo):
        with refused("trained on data in \\[0, 0.9\\], but sample 0 reaches from 1 to 1"):
            go(half, bytes_, levels=256)  # type: ignore[operator]
    with refused("data_range is \\(low, high\\)"):
        sg.ScoreModel(inner.net, inner.sde, data_range=(1.0, -1.0))

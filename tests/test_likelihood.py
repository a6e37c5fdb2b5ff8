"""Likelihoods against closed form, estimators against their own error, encodings both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from conftest import EVERY_SOLVER, MIXTURE, Smooth, close, normal, refused, sdes
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import sdegen as sg
from sdegen.exact.distributions import Empirical, Gaussian, exact_model
from sdegen.likelihood.density import log_prob
from sdegen.likelihood.divergence import Divergence
from sdegen.likelihood.flow import decode, encode, slerp
from sdegen.likelihood.ground import level_at_t_min

FINE = {"solver": sg.AdaptiveRK(clock="lam", rtol=1e-8, atol=1e-8), "divergence": "exact"}
USUAL: dict[str, Any] = {"divergence": "exact"}
"""The default solver, of whose error 1e-4 nats is promised where the divergence is exact."""


def gaussian(d: int) -> Gaussian:
    """Correlated, in d dimensions."""
    half = normal(d, d, seed=3) / d**0.5
    return Gaussian(normal(d, seed=4) / 2, half @ half.T + 0.1 * torch.eye(d, dtype=torch.float64))


def ends(sde: sg.SDE) -> tuple[sg.Level, sg.Level]:
    at: Any = sde(torch.tensor([sde.T, sde.t_min], dtype=torch.float64)).unbind()
    return at


def model_density(data: Gaussian, sde: sg.LinearSDE, x: Tensor) -> Tensor:
    """log p of the model with this exact score: the flow of a Gaussian is linear, its end known.

    The prior is not the data's own law at T, and this is the density that it leads to.
    """
    top, at = ends(sde)
    z = data.flow(at.alpha * x, at, top)
    d = x.shape[1]
    gain = data.log_prob(at.alpha * x, at) - data.log_prob(z, top)
    return sde.prior.log_prob(z) + gain + d * at.alpha.log()


# ----------------------------------------------------------------------------------- closed form


@sdes
@pytest.mark.parametrize("d", [1, 3, 12])
def test_gaussians(sde: sg.LinearSDE, d: int) -> None:
    data = gaussian(d)
    x = data.sample(5, torch.Generator().manual_seed(0))
    found = log_prob(exact_model(data, sde), x, **USUAL)
    close(found.value, model_density(data, sde, x), rtol=0, atol=1e-4)
    assert found.error.tolist() == [0.0] * 5 and found.failed == []


@sdes
def test_mixtures(sde: sg.LinearSDE) -> None:
    """Against the density of the model by another way: SciPy's end of the flow."""
    model, x = exact_model(MIXTURE, sde), MIXTURE.sample(4, torch.Generator().manual_seed(0))
    found = log_prob(model, x, **USUAL)
    top, at = ends(sde)
    z = encode(model, x, solver=sg.solvers.SciPy("DOP853", rtol=1e-10, atol=1e-10))
    exact = (
        MIXTURE.log_prob(at.alpha * x, at)
        - MIXTURE.log_prob(z, top)
        + sde.prior.log_prob(z)
        + 2 * at.alpha.log()
    )
    close(found.value, exact, rtol=0, atol=1e-4)
    # As the prior becomes right, the model's density is the data's own, smoothed by rho.
    smooth = MIXTURE.log_prob(at.alpha * x, at) + 2 * at.alpha.log()
    assert (found.value - smooth).abs().max() < 0.05


def quiet(rho: float) -> dict[str, sg.LinearSDE]:
    """SDEs that leave the noise rho in the data, and end in noise alone."""
    at = -torch.log(torch.tensor(rho, dtype=torch.float64))
    made: dict[str, Any] = {
        "vp": lambda **k: sg.VPSDE(beta_max=80.0, **k),
        "subvp": lambda **k: sg.SubVPSDE(beta_max=80.0, **k),
        "ve": lambda **k: sg.VESDE(sigma_max=1e6, **k),
        "cosine": lambda **k: sg.CosineSDE(T=0.999999, **k),
        "edm": lambda **k: sg.EDMSDE(T=1e6, **k),
        "flow": lambda **k: sg.FlowSDE(T=0.999999, **k),
    }
    return {name: make(t_min=float(make().time(at))) for name, make in made.items()}


def smeared(data: Any, sde: sg.LinearSDE, x: Tensor) -> Tensor:
    """log p of x0 + rho z, for the noise rho that is left at t_min."""
    at = ends(sde)[1]
    return data.log_prob(at.alpha * x, at) + x[0].numel() * at.alpha.log()


PROBLEMS: dict[str, tuple[Any, float, Tensor]] = {
    "gaussian": (gaussian(7), 0.05, gaussian(7).sample(5, torch.Generator().manual_seed(0))),
    "mixture": (MIXTURE, 0.05, MIXTURE.sample(6, torch.Generator().manual_seed(1))),
    "empirical": (Empirical(normal(5, 2, 3)), 0.4, normal(3, 2, 3, seed=1)),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_sde_gives_the_closed_form_and_the_same(name: str) -> None:
    """To 1e-4 nats, where they leave the same noise, and end in noise alone."""
    data, rho, x = PROBLEMS[name]
    found = []
    for sde in quiet(rho).values():
        found.append(log_prob(exact_model(data, sde), x, **USUAL).value)
        close(found[-1], smeared(data, sde, x), rtol=0, atol=1e-4)
        close(found[-1], found[0], rtol=0, atol=1e-4)


def test_the_density_at_t_min_is_that_of_smoothed_data() -> None:
    """Off from the data's own by rho^2 / 2 times the Laplacian of p, over p."""
    data, x = gaussian(2), normal(4, 2) / 2
    errors = []
    for t_min in (0.01, 0.02):
        sde = sg.EDMSDE(T=1e6, t_min=t_min)
        value = log_prob(exact_model(data, sde), x, **FINE).value  # type: ignore[arg-type]
        precision = torch.linalg.inv(torch.as_tensor(data.cov))
        slope = (x - torch.as_tensor(data.mean)) @ precision
        laplacian = slope.square().sum(1) - precision.diagonal().sum()
        close(value - data.log_prob(x), t_min**2 / 2 * laplacian, rtol=0.1, atol=1e-5)
        errors.append((value - data.log_prob(x)).abs().max())
    assert 3.5 < errors[1] / errors[0] < 4.5


def test_song_s_convention() -> None:
    """x itself as a state at t_min."""
    sde, data, x = sg.VPSDE(), gaussian(2), normal(4, 2)
    at = ends(sde)[1]
    model = exact_model(data, sde)
    found = log_prob(model, x, scaled=False, **FINE)  # type: ignore[arg-type]
    close(found.value, log_prob(model, x / at.alpha, **FINE).value - 2 * at.alpha.log(), rtol=1e-6)  # type: ignore[arg-type]
    assert (found.value - data.log_prob(x, at)).abs().max() < 0.02


# --------------------------------------------------------------------------------- every solver

BOTH_WAYS = {
    name: solver for name, solver in EVERY_SOLVER.items() if solver.upward and solver.eta == 0
}


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_every_ode_solver_gives_a_likelihood(name: str) -> None:
    solver, sde = BOTH_WAYS[name], sg.VPSDE()
    data = gaussian(3)
    x = data.sample(3, torch.Generator().manual_seed(0))
    model, exact = exact_model(data, sde), model_density(data, sde, x)
    if solver.adaptive:
        found = log_prob(model, x, solver=solver, divergence="exact", probes=1)
        assert (found.value - exact).abs().max() < 0.2
        return
    off = [
        (log_prob(model, x, solver=solver, divergence="exact", steps=n).value - exact).abs().max()
        for n in (60, 240)
    ]
    assert off[1] < 0.6 * off[0] or off[1] < 1e-3


@pytest.mark.parametrize("name", sorted(set(EVERY_SOLVER) - set(BOTH_WAYS)))
def test_a_solver_that_adds_noise_is_refused(name: str) -> None:
    model = exact_model(MIXTURE, sg.VPSDE())
    for go in (log_prob, encode, decode):
        with refused("does not follow the probability flow.*such as Euler"):
            go(model, normal(2, 2), solver=EVERY_SOLVER[name], steps=3)


def test_its_eta_makes_a_solver_stochastic() -> None:
    model, x = exact_model(MIXTURE, sg.VPSDE()), normal(2, 2)
    kinds = (
        sg.EulerMaruyama(),
        sg.solvers.SASolver(),
        sg.solvers.ERSDE(),
        sg.solvers.GottaGoFast(),
        sg.DDIM(1.0),
    )
    for solver in (
        *kinds,
        sg.solvers.StochasticHeun(),
        sg.solvers.SRA1(),
        sg.solvers.ReverseDiffusion(),
    ):
        with refused("it adds noise, eta = "):
            log_prob(model, x, solver=solver, steps=None if solver.adaptive else 5)
    for still in (sg.solvers.SASolver(eta=0.0), sg.solvers.ERSDE(eta=0.0)):
        assert log_prob(model, x, solver=still, steps=5).value.isfinite().all()


class Slope(sg.SDE):
    """VP's equation, said without its marginals."""

    T, t_min = 1.0, 1e-3
    inner = sg.VPSDE()

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return self.inner.drift(x, t)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return self.inner.diffusion(x, t)

    @property
    def prior(self) -> Any:
        return self.inner.prior


def test_an_sde_without_marginals() -> None:
    sde, data, x = sg.VPSDE(), gaussian(3), normal(4, 3)
    exact = exact_model(data, sde)
    model = sg.ScoreModel(lambda x, t: exact(x, sde(t)).score, Slope(), "score")
    solver = sg.AdaptiveRK(clock="t", rtol=1e-8, atol=1e-8)
    for kind in ("exact", "rademacher"):
        mine, theirs = (
            log_prob(each, x, solver=solver, divergence=kind, scaled=False)  # type: ignore[arg-type]
            for each in (model, exact)
        )
        close(mine.value, theirs.value, rtol=0, atol=1e-5)
        close(mine.z, theirs.z, rtol=0, atol=1e-6)


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
    assert (off.abs() < 3 * found.error).double().mean() > 0.85  # few probes: heavy tails
    one = log_prob(model, x, divergence=kind, probes=1)
    assert one.error.isnan().all() and one.value.isfinite().all()


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
    model, x = sg.ScoreModel(lambda x, t: layer(x).tanh(), sg.VPSDE()), normal(3, 6)
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
    steps = None if solver.adaptive else 60
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
        assert log_prob(model, x[:3], **USUAL).error.isnan().tolist() == [False, True, False]
    assert seen[0].filename == __file__


@pytest.mark.parametrize("solver", [sg.AdaptiveRK(), sg.UniPC()], ids=["adaptive", "fixed"])
def test_encodings_that_failed_are_named(solver: sg.Solver) -> None:
    """And NaN as a whole, whichever coordinate went astray."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        return torch.where(x > 1e6, torch.nan, torch.tanh(x))

    model, x = sg.ScoreModel(net, sg.VPSDE()), normal(4, 2)
    x[1, 0] = 1e9
    steps = None if solver.adaptive else 20
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
        log_prob(sg.ScoreModel(lambda x, t: layer(x.detach()), sg.VPSDE()), x)
    for none in ("heun", sg.UniPC):
        for go in (log_prob, encode, decode):
            with refused("A solver is a Solver"):
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
    for go in (log_prob, encode, decode):
        with refused("At t_min = 0 no noise is left.*VPSDE\\(t_min=1e-5\\)"):
            go(still, x)  # type: ignore[operator]


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


# ------------------------------------------------------------------------------------- encodings


@sdes
def test_there_and_back(sde: sg.LinearSDE) -> None:
    model, x = exact_model(MIXTURE, sde), MIXTURE.sample(16, torch.Generator().manual_seed(0))
    z = encode(model, x, steps=400)
    assert (decode(model, z, steps=400) - x).abs().max() < 1e-6
    coarse = encode(model, x, solver=sg.DDIM(), steps=50)  # DDIM inversion
    back = decode(model, coarse, solver=sg.DDIM(), steps=50)
    assert 1e-6 < (back - x).abs().max() < 0.5


def test_encoding_is_sampling_backwards() -> None:
    sde = sg.VPSDE()
    model, z = exact_model(MIXTURE, sde), normal(5, 2)
    fine = sg.AdaptiveRK(clock="lam", rtol=1e-9, atol=1e-9)
    x = sg.sample(model, z, solver=fine)
    at = level_at_t_min(sde)
    assert isinstance(at, sg.Level)
    close(encode(model, x / at.alpha, solver=fine), z, rtol=0, atol=1e-6)
    close(decode(model, z, solver=fine), x / at.alpha, rtol=1e-9)
    cold = decode(model, z, solver=fine, temperature=0.5)
    close(cold, decode(model, 0.5 * z, solver=fine), rtol=1e-12)


@sdes
def test_float32_data_is_encoded_in_float64(sde: sg.LinearSDE) -> None:
    """So that it comes back to 1e-6 too."""
    model = exact_model(MIXTURE, sde)
    x = MIXTURE.sample(16, torch.Generator().manual_seed(0)).float()
    z = encode(model, x, steps=400)
    back = decode(model, z, steps=400)
    assert z.dtype == back.dtype == torch.float64
    assert (back - x).abs().max() < 1e-6
    single = sg.ScoreModel(Smooth(dtype=torch.float32), sde)
    assert encode(single, x).dtype == decode(single, x).dtype == torch.float64


def test_slerp() -> None:
    a, b = normal(4, 3, 5), normal(4, 3, 5, seed=1)
    close(slerp(a, b, 0.0), a, rtol=1e-10)
    close(slerp(a, b, 1.0), b, rtol=1e-10, atol=1e-12)
    half = slerp(a, b, 0.5)
    long = [v.flatten(1).norm(dim=1) for v in (a, b, half)]
    close(long[2], (long[0] + long[1]) / 2)
    cos = torch.nn.functional.cosine_similarity
    close(cos(half.flatten(1), a.flatten(1)), cos(half.flatten(1), b.flatten(1)))
    per_sample = slerp(a, b, torch.tensor([0.0, 0.25, 0.5, 1.0]))
    close(per_sample[2], half[2])
    close(slerp(a, a, 0.3), a, rtol=1e-10)
    close(slerp(0 * a, b, 0.25), 0.25 * b, rtol=1e-10)
    close(slerp(a, 0 * b, 0.25), 0.75 * a, rtol=1e-10)
    assert slerp(0 * a, 0 * b, 0.5).eq(0).all()
    with refused("floating-point"):
        slerp(a.long(), b.long(), 0.5)
    assert slerp(a[:, 0, 0], b[:, 0, 0], 0.5).shape == (4,)
    with refused("temperature"):
        decode(exact_model(MIXTURE, sg.VPSDE()), normal(2, 2), temperature=0.0)


def test_other_processes_give_other_encodings_of_one_code() -> None:
    """z / sigma_T is the same whatever the SDE, as far as no signal is left: Song et al., 4.3."""
    x = MIXTURE.sample(8, torch.Generator().manual_seed(2))
    codes = []
    for sde in (sg.VPSDE(), sg.EDMSDE(), sg.FlowSDE()):
        fine = sg.AdaptiveRK(clock="lam", rtol=1e-8, atol=1e-8)
        codes.append(encode(exact_model(MIXTURE, sde), x, solver=fine) / ends(sde)[0].sigma)
    for code in codes[1:]:
        assert (code - codes[0]).abs().max() < 0.02


def test_dequantised_bounds_go_beyond_the_range_of_the_values() -> None:
    """A bin of the first value lies half outside what the model was said to be trained on."""
    from sdegen.runs.likelihood import measure
    from sdegen.runs.settings import EvaluateSettings

    inner = exact_model(Gaussian([0.0, 0.1], [0.3, 0.2]), sg.VPSDE())
    model = sg.ScoreModel(inner.net, inner.sde, inner.target, data_range=(-1.0, 1.0))
    settings = EvaluateSettings(
        run="x",
        name="x",
        split="test",
        n=None,
        batch=1,
        steps=10,
        nfe=None,
        divergence="exact",
        probes=1,
        repeats=1,
        importance=1,
        protocol=None,
        elbo_draws=4,
        ddpm_steps=3,
        bounds_on="dequantised",
        seed=0,
        device="cpu",
        packages=[],
        solver={"_target_": "sdegen.UniPC"},
    )
    rows = measure(model, torch.tensor([[-1.0, 1.0]]), 17, settings, 0)
    assert all(rows[0][name] is not None for name in ("flow", "elbo", "ddpm"))

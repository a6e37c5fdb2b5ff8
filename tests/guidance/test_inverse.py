"""Inverse problems: operators' laws, and exact posteriors of Gaussians, point by point."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Gaussian, exact_model
from sdegen.exact import posterior as known
from sdegen.guidance import Known, Observed, operators
from sdegen.guidance.inverse import ddnm, dps, jfps, mmps, pigdm, tmpd
from tests.cases import SDES, Plain, close, normal, refused

G = torch.Generator().manual_seed(0)
OPERATORS: dict[str, tuple[operators.Operator, tuple[int, ...]]] = {
    "mask": (operators.Mask(torch.rand(1, 1, 8, 8, generator=G) < 0.4), (2, 3, 8, 8)),
    "average": (operators.Average(4), (2, 3, 8, 12)),
    "gray": (operators.Gray(), (2, 3, 8, 8)),
    "blur": (operators.Blur(torch.rand(3, 5, generator=G).double()), (2, 1, 8, 9)),
    "box": (operators.Blur(torch.ones(2, 2).double() / 4), (2, 1, 8, 8)),
    "fourier": (operators.Fourier(torch.rand(8, 6, generator=G) < 0.3), (2, 2, 8, 6)),
    "radon": (operators.Radon((0, 30, 75, 110)), (2, 1, 6, 6)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_its_adjoint_and_its_inverse(name: str) -> None:
    A, shape = OPERATORS[name]
    x, v = normal(*shape), normal(*shape).flip(0)
    y = A(v)
    u = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).double()
    close((A(x) * u).sum(), (x * A.T(u)).sum(), rtol=1e-12, atol=1e-12)
    close(A(A.pinv(y)), y, rtol=1e-10, atol=1e-10)
    p = A.pinv(A(x))  # a projection along the null space, orthogonal to it
    close(A.pinv(A(p)), p, rtol=1e-10, atol=1e-10)
    close((p * (x - p)).sum(), torch.zeros(()).double(), atol=1e-10)


def test_operators_of_images_by_hand() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert operators.Average(2)(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    shift = torch.zeros(3, 3)
    shift[1, 2] = 1
    close(operators.Blur(shift)(x), x.roll(1, -1), atol=1e-5)
    close(operators.Radon((0,))(x), x.sum(2, keepdim=True), atol=1e-5)
    with refused(r"Average\(3\) takes sides that 3 divides, not 4 x 4"):
        operators.Average(3)(x)


D, RANK, STD = 4, 2, 0.3
MEAN = torch.tensor([0.5, -0.3, 0.2, 0.1]).double()
A2 = torch.tensor([[1.0, 0.5, 0.0, -0.3], [0.0, 1.0, 0.7, 0.2]]).double()
Y = torch.tensor([[0.4, -0.8], [1.0, 0.2], [0.0, 0.0]]).double()


def measure(x: Tensor) -> Tensor:
    return x @ A2.T


def covariance(kind: str) -> Tensor:
    root = torch.randn(D, D, generator=torch.Generator().manual_seed(3)).double()
    full = root @ root.T / 4 + 0.1 * torch.eye(D)
    return {"full": full, "diagonal": full.diag().diag(), "unit": torch.eye(D).double()}[kind]


def posterior(cov: Tensor, x: Tensor, level: sg.Level, std: float) -> Tensor:
    """E[x0 | x_t, y] from the joint Gaussian, by linear algebra alone."""
    a, s2 = float(level.alpha), float(level.sigma) ** 2
    H = torch.cat([a * torch.eye(D).double(), A2])
    noise = torch.diag(torch.cat([torch.full((D,), s2), torch.full((RANK,), std**2)])).double()
    gain = cov @ H.T @ torch.linalg.inv(H @ cov @ H.T + noise)
    return MEAN + (torch.cat([x, Y], 1) - MEAN @ H.T) @ gain.T


METHODS: dict[str, tuple[Any, str]] = {
    "mmps": (lambda m, std: mmps(m, Y, measure, std, iterations=RANK), "full"),
    "tmpd": (lambda m, std: tmpd(m, Y, measure, std, iterations=RANK), "diagonal"),
    "pigdm": (lambda m, std: pigdm(m, Y, measure, std, iterations=RANK), "unit"),
    "ddnm": (
        lambda m, std: Observed(
            m, Y, measure, std, out="identity", within="identity", iterations=RANK
        ),
        "unit",
    ),
}


@pytest.mark.parametrize("std", [0.3, 0.05])
@pytest.mark.parametrize("sde", ["vp", "edm", "flow", "subvp", "ve"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_exact_is_the_posterior_mean(method: str, sde: str, std: float) -> None:
    make, kind = METHODS[method]
    cov, process = covariance(kind), SDES[sde]
    model = make(exact_model(Gaussian(MEAN, cov), process), std)
    with torch.no_grad():
        for part in (0.05, 0.3, 0.7):
            level = process(part * process.T)
            x = level.alpha * normal(3, D) + level.sigma * normal(3, D).flip(0)
            want = posterior(cov, x, level, std)
            close(model(x, level).x0, want, rtol=1e-6, atol=1e-7)
            assert float(model.residual(x, level).max()) < 1e-6


@pytest.mark.parametrize("sde", ["vp", "ve"])
def test_what_asks_the_operator_alone_is_exact_by_itself(sde: str) -> None:
    """Of rank 12, badly conditioned: PiGDM, the identity and JFPS with iterations of their own,
    which are no product with the Jacobian; MMPS and TMPD have 5, and are told its rank."""
    n, process, unit = 12, SDES[sde], torch.eye(12).double()
    A = normal(n, n, seed=5) * torch.logspace(0, -1, n, dtype=torch.float64)[:, None]
    root, y = normal(n, n, seed=6), normal(1, n, seed=7) @ A.T
    full, own = root @ root.T / n + 0.1 * unit, torch.linspace(0.2, 2, n).double().diag()
    level = process(0.4 * process.T)
    x = level.alpha * normal(3, n) + level.sigma * normal(3, n, seed=8)

    def measured(x: Tensor) -> Tensor:
        return x @ A.T

    def off(make: Any, cov: Tensor, **how: Any) -> float:
        prior = Gaussian(torch.zeros(n), cov)
        want = known(prior, A, y, 0.1).denoise(x, level)
        seen = make(exact_model(prior, process), y, measured, 0.1, **how)
        return float((seen(x, level).x0.detach() - want).norm() / want.norm())

    two: dict[str, Any] = {"out": "identity", "within": "identity"}
    assert off(pigdm, unit) < 1e-9
    assert off(Observed, unit, **two) < 1e-9
    assert off(jfps, full, P=full) < 1e-9
    assert off(tmpd, own, iterations=2 * n) < 1e-9
    assert off(mmps, full, iterations=2 * n) < 1e-9
    assert off(mmps, full) > 1e-4 and off(jfps, full, P=full, iterations=5) > 1e-4
    asked = exact_model(Gaussian(torch.zeros(n), full), process)
    for make, vjps in ((mmps, 6), (pigdm, 1), (tmpd, 2)):
        before = asked.vjps
        make(asked, y, measured, 0.1).output(x, level)
        assert asked.vjps - before == vjps


def test_what_is_done_stays_however_many_iterations_follow() -> None:
    """In every type: a hundred of them where one is enough, and a state that fits already."""
    model = sg.ScoreModel(lambda x, t: 0.5 * x.tanh(), sg.VPSDE(), "x0")
    A, level = operators.Average(2), sg.VPSDE()(0.4)
    for dtype, near in ((torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.1)):
        x = normal(2, 1, 16, 16).to(dtype)
        y = torch.cat([A(x[:1]), A(model(x[1:], level).x0)])
        long, short = (pigdm(model, y, A, 0.1, iterations=k)(x, level).x0 for k in (100, 1))
        close(long.double(), short.double(), atol=near, rtol=0)
        assert pigdm(model, y, A, 0.1).iterations == 100


def test_a_scale_that_jumps_is_said() -> None:
    class Half:
        jumps = True

        def __call__(self, level: sg.Level) -> float:
            return float(level.t > 0.5)

    model = exact_model(Gaussian(MEAN, covariance("full")), sg.VPSDE())
    jumping = mmps(model, Y, measure, STD, scale=Half())
    assert jumping.jumps and dps(jumping, Y, measure, STD).jumps
    smooth = mmps(model, Y, measure, STD, scale=lambda level: 1 - level.t)
    assert not smooth.jumps and not mmps(model, Y, measure, STD).jumps


def test_the_cost_is_counted() -> None:
    """1 + 1 products for DPS, k + 1 for MMPS, 2 for TMPD, none for the identity."""
    inner = exact_model(Gaussian(MEAN, covariance("full")), sg.VPSDE())
    level, x = sg.VPSDE()(0.5), normal(3, D)
    for make, vjps in ((dps, 1), (pigdm, 1), (tmpd, 2), (mmps, 3)):
        before = inner.nfe, inner.vjps
        with torch.no_grad():
            make(inner, Y, measure, STD, iterations=RANK).output(x, level)
        assert (inner.nfe - before[0], inner.vjps - before[1]) == (1, vjps), make


@pytest.mark.parametrize("kind", ["mmps", "pigdm", "ddnm"])
def test_laws_of_wrappers(kind: str) -> None:
    model = METHODS[kind][0](exact_model(Gaussian(MEAN, covariance("full")), sg.VPSDE()), STD)
    how: dict[str, Any] = {"solver": sg.UniPC(2), "steps": 4, "eta": 0.5}
    x = normal(3, D)
    whole = sg.sample(model, x, seed=[1, 2, 3], **how)
    for i in range(3):
        one = torch.tensor([i])
        alone = sg.sample(model.take(one), x[one], seed=[i + 1], **how)
        close(alone, whole[one], rtol=1e-9, atol=1e-10)
    with torch.inference_mode():
        assert torch.equal(sg.sample(model, x, seed=[1, 2, 3], **how), whole)
    sick = x.clone()
    sick[1] = torch.nan
    hurt = sg.sample(model, sick, seed=[1, 2, 3], **how)
    assert torch.equal(hurt[[0, 2]], whole[[0, 2]])


def test_without_noise_it_projects() -> None:
    """Known is the identity spread by a mask; greys end as they were given."""
    mask = torch.tensor([[True, False, True, False]])
    model = exact_model(Gaussian(MEAN, covariance("full")), sg.VPSDE())
    y, x, level = normal(3, D), normal(3, D).flip(0), sg.VPSDE()(0.4)
    seen = ddnm(model, y * mask, operators.Mask(mask))
    close(seen(x, level).x0, Known(model, y, mask)(x, level).x0, rtol=1e-12, atol=1e-12)
    colour = sg.ScoreModel(lambda x, t: x.tanh(), sg.VPSDE(), "x0")
    grey = normal(2, 1, 4, 4)
    end = sg.sample(
        ddnm(colour, grey, operators.Gray()),
        (2, 3, 4, 4),
        solver=sg.DDIM(),
        steps=5,
        denoise=True,
        seed=0,
    )
    close(end.double().mean(1, keepdim=True), grey, atol=1e-6)


def test_the_likelihood_of_an_observed_model_has_its_slopes() -> None:
    """Of a Gaussian the flow of MMPS is the posterior's: so is its density."""
    cov = covariance("full")
    model = mmps(exact_model(Gaussian(MEAN, cov), sg.VPSDE()), Y, measure, STD, iterations=RANK)
    gain = cov @ A2.T @ torch.linalg.inv(A2 @ cov @ A2.T + STD**2 * torch.eye(RANK).double())
    spread = cov - gain @ A2 @ cov + float(sg.VPSDE()(1e-3).sigma) ** 2 * torch.eye(D)
    x = MEAN + (Y - MEAN @ A2.T) @ gain.T + 0.1 * normal(3, D)
    got = sg.log_prob(model, x, solver=sg.UniPC(3), steps=60).value
    for i in range(3):
        mean = MEAN + (Y[i] - MEAN @ A2.T) @ gain.T
        want = torch.distributions.MultivariateNormal(mean, spread).log_prob(x[i])
        close(got[i], want, atol=0.02, rtol=0)


@pytest.mark.parametrize("method", ["mmps", "pigdm", "tmpd"])
def test_a_bound_leaves_what_is_exact(method: str) -> None:
    make, kind = METHODS[method]
    model = make(exact_model(Gaussian(MEAN, covariance(kind)), sg.VPSDE()), STD)
    bounded, level = model.changed(most=1.0), sg.VPSDE()(0.4)
    x = normal(3, D)
    close(bounded.output(x, level), model.output(x, level), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("make", [pigdm, dps, tmpd, mmps])
def test_of_one_number_the_bound_is_bayes_rule(make: Any) -> None:
    """x0 moves by C (y - x0) / (C + std^2) at most, whatever a method takes for C; where the
    network's slope, and so C, is negative, not at all."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x + 0.01 * torch.sin(1e4 * x)  # of slopes up to 100

    model, level, x = sg.ScoreModel(net, sg.VPSDE(), "x0"), sg.VPSDE()(0.3), normal(50, 1)
    y = torch.full((50, 1), 0.7).double()
    C = level.sigma**2 / level.alpha * (0.3 + 100 * torch.cos(1e4 * x))
    r = y - net(x, x)
    free, held = (make(model, y, lambda x0: x0, 0.05, most=k) for k in (float("inf"), 1.0))
    with torch.no_grad():
        there, off = held(x, level).x0, free(x, level).x0
    moved, bound = there - net(x, x), (C / (C + 0.05**2)).clamp(min=0)
    assert bool((moved / r <= bound * (1 + 1e-9) + 1e-12).all() and (moved / r >= -1e-12).all())
    if make in (pigdm, dps):
        assert float((off - y).abs().max()) > 3 * float(r.abs().max())
    r2 = level.sigma**2 / (level.sigma**2 + level.alpha**2)
    if make is pigdm:  # beyond r^2 it is the bound itself, below it as published
        close(moved[r2 < C], (bound * r)[r2 < C], rtol=1e-9)
        inside = (C > 0) & (r2 > C)
        close(there[inside], off[inside], rtol=1e-9)
    with refused("most is above 0, but it is 0"):
        make(model, y, lambda x0: x0, 0.05, most=0)


def test_a_bound_is_of_what_is_seen() -> None:
    """Of x0 where A sees nothing it knows nothing, which the docstring says."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x + 1e-3 * torch.sin(1e6 * x.flip(1)) * torch.tensor([1.0, 0.0])

    model, level, x = sg.ScoreModel(net, sg.VPSDE(), "x0"), sg.VPSDE()(0.3), normal(50, 2)
    y = torch.full((50, 1), 0.7).double()
    with torch.no_grad():
        there = mmps(model, y, lambda x0: x0[:, :1], 0.05, most=1.0)(x, level).x0
    moved, r = there - net(x, x), y - net(x, x)[:, :1]
    assert bool((moved[:, :1].abs() <= r.abs() * (1 + 1e-9)).all())
    assert float(moved[:, 1].abs().max()) > 10


def test_a_bound_is_each_samples_own() -> None:
    model = pigdm(exact_model(Gaussian(MEAN, 9 * covariance("full")), sg.VPSDE()), Y, measure, 0.1)
    held, x, level = model.changed(most=1.0), normal(3, D), sg.VPSDE()(0.6)
    whole = held.output(x, level)
    assert not torch.allclose(whole, model.output(x, level))
    for i in range(3):
        one = torch.tensor([i])
        close(held.take(one).output(x[one], level), whole[one], rtol=1e-10)


def test_an_operator_is_asked_itself_and_keeps_gradients() -> None:
    """MMPS through Radon, which has no forward derivative; and slopes of its pseudo-inverse."""
    A = operators.Radon((0, 45), iterations=50)
    model = sg.ScoreModel(lambda x, t: 0.5 * x.tanh(), sg.VPSDE(), "x0")
    x, level = normal(2, 1, 4, 4), sg.VPSDE()(0.4)
    for make in (mmps, pigdm, tmpd, dps):
        assert make(model, A(x), A, 0.3).output(x, level).isfinite().all()
    y = A(x).requires_grad_()
    (slope,) = torch.autograd.grad(A.pinv(y).square().sum(), y)
    e = normal(*y.shape)
    up, down = (A.pinv((y + k * e).detach()).square().sum() for k in (1e-6, -1e-6))
    close((slope * e).sum(), (up - down) / 2e-6, rtol=1e-5)
    bf16 = torch.randn(1, 1, 4, 4).bfloat16()
    for each in (OPERATORS["box"][0], operators.Fourier(torch.ones(4, 4) > 0)):
        assert each(bf16).dtype == each.pinv(each(bf16)).dtype == torch.bfloat16


def test_the_identity_runs_no_gradient_and_in_any_mode() -> None:
    net = torch.nn.Linear(4, 4).double()
    model = sg.ScoreModel(lambda x, t: net(x), sg.VPSDE(), "x0", module=net)
    seen = ddnm(model, normal(3, 4), operators.Mask(torch.tensor([[True, False, True, True]])))
    with torch.inference_mode():
        inside = sg.sample(seen, normal(3, 4), solver=sg.DDIM(), steps=3)
    with torch.no_grad():
        assert not seen.output(normal(3, 4), sg.VPSDE()(0.4)).requires_grad
    assert torch.equal(inside, sg.sample(seen, normal(3, 4), solver=sg.DDIM(), steps=3))
    with torch.inference_mode():
        level = sg.VPSDE()(torch.tensor(0.4).double())
        mmps(model, Y, measure, 0.3).output(normal(3, D), level)


def test_what_cannot_be_observed_is_refused() -> None:
    model = exact_model(Gaussian(MEAN, covariance("full")), sg.VPSDE())
    before = model.nfe
    with refused(r"A makes \(3, 2\) of states \(3, 4\), but y is \(3, 5\)"):
        Observed(model, normal(3, 5), measure, 0.1).output(normal(3, D), sg.VPSDE()(0.5))
    assert model.nfe == before
    for std in (0.0, -1.0):
        with refused("std is the noise's, > 0, but it is"):
            dps(model, Y, measure, std)
    with refused("ddnm projects by A.., A is an Operator|ddnm projects by"):
        ddnm(model, Y, measure)  # type: ignore[arg-type]
    with refused("y is a floating-point tensor with the batch's axis"):
        dps(model, [1.0], measure, 0.1)
    with refused("S_out is 'moments', 'identity' or a PriorCovariance, but out = 'none'"):
        Observed(model, Y, measure, 0.1, out="none")
    with refused("Observed changes E.x0 . x., which needs alpha and sigma, but Plain"):
        Observed(sg.ScoreModel(lambda x, t: x, Plain(), "score"), Y, measure, 0.1)

"""Losses: the textbook objectives sample by sample, and the value that theory says they have."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import EVERY, Smooth, close, every_sde, normal, refused
from scipy import integrate, stats
from torch import Tensor

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.losses.weightings import WEIGHTINGS

U = torch.linspace(0.01, 0.99, 12, dtype=torch.float64)


def fixed(n: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Twelve known uniforms instead of random ones."""
    return U[:n].to(device)


class Recorder(torch.nn.Module):
    """Any network; it keeps the states that it was shown."""

    def __init__(self, net: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.x, self.t = x, t
        return self.net(x, t)


def by_eps(
    sde: sg.LinearSDE, eps: Callable[[Tensor, Tensor], Tensor], predicts: str
) -> sg.ScoreModel:
    """The model that says eps(x, t), with a network that says it in the words of ``predicts``."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        level, e = sde(t), eps(x, t)
        a, s = level.alpha[:, None], level.sigma[:, None]
        x0 = (x - s * e) / a
        f, g2 = level.f[:, None], level.g2[:, None]
        return {
            "eps": e,
            "x0": x0,
            "score": -e / s,
            "v": a * e - s * x0,
            "velocity": f * x + g2 / (2 * s) * e,
        }[predicts]

    return sg.ScoreModel(net, sde, predicts)


# ------------------------------------------------------- the textbook objectives, sample by sample


def case(sde: sg.LinearSDE) -> tuple[Recorder, Tensor, sg.Level, Tensor, dict[str, Tensor]]:
    """A network of no meaning on twelve samples, its losses, and the x_t, t and z behind them."""
    net, x0 = Recorder(Smooth(3)), normal(12, 3)
    model = sg.ScoreModel(net, sde)
    got = {}
    for name in WEIGHTINGS:
        generator = torch.Generator().manual_seed(2)
        got[name] = sg.dsm_loss(model, x0, weighting=name, draw=fixed, generator=generator)
    level = sde(net.t)
    z = (net.x - level.alpha[:, None] * x0) / level.sigma[:, None]
    return net, x0, level, z, got


def mean(error: Tensor) -> Tensor:
    return error.square().mean(1)


@every_sde
def test_losses_are_the_textbooks_sample_by_sample(sde: sg.LinearSDE) -> None:
    net, x0, level, z, got = case(sde)
    x, eps = net.x, net.net(net.x, net.t)
    alpha, sigma = level.alpha[:, None], level.sigma[:, None]
    f, g = level.f[:, None], level.g2.sqrt()[:, None]
    score, D = -eps / sigma, (x - sigma * eps) / alpha
    rho = sigma / alpha
    velocity = f * x - g**2 * score / 2
    target = f * (alpha * x0 + sigma * z) + g**2 * z / sigma / 2
    want = {
        # Ho et al. (2020), eq. 14
        "eps": mean(eps - z),
        # Song et al. (2021), their code: |sigma s + z|^2
        "sigma2": mean(sigma * score + z),
        # Song et al. (2021b), thm. 1: g^2 |s + z / sigma|^2
        "likelihood": mean(g * (score + z / sigma)),
        # Lipman et al. (2023), eq. 9: |v - (alpha' x0 + sigma' z)|^2
        "velocity": mean(velocity - target),
        # Karras et al. (2022), eq. 2 and table 1: lambda(sigma) |D - x0|^2
        "edm": ((rho**2 + 0.5**2) / (rho * 0.5) ** 2)[:, 0] * mean(D - x0),
        # Hang et al. (2023), eq. 9: min(SNR, gamma) |D - x0|^2
        "min_snr": (1 / rho**2).clamp(max=5.0)[:, 0] * mean(D - x0),
    }
    assert set(want) == set(got)
    for name in want:
        # What is compared with is divided by alpha and by sigma: its own rounding sets the scale.
        slack = 1e-13 * (1 + 1 / level.alpha + 1 / level.sigma).max().item() ** 2
        close(got[name], want[name], rtol=slack + 1e-11)
    # eta-free check of the states: standard normal noise, on uniform times
    close(net.t, sde.t_min + U * (sde.T - sde.t_min))
    assert 0.5 < float(z.square().mean()) < 1.6


def test_flow_matching_is_its_usual_self() -> None:
    """On the straight flow: |v_theta - (z - x0)|^2."""
    sde, x0 = sg.FlowSDE(), normal(12, 3)
    net = Recorder(Smooth(3))
    model = sg.ScoreModel(net, sde, predicts="velocity")
    got = sg.dsm_loss(model, x0, weighting="velocity", draw=fixed)
    t = net.t[:, None]
    z = (net.x - (1 - t) * x0) / t
    close(got, mean(net.net(net.x, net.t) - (z - x0)), rtol=1e-10)


def test_settings_of_the_weightings_are_their_papers() -> None:
    sde = sg.VPSDE()
    level = sde(torch.linspace(1e-3, 1, 20, dtype=torch.float64))
    snr = (level.alpha / level.sigma) ** 2
    for gamma in (1.0, 5.0, 20.0):
        close(sg.losses.MinSNR(gamma)(level) * snr, snr.clamp(max=gamma))
    for sd in (0.5, 1.0):
        want = (level.rho**2 + sd**2) / (level.rho * sd) ** 2
        close(sg.losses.EDMWeighting(sd)(level) * snr, want)


@every_sde
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_loss_does_not_depend_on_the_networks_words(sde: sg.LinearSDE, weighting: str) -> None:
    eps = Smooth(2)
    x0 = normal(12, 2)
    losses = []
    for predicts in ("eps", "x0", "score", "v", "velocity"):
        model = by_eps(sde, eps, predicts)
        generator = torch.Generator().manual_seed(2)
        losses.append(sg.dsm_loss(model, x0, weighting=weighting, draw=fixed, generator=generator))
    level = sde(sde.t_min + U * (sde.T - sde.t_min))
    slack = 1e-12 * (1 + 1 / level.alpha + 1 / level.sigma).max().item() ** 2
    for loss in losses[1:]:
        close(loss, losses[0], rtol=min(slack, 1e-4))


def test_a_weighting_of_your_own() -> None:
    model, x0 = sg.ScoreModel(Smooth(2), sg.VPSDE()), normal(12, 2)
    plain, tenfold = (
        sg.dsm_loss(model, x0, weighting=w, draw=fixed, generator=torch.Generator().manual_seed(0))
        for w in (None, lambda level: 10 * level.t)
    )
    close(tenfold, 10 * plain * (1e-3 + U * (1 - 1e-3)))


def test_default_is_eps_which_is_sigma2() -> None:
    model, x0 = sg.ScoreModel(Smooth(2), sg.SubVPSDE()), normal(12, 2)
    losses = [
        sg.dsm_loss(model, x0, weighting=w, generator=torch.Generator().manual_seed(0))
        for w in (None, "eps", "sigma2")
    ]
    assert torch.equal(losses[0], losses[1]) and torch.equal(losses[0], losses[2])


@every_sde
def test_gradients_reach_the_network_and_are_finite(sde: sg.LinearSDE) -> None:
    net = Smooth(2, torch.float32)
    for weighting in WEIGHTINGS:
        net.zero_grad()
        model = sg.ScoreModel(net, sde)
        loss = sg.dsm_loss(model, normal(12, 2, dtype=torch.float32), weighting=weighting)
        assert loss.shape == (12,) and loss.dtype == torch.float32 and model.nfe == 1
        loss.mean().backward()
        assert net.W.grad is not None and bool(net.W.grad.isfinite().all())
        assert float(net.W.grad.abs().max()) > 0


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 3, 4, 4), (5, 2, 3, 2, 2)], ids=str)
def test_loss_is_a_mean_over_coordinates_of_any_shape(shape: tuple[int, ...]) -> None:
    """With a network of zeros the eps-loss is the mean square of z itself."""
    seen: list[Tensor] = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    loss = sg.dsm_loss(sg.ScoreModel(net, sg.EDMSDE()), torch.zeros(shape).double(), draw=fixed)
    z = seen[0] / (0.002 + U[:5] * (80 - 0.002)).reshape(-1, *[1] * (len(shape) - 1))
    close(loss, z.square().reshape(5, -1).mean(1))


# ------------------------------------------------------ the minimum, in closed form on a Gaussian

VAR = (0.5, 0.02)
DATA = Gaussian([0.4, -1.0], VAR)


def minimum(level: sg.Level) -> Tensor:
    """E |E[eps | x_t] - eps|^2 / d on Gaussian data: the posterior variance of eps."""
    each = [level.alpha**2 * c / (level.alpha**2 * c + level.sigma**2) for c in VAR]
    return sum(each, torch.zeros(())) / len(VAR)


def weight(name: str, level: sg.Level) -> Tensor:
    """The weightings once more, in terms of f, g, alpha, sigma."""
    rho2 = (level.sigma / level.alpha) ** 2
    return {
        "sigma2": torch.ones_like(rho2),
        "eps": torch.ones_like(rho2),
        "likelihood": level.g2 / level.sigma**2,
        "velocity": (level.g2 / 2 / level.sigma) ** 2,
        "edm": rho2 * (rho2 + 0.25) / (rho2 * 0.25),
        "min_snr": rho2 * (1 / rho2).clamp(max=5.0),
    }[name]


def quad(f: Callable[[Tensor], Tensor], a: float, b: float) -> float:
    """An integral by SciPy."""
    value, error = integrate.quad(
        lambda u: float(f(torch.tensor(u, dtype=torch.float64))), a, b, limit=400, epsrel=1e-7
    )
    assert error < 1e-5 * max(abs(value), 1e-9)
    return float(value)


def over_uniform_time(sde: sg.LinearSDE, name: str) -> float:
    """Over log t, where the integrand is smooth at both ends."""

    def integrand(u: Tensor) -> Tensor:
        level = sde(u.exp())
        return weight(name, level) * minimum(level) * level.t

    low, high = math.log(sde.t_min), math.log(sde.T)
    return quad(integrand, low, high) / (sde.T - sde.t_min)


def rho_to_t(sde: sg.LinearSDE, rho: Tensor) -> Tensor:
    """The inverse of rho(t), worked out anew."""
    if isinstance(sde, sg.EDMSDE):
        return rho
    half = torch.log1p(rho**2) / 2  # -log alpha on VP
    return (-0.1 + torch.sqrt(0.01 + 4 * 19.9 * half)) / (2 * 19.9) * 2


def over_log_normal_time(sde: sg.LinearSDE, name: str) -> float:
    """ln rho ~ N(-1.2, 1.2^2), with what falls outside [t_min, T] put on its ends."""

    def integrand(n: Tensor) -> Tensor:
        t = rho_to_t(sde, (-1.2 + 1.2 * n).exp()).clamp(sde.t_min, sde.T)
        level = sde(t)
        return weight(name, level) * minimum(level) * (-(n**2) / 2).exp() / math.sqrt(2 * math.pi)

    return quad(integrand, -7.0, 7.0)


def sampled(sde: sg.LinearSDE, n: int, seed: int = 0, **options: object) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x0 = DATA.sample(n, generator)
    return sg.dsm_loss(exact_model(DATA, sde), x0, generator=generator, **options)  # type: ignore[arg-type]


def within(losses: Tensor, want: float, errors: float = 4.0) -> None:
    """The mean is what it should be, within so many standard errors."""
    standard = float(losses.std()) / math.sqrt(len(losses))
    assert abs(float(losses.mean()) - want) < errors * standard
    # and the standard error is small enough for that to say something
    assert standard < 0.08 * want


FOUR = [EVERY[name] for name in ("vp", "subvp", "cosine", "flow", "discrete")]


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("sde", FOUR, ids=lambda sde: type(sde).__name__)
def test_exact_score_reaches_the_minimum(sde: sg.LinearSDE, name: str) -> None:
    if isinstance(sde, sg.DiscreteVPSDE):
        t = (torch.arange(1, 1000, dtype=torch.float64) + 0.5) / 1000
        level = sde(t)
        want = float((weight(name, level) * minimum(level)).mean())
    else:
        want = over_uniform_time(sde, name)
    within(sampled(sde, 60_000, weighting=name), want)


@pytest.mark.parametrize("name", WEIGHTINGS)
@pytest.mark.parametrize("sde", [sg.VPSDE(), sg.EDMSDE()], ids=["vp", "edm"])
def test_minimum_under_log_normal_times(sde: sg.LinearSDE, name: str) -> None:
    want = over_log_normal_time(sde, name)
    losses = sampled(sde, 60_000, weighting=name, times=sg.losses.LogNormalTime())
    within(losses, want)


@pytest.mark.parametrize(
    "sde", [sg.VPSDE(), sg.EDMSDE(), sg.SubVPSDE()], ids=["vp", "edm", "subvp"]
)
def test_likelihood_times_change_the_variance_and_not_the_mean(sde: sg.LinearSDE) -> None:
    want = over_uniform_time(sde, "likelihood")
    drawn = sampled(sde, 40_000, weighting="likelihood", times=sg.losses.likelihood_time)
    within(drawn, want)
    plain = sampled(sde, 40_000, weighting="likelihood")
    assert float(drawn.std()) < 0.7 * float(plain.std())
    # The weight is gone: loss = E minimum over lam uniform, times a constant.
    high, low = sde(torch.tensor([sde.t_min, sde.T], dtype=torch.float64)).lam.tolist()
    constant = 2 * (high - low) / (sde.T - sde.t_min)
    over_lam = quad(lambda lam: minimum(sde(sde.time(lam))), low, high) / (high - low)
    assert abs(constant * over_lam / want - 1) < 1e-4


def test_likelihood_times_serve_every_weighting() -> None:
    sde = sg.VPSDE()
    for name in ("sigma2", "min_snr", "velocity"):
        losses = sampled(sde, 60_000, weighting=name, times=sg.losses.likelihood_time)
        within(losses, over_uniform_time(sde, name))


# ------------------------------------------------------------------------- distributions of time


@every_sde
def test_times_follow_their_densities(sde: sg.LinearSDE) -> None:
    u = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    t, ratio = sg.losses.uniform_time(sde, u)
    close(t, sde.t_min + u * (sde.T - sde.t_min))
    close(ratio, torch.ones_like(u))
    t, ratio = sg.losses.LogNormalTime(-0.5, 0.8)(sde, u)
    inside = (t > sde.t_min) & (t < sde.T)
    lam = sde(t).lam
    close((-lam[inside] + 0.5) / 0.8, stats.norm.ppf(u.numpy())[inside.numpy()], 1e-6, 1e-8)
    assert int(inside.sum()) > 1000 and torch.equal(ratio, torch.ones_like(u))
    t, ratio = sg.losses.likelihood_time(sde, u)
    lam, ends = sde(t).lam, sde(torch.tensor([sde.t_min, sde.T], dtype=torch.float64)).lam
    close((lam - ends[0]) / (ends[1] - ends[0]), u, 1e-6, 1e-9)
    # importance weights average to one: the integral of p_uniform / p over p
    assert abs(float(ratio.mean()) - 1) < 0.01
    density = 1 / (ratio * (sde.T - sde.t_min))
    constant = 2 * (ends[0] - ends[1]) * density * (sde(t).sigma ** 2 / sde(t).g2)
    close(constant, torch.ones_like(u), 1e-9)
    for drawn in (sg.losses.uniform_time, sg.losses.LogNormalTime(), sg.losses.likelihood_time):
        t, _ = drawn(sde, torch.tensor([0.0, 1e-300, 1 - 1e-16], dtype=torch.float64))
        assert bool(((t >= sde.t_min) & (t <= sde.T)).all())


def test_low_discrepancy_uniforms_are_a_shifted_lattice() -> None:
    device, generator = torch.device("cpu"), torch.Generator().manual_seed(0)
    draws = torch.stack([sg.losses.low_discrepancy(7, device, generator) for _ in range(4000)])
    assert draws.dtype == torch.float64
    gaps = draws.sort(1).values.diff(dim=1)
    close(gaps, torch.full_like(gaps, 1 / 7), rtol=1e-12)
    assert float(draws.min()) >= 0 and float(draws.max()) < 1
    for i in range(7):
        assert stats.kstest(draws[:, i].numpy(), "uniform").pvalue > 1e-5
    even = sg.losses.independent(20_000, device, generator)
    assert even.dtype == torch.float64 and stats.kstest(even.numpy(), "uniform").pvalue > 1e-5


def test_low_discrepancy_has_the_same_mean_and_less_variance() -> None:
    """On 50 coordinates, where the variance left by the noise is small beside that of t."""
    sde, c = sg.VPSDE(), 0.1
    data = Gaussian([0.0] * 50, [c] * 50)
    model = exact_model(data, sde)

    def value(t: Tensor) -> Tensor:
        level = sde(t)
        return level.alpha**2 * c / (level.alpha**2 * c + level.sigma**2)

    want = quad(value, 1e-3, 1.0) / (1 - 1e-3)
    variances = []
    for draw in (sg.losses.low_discrepancy, sg.losses.independent):
        generator = torch.Generator().manual_seed(0)
        losses = torch.stack(
            [
                sg.dsm_loss(model, data.sample(32, generator), draw=draw, generator=generator)
                for _ in range(300)
            ]
        ).mean(1)
        within(losses, want)
        variances.append(float(losses.var()))
    assert variances[0] < variances[1] / 5


# ---------------------------------------------------------------------- the minimum is a minimum


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_wrong_model_loses_exactly_its_weighted_square(name: str) -> None:
    """E loss(eps* + d) - E loss(eps*) = E w |d|^2 / dim: the cross term has mean zero."""
    sde, n = sg.VPSDE(), 40_000
    exact = exact_model(DATA, sde)
    deviation = torch.tensor([0.3, -0.1], dtype=torch.float64)

    def off(x: Tensor, t: Tensor) -> Tensor:
        eps: Tensor = exact(x, t).eps
        return eps + deviation * torch.sin(x)

    seen = Recorder(off)
    generator = torch.Generator().manual_seed(0)
    x0 = DATA.sample(n, generator)
    wrong = sg.dsm_loss(sg.ScoreModel(seen, sde), x0, weighting=name, generator=generator)
    right = sampled(sde, n, weighting=name)
    square = (deviation * torch.sin(seen.x)).square().mean(1) * weight(name, sde(seen.t))
    cross = wrong - right - square
    assert abs(float(cross.mean())) < 4 * float(cross.std()) / math.sqrt(n)
    assert float((wrong - right).mean()) > 4 * float((wrong - right).std()) / math.sqrt(n)


# ------------------------------------------------------------------------------- any SDE at all


class Ornstein(sg.SDE):
    """dx = -A x dt + G dw with matrices, and its kernel by the matrix exponential."""

    matrix, T, t_min = True, 2.0, 1e-2
    A = torch.tensor([[1.0, 0.4], [-0.2, 0.7]], dtype=torch.float64)
    G = torch.tensor([[0.6, 0.2, 0.0], [0.1, 0.5, 0.3]], dtype=torch.float64)

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return -x @ self.A.T

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return self.G

    @property
    def prior(self) -> sg.Prior:
        return sg.Prior()

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        flow = torch.linalg.matrix_exp(-t[:, None, None] * self.A)
        root = torch.linalg.cholesky(self.cov(t))
        x = (flow @ x0[..., None] + root @ z[..., None])[..., 0]
        return x, -torch.linalg.solve(root.mT, z[..., None])[..., 0]

    def cov(self, t: Tensor) -> Tensor:
        """INT_0^t e^{-A u} G G^T e^{-A^T u} du, by Gauss and Legendre."""
        nodes, weights = (torch.tensor(v) for v in np.polynomial.legendre.leggauss(12))
        u = t[:, None] * (nodes + 1) / 2
        half = torch.linalg.matrix_exp(-u[..., None, None] * self.A) @ self.G
        return ((half @ half.mT) * (weights * t[:, None] / 2)[..., None, None]).sum(1)


def test_matrix_diffusion_by_hand() -> None:
    sde, net, x0 = Ornstein(), Recorder(Smooth(2)), normal(12, 2)
    got = sg.dsm_loss(sg.ScoreModel(net, sde, "score"), x0, draw=fixed)
    for i in range(12):
        t = sde.t_min + U[i] * (sde.T - sde.t_min)
        cov = sde.cov(t[None])[0]
        off = net.x[i] - torch.linalg.matrix_exp(-t * sde.A) @ x0[i]
        target = -torch.linalg.inv(cov) @ off
        error = sde.G.T @ (net.net(net.x[i : i + 1], net.t[i : i + 1])[0] - target)
        close(got[i], error.square().sum() / 3, rtol=1e-8)


class AsGeneral(sg.SDE):
    """A linear SDE that tells drift, diffusion and kernel and keeps its marginals to itself."""

    def __init__(self, sde: sg.LinearSDE) -> None:
        self.sde, self.T, self.t_min = sde, sde.T, sde.t_min

    def drift(self, x: Tensor, t: Tensor) -> Tensor:
        return self.sde.drift(x, t)

    def diffusion(self, x: Tensor, t: Tensor) -> Tensor:
        return self.sde.diffusion(x, t)

    def perturb(self, x0: Tensor, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.sde.perturb(x0, t, z)

    @property
    def prior(self) -> sg.Prior:
        return self.sde.prior


@every_sde
@pytest.mark.parametrize("weighting", [None, "likelihood"])
def test_general_loss_of_a_linear_sde_is_its_likelihood_loss(
    sde: sg.LinearSDE, weighting: str | None
) -> None:
    x0, net = normal(12, 2), Smooth(2)
    general, linear = (
        sg.dsm_loss(
            sg.ScoreModel(net, each, "score"),
            x0,
            weighting=w,
            draw=fixed,
            generator=torch.Generator().manual_seed(3),
        )
        for each, w in ((AsGeneral(sde), weighting), (sde, "likelihood"))
    )
    close(general, linear, rtol=1e-9)


@pytest.mark.parametrize("sde", [sg.VPSDE(), AsGeneral(sg.VPSDE())], ids=["linear", "general"])
def test_times_of_your_own(sde: sg.SDE) -> None:
    """t = u^2 with p_uniform / p = 2 u: the loss at those times, times that factor."""

    def squares(sde: sg.SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        return u**2, 2 * u

    def plain(sde: sg.SDE, u: Tensor) -> tuple[Tensor, Tensor]:
        return u**2, torch.ones_like(u)

    model, x0 = sg.ScoreModel(Smooth(), sde, "score"), normal(12, 2)
    corrected, not_corrected = (
        sg.dsm_loss(
            model,
            x0,
            weighting="likelihood",
            times=times,
            draw=fixed,
            generator=torch.Generator().manual_seed(0),
        )
        for times in (squares, plain)
    )
    close(corrected, 2 * U * not_corrected)


# ------------------------------------------------------------------------------------- refusals


def never(x: Tensor, t: Tensor) -> Tensor:
    raise AssertionError("the network was called")


def test_data_that_cannot_be_trained_on() -> None:
    model = sg.ScoreModel(never, sg.VPSDE())
    with refused(r"Data must be floating point, but it is torch.uint8.*scale"):
        sg.dsm_loss(model, torch.zeros(4, 3, 8, 8, dtype=torch.uint8))
    for shape in ((0, 2), (4, 0)):
        with refused(r"batch \(b, \*\) with b >= 1"):
            sg.dsm_loss(model, torch.zeros(shape))
    with refused(r"batch \(b, \*\)"):
        sg.dsm_loss(model, torch.tensor(1.0))
    for bad in (math.nan, math.inf):
        x0 = normal(4, 2)
        x0[2, 1] = bad
        with refused("Data must be finite, but sample 2"):
            sg.dsm_loss(model, x0)


def test_objectives_that_do_not_exist() -> None:
    with refused("Unknown weighting 'snr'.*edm, eps, likelihood, min_snr, sigma2, velocity"):
        sg.dsm_loss(sg.ScoreModel(never, sg.VPSDE()), normal(2, 2), weighting="snr")
    general = sg.ScoreModel(never, AsGeneral(sg.VPSDE()), "score")
    with refused("AsGeneral has no marginals.*weighting='likelihood', not 'eps'"):
        sg.dsm_loss(general, normal(2, 2), weighting="eps")
    for times in (sg.losses.likelihood_time, sg.losses.LogNormalTime()):
        with refused("needs alpha and sigma, but AsGeneral gives only drift and diffusion: use"):
            sg.dsm_loss(general, normal(2, 2), times=times)

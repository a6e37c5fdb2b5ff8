"""Bits per dimension and variational bounds, against closed form and against one another."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import sdegen as sg
from sdegen.data import from_uint8
from sdegen.exact.distributions import Empirical, Gaussian, exact_model
from sdegen.likelihood.bits import bits_per_dim
from sdegen.likelihood.bounds import discrete_elbo, elbo, fitted
from sdegen.likelihood.density import log_prob
from tests.cases import MIXTURE, Plain, close, closed_form, normal, refused

LINE = Gaussian([0.1, -0.3], [0.04, 0.09])
"""Independent coordinates, so that a bin's probability is a product."""
SHARP = sg.EDMSDE(T=1e4, t_min=1e-3)
IMAGES = torch.tensor([[3, 5], [8, 4], [6, 6]], dtype=torch.uint8)
EXACT = {"divergence": "exact", "solver": sg.AdaptiveRK(clock="lam", rtol=1e-4, atol=1e-4)}


def spread() -> Normal:
    std = (torch.tensor([0.04, 0.09], dtype=torch.float64) + SHARP.t_min**2).sqrt()
    return Normal(torch.tensor([0.1, -0.3], dtype=torch.float64), std)


def centre(k: Tensor, levels: int) -> Tensor:
    return 2 * k.double() / (levels - 1) - 1


def test_a_path_gives_every_likelihood_the_same_draws() -> None:
    model, x, path = exact_model(MIXTURE, sg.VPSDE()), normal(3, 2), sg.Brownian(0, 1.0)
    assert torch.equal(*(elbo(model, x, noise=path).value for _ in range(2)))
    with refused("noise is a source, such as Seeded"):
        elbo(model, x, noise=torch.randn)  # type: ignore[arg-type]


def test_uniform_dequantisation_by_quadrature() -> None:
    model, levels, width = exact_model(LINE, SHARP), 11, 2 / 10
    u = (torch.arange(400, dtype=torch.float64) + 0.5) / 400 - 0.5
    density = spread().log_prob(centre(IMAGES, levels)[..., None].mT + u[:, None] * width)
    exact = -(density.mean(1).sum(1) / 2 + math.log(width)) / math.log(2)
    found = bits_per_dim(model, IMAGES, levels=levels, repeats=40, **EXACT)
    assert ((found.value - exact).abs() < 4 * found.error).all()
    assert found.error.max() < 0.1
    assert found.mean == pytest.approx(float(found.value.mean()))
    assert found.mean_error == pytest.approx(float(found.value.std()) / 3**0.5)


@pytest.mark.slow
def test_importance_weights_tighten_the_bound() -> None:
    """Towards the probability of the bin itself."""
    model, levels, width = exact_model(LINE, SHARP), 11, 2 / 10
    low, high = (centre(IMAGES, levels) + end * width / 2 for end in (-1, 1))
    exact = -(spread().cdf(high) - spread().cdf(low)).log2().mean(1)
    plain, some, many = (
        bits_per_dim(model, IMAGES, levels=levels, repeats=16 // m, importance=m, **EXACT)
        for m in (1, 4, 16)
    )
    assert exact.mean() - 0.1 < many.mean < some.mean < plain.mean
    assert many.mean - exact.mean() < 0.3 * (plain.mean - exact.mean())


def test_song_s_protocol_by_name() -> None:
    """Their numbers, made here by their own formulas from the same draws' average."""
    sde = sg.VPSDE(t_min=1e-5)
    model = exact_model(LINE, sde)
    found = bits_per_dim(model, IMAGES, levels=16, protocol="song", divergence="exact", repeats=15)
    u = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    x = 2 * (IMAGES.double()[:, None, :] + u[:, None]) / 16 - 1
    at = sde(torch.tensor(1e-5))
    density = Normal(
        at.alpha * torch.tensor([0.1, -0.3]),
        (at.alpha**2 * torch.tensor([0.04, 0.09]) + at.sigma**2).sqrt(),
    ).log_prob(x)
    exact = -(density.mean(1).sum(1) / 2) / math.log(2) + math.log2(16) - 1
    assert ((found.value - exact).abs() < 4 * found.error + 1e-2).all()
    assert found.nfe.min() > 15 * 20  # the first steps of t at 1e-5 are short
    one, five = (
        bits_per_dim(model, IMAGES, levels=16, protocol="song", repeats=n).nfe for n in (1, None)
    )
    assert 4 * one[0] < five[0] < 6 * one[0]  # what is given overrides, be it a default too


def test_passes_are_a_sample_s_own() -> None:
    model = exact_model(LINE, sg.VPSDE())
    solver = sg.AdaptiveRK(clock="lam", per_sample=True)
    whole = bits_per_dim(model, IMAGES, levels=11, repeats=2, seed=[4, 5, 6], solver=solver)
    part = bits_per_dim(model, IMAGES[1:], levels=11, repeats=2, seed=[5, 6], solver=solver)
    close(part.value, whole.value[1:], rtol=1e-10)
    close(part.error, whole.error[1:], rtol=1e-6)


@pytest.mark.filterwarnings("error")
def test_what_one_pass_cannot_tell_is_nan() -> None:
    """The spread of the dequantisation; and that of the data, from one sample or none."""
    model = exact_model(LINE, SHARP)
    for kind in ("exact", "rademacher"):
        found = bits_per_dim(model, IMAGES, levels=9, divergence=kind)
        assert found.error.isnan().all() and found.mean_error > 0
    one = bits_per_dim(model, IMAGES[:1], levels=9)
    assert math.isnan(one.mean_error) and math.isfinite(one.mean) and one.failed == []


def test_the_error_of_several_passes_is_their_spread() -> None:
    model, many = exact_model(LINE, SHARP), IMAGES.repeat(300, 1)
    how: Any = {"levels": 9, "divergence": "exact", "solver": sg.UniPC(), "steps": 30}
    found = bits_per_dim(model, many, repeats=4, **how)  # each copy has draws of its own
    true, claimed = found.value.reshape(300, -1).std(0), found.error.reshape(300, -1)
    assert ((true / claimed.square().mean(0).sqrt() - 1).abs() < 0.15).all()


def test_images_that_fail_are_named_once() -> None:
    def net(x: Tensor, t: Tensor) -> Tensor:
        bad = (x[:, :1] > 50).any(1, keepdim=True)
        return torch.where(bad, torch.nan, torch.tanh(x))

    model = sg.ScoreModel(lambda x, t: net(1e3 * x, t), sg.VPSDE())
    images = torch.tensor([[0, 3], [10, 3]], dtype=torch.uint8)
    with pytest.warns(UserWarning, match=r"bits per dimension of samples \[1\] are NaN") as seen:
        found = bits_per_dim(model, images, levels=11, repeats=3, solver=sg.UniPC(), steps=30)
    assert len(seen) == 1 and seen[0].filename == __file__
    assert found.failed == [1] and found.status.tolist() == [0, 1]
    assert found.value.isfinite().tolist() == found.error.isfinite().tolist() == [True, False]
    assert math.isfinite(found.mean) and math.isnan(found.mean_error)


def test_a_network_s_own_warnings_are_heard() -> None:
    """Whatever words they begin with: one warning of failures is made, none is silenced."""

    def net(x: Tensor, t: Tensor) -> Tensor:
        warnings.warn("The likelihoods of samples of mine", stacklevel=1)
        return torch.tanh(x)

    model = sg.ScoreModel(net, sg.VPSDE())
    with pytest.warns(UserWarning, match="of samples of mine"):
        bits_per_dim(model, IMAGES, solver=sg.UniPC(), steps=5)


def test_bins_go_beyond_the_range_of_the_values() -> None:
    """The model is not touched, and what it was trained on is no limit to a bin."""
    inner = exact_model(LINE, SHARP)
    model = sg.ScoreModel(inner.net, SHARP, inner.target, data_range=(-1.0, 1.0))
    how: Any = {"solver": sg.UniPC(), "steps": 20, "divergence": "exact"}
    free = bits_per_dim(inner, IMAGES, **how)
    assert bits_per_dim(model, IMAGES, **how).value.equal(free.value)
    assert model.data_range == (-1.0, 1.0)
    with refused("was trained on data in"):
        sg.log_prob(model, torch.full((1, 2), 1.5))


def test_song_s_t_min_is_asked_for() -> None:
    with pytest.warns(UserWarning, match="t_min = 1e-05, but this SDE has 0.001") as seen:
        bits_per_dim(exact_model(LINE, sg.VPSDE()), IMAGES, protocol="song", repeats=1)
    assert len(seen) == 1 and seen[0].filename == __file__


def test_bytes_are_where_the_data_has_them() -> None:
    k = torch.arange(256, dtype=torch.uint8)
    close(centre(k, 256), from_uint8(k), rtol=0, atol=1e-6)


def test_images_that_are_none_are_refused() -> None:
    model = exact_model(LINE, sg.VPSDE())
    with refused("with b >= 1, but these are torch.float32 of shape"):
        bits_per_dim(model, torch.zeros(2, 2))
    with refused("the largest is 8"):
        bits_per_dim(model, IMAGES, levels=8)
    with refused("levels must be a whole number from 2 to 256"):
        bits_per_dim(model, IMAGES, levels=1)
    for name in ("repeats", "importance"):
        with refused(f"{name} must be a whole number >= 1"):
            bits_per_dim(model, IMAGES, levels=11, **{name: 0})  # type: ignore[arg-type]
    with refused("uint8 of shape \\(0, 2\\)"):
        bits_per_dim(model, IMAGES[:0])
    with refused("of estimates that is no bound"):
        bits_per_dim(model, IMAGES, importance=2)
    with refused("A seed is a whole number"):
        bits_per_dim(model, IMAGES, seed=1.5)  # type: ignore[arg-type]
    with refused("Unknown protocol"):
        bits_per_dim(model, IMAGES, protocol="yang")
    with refused("torch.uint8"):
        elbo(model, torch.zeros(2, 2), levels=11)
    with refused("use bits_per_dim"):
        log_prob(model, IMAGES)


# ----------------------------------------------------------------------------- variational bounds


@closed_form
def test_with_the_exact_score_the_bound_is_tight(sde: sg.LinearSDE) -> None:
    """But for the prior and p(x | x_t) at the ends: near the data's density, on average below."""
    data = Gaussian([0.3, -0.2], [[1.0, 0.5], [0.5, 0.6]])
    x = data.sample(8, torch.Generator().manual_seed(0))
    found = elbo(exact_model(data, sde), x, draws=200)
    assert found.nfe == 200
    exact = data.log_prob(x)
    assert ((found.value - exact).abs() < 4 * found.error + 0.12).all()
    assert float((exact - found.value).mean()) > -4 * float(found.error.norm()) / 8
    close(found.bits(2), -found.value / (2 * math.log(2)))


def test_a_wrong_model_has_a_lower_bound() -> None:
    """By the difference of the scores: the bound falls, and so does the likelihood."""
    sde, data = sg.VPSDE(), Gaussian([0.3, -0.2], [0.5, 0.7])
    wrong = Gaussian([0.6, -0.2], [0.5, 0.3])
    x = data.sample(400, torch.Generator().manual_seed(0))
    true, false = (elbo(exact_model(each, sde), x, draws=400) for each in (data, wrong))
    lower = log_prob(exact_model(wrong, sde), x, divergence="exact").value
    assert true.value.mean() > false.value.mean() + 0.1
    known = float(false.error.square().mean().sqrt()) / len(x) ** 0.5
    assert false.value.mean() < lower.mean() + 4 * known


def test_a_bound_on_probabilities_of_values() -> None:
    """On values whose probabilities are known: an empirical distribution on the grid."""
    points = torch.tensor([[0, 1], [2, 2], [2, 0], [1, 1]])
    data = Empirical(centre(points, 3))
    x = torch.tensor([[0, 1], [2, 2], [1, 1]], dtype=torch.uint8)
    sde = sg.EDMSDE(T=1e3, t_min=0.05)
    found = elbo(exact_model(data, sde), x, draws=1000, levels=3)
    assert ((found.value + math.log(4)).abs() < 4.5 * found.error).all()
    assert found.error.max() < 0.5
    assert found.reconstruction.abs().max() < 1e-6  # the values are far apart


def terms(variance: str, n: int) -> tuple[Tensor, Tensor]:
    """DDPM's bound for one x: ours over many draws, and torch's KL of the Gaussians in between."""
    sde, mean, var, x0 = sg.VPSDE(), 0.2, 0.3, 0.7
    model = exact_model(Gaussian([mean], [var]), sde)
    x = torch.full((4000, 1), x0, dtype=torch.float64)
    ours = discrete_elbo(model, x, steps=n, variance=variance).diffusion  # type: ignore[arg-type]
    walk = sg.walks.levels(sde, sg.walks.log_snr(sde, n))
    z = torch.linspace(-6, 6, 4001, dtype=torch.float64)
    weight = torch.softmax(-z.square() / 2, 0)
    total = torch.zeros((), dtype=torch.float64)
    for t, s in pairwise(walk):
        assert isinstance(t, sg.Level) and isinstance(s, sg.Level)
        x_t = t.alpha * x0 + t.sigma * z
        guess = mean + t.alpha * var / (t.alpha**2 * var + t.sigma**2) * (x_t - t.alpha * mean)
        a = t.alpha / s.alpha
        beta = t.sigma**2 - a**2 * s.sigma**2
        small = beta * s.sigma**2 / t.sigma**2

        def mu(x0: Tensor | float) -> Tensor:
            return (a * s.sigma**2 * x_t + s.alpha * beta * x0) / t.sigma**2  # noqa: B023

        std = (small if variance == "small" else beta).sqrt()
        kl = kl_divergence(Normal(mu(x0), small.sqrt()), Normal(mu(guess), std))
        total = total + (weight * kl).sum()
    return ours, total


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("n", [5, 40])
def test_the_discrete_bound_is_a_sum_of_kl_divergences(variance: str, n: int) -> None:
    ours, exact = terms(variance, n)
    error = ours.std() / len(ours) ** 0.5
    assert (ours.mean() - exact).abs() < 4 * error


def test_the_discrete_bound_tends_to_the_continuous_one_from_below() -> None:
    sde = sg.VPSDE()
    model, x = exact_model(MIXTURE, sde), MIXTURE.sample(300, torch.Generator().manual_seed(0))
    whole = elbo(model, x, draws=300)
    gaps = [
        whole.value.mean() - discrete_elbo(model, x, steps=n).value.mean() for n in (16, 64, 256)
    ]
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert 3 < gaps[1] / gaps[2] < 5
    assert discrete_elbo(model, x, steps=16).prior.equal(whole.prior)
    assert discrete_elbo(model, x, steps=16).nfe == 16
    with refused("'small' or 'large'"):
        discrete_elbo(model, x, steps=3, variance="learned")  # type: ignore[arg-type]


def test_fitted_times_cut_the_variance() -> None:
    """And leave the mean as it is."""
    sde = sg.VPSDE()
    model, x = exact_model(MIXTURE, sde), MIXTURE.sample(200, torch.Generator().manual_seed(0))
    times = fitted(model, x)
    even, better = (elbo(model, x, draws=16, times=each, seed=3) for each in (None, times))
    assert better.error.square().mean() < 0.6 * even.error.square().mean()
    many, fine = (elbo(model, x, draws=400, times=each) for each in (None, times))
    noise = (many.error.square() + fine.error.square()).mean().sqrt() / len(x) ** 0.5
    assert (many.value.mean() - fine.value.mean()).abs() < 4 * noise


def test_the_reconstruction_is_part_of_the_error() -> None:
    """And more draws make it smaller: at t_min = 0.05 much of the bound is that term."""
    model, levels = exact_model(LINE, sg.VPSDE(t_min=0.05)), 11
    seen = torch.stack(
        [elbo(model, IMAGES, draws=16, levels=levels, seed=s).value for s in range(40)]
    )
    claimed = elbo(model, IMAGES, draws=16, levels=levels).error
    assert (seen.std(0) < 1.4 * claimed).all()
    # Errors of 16 draws are rough, of 128 and of 16 times as many less so.
    few, many = (elbo(model, IMAGES, draws=n, levels=levels).error for n in (128, 2048))
    assert ((many / few - 0.25).abs() < 0.12).all()


def test_bounds_without_marginals_are_refused() -> None:
    model = sg.ScoreModel(lambda x, t: -x, Plain(), "score")
    for bound in (elbo, lambda m, x: discrete_elbo(m, x, steps=3)):
        with refused("A variational bound needs alpha and sigma, but Plain gives only"):
            bound(model, normal(2, 2))  # type: ignore[operator]
    model = exact_model(MIXTURE, sg.VPSDE())
    with refused("goes from 0.5 to 0.1"):
        discrete_elbo(model, normal(2, 2), walk=torch.linspace(0.5, 0.1, 9))
    with refused("this one climbs"):
        discrete_elbo(model, normal(2, 2), walk=[1.0, 0.3, 0.5, 0.001])
    with refused("discrete_elbo takes steps"):
        discrete_elbo(model, normal(2, 2))
    with refused("draws must be a whole number >= 32"):
        fitted(model, normal(2, 2), draws=31)
    with refused("draws must be a whole number >= 2"):
        elbo(exact_model(MIXTURE, sg.VPSDE()), normal(2, 2), draws=1)


def test_bounds_need_signal_at_one_end_and_noise_at_the_other() -> None:
    x = normal(2, 2)
    for sde, reason in (
        (sg.FlowSDE(T=1.0), "At t = 1 no signal is left.*end the SDE earlier"),
        (sg.VPSDE(t_min=0.0), "At t_min = 0 no noise is left.*VPSDE\\(t_min=1e-5\\)"),
        (sg.FlowSDE(t_min=0.0), "At t_min = 0 no noise is left.*FlowSDE\\(t_min=1e-5\\)"),
    ):
        model = exact_model(MIXTURE, sde)
        for go in (elbo, fitted, lambda m, x: discrete_elbo(m, x, steps=4)):
            with refused(reason):
                go(model, x)  # type: ignore[operator]


def test_a_sample_without_a_bound_is_named_and_the_others_are_left_alone() -> None:
    model, x = exact_model(MIXTURE, sg.VPSDE()), MIXTURE.sample(40)
    bad = x.clone()
    bad[1, 0] = math.nan
    for go in (
        lambda m, x: elbo(m, x, draws=8, seed=3),
        lambda m, x: discrete_elbo(m, x, steps=8, seed=3),
    ):
        with pytest.warns(UserWarning, match=r"bounds of samples \[1\] are NaN: NONF") as seen:
            found = go(model, bad)
        assert seen[0].filename == __file__
        assert found.failed == [1] and bool(found.error[1].isnan())
        rest = torch.arange(len(x)) != 1
        assert found.value[rest].equal(go(model, x).value[rest])
    with pytest.warns(UserWarning, match=r"integrands of samples \[1\] are NaN") as seen:
        times = fitted(model, bad)
    assert seen[0].filename == __file__
    close(times.weights, fitted(model, x).weights, rtol=0.5)
    with (
        refused("nothing to fit"),
        pytest.warns(UserWarning, match="integrands of samples"),
    ):
        fitted(model, bad[1:2])


def test_losses_of_integers_are_refused() -> None:
    model = sg.ScoreModel(torch.tanh, sg.VPSDE())
    for go in (
        lambda x: sg.losses.dequantised(model, x, levels=256, loss=sg.dsm_loss),
        lambda x: sg.losses.vdm_loss(sg.ScoreModel(torch.tanh, sg.sde.LearnedVPSDE()), x),
    ):
        with refused("must be floating point, but it is torch.uint8"):
            go(IMAGES)
    with refused("levels must be a whole number >= 2"):
        sg.losses.dequantised(model, normal(2, 2), levels=1, loss=sg.dsm_loss)

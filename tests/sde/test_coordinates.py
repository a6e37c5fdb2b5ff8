"""Levels that differ between coordinates: their curves, their shapes, their doors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import fft

import sdegen as sg
from sdegen.sde import AnisotropicVPSDE, BlurringSDE, expand, spread
from tests.cases import close, normal, refused, refused_with, times
from tests.coordinates import DIFFERENT, WEIGHTS, exact

different = pytest.mark.parametrize("sde", DIFFERENT.values(), ids=DIFFERENT)


@different
def test_slopes_are_the_derivatives(sde: sg.LinearSDE) -> None:
    t = times(sde, 15)
    level, one = sde(t), torch.ones(15, dtype=torch.float64)

    def curves(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return sde(t).alpha, sde(t).sigma

    _, (d_alpha, d_sigma) = torch.func.jvp(curves, (t.clone(),), (one,))
    close(level.d_alpha, d_alpha, rtol=1e-10, atol=1e-13)
    close(level.d_sigma, d_sigma, rtol=1e-10)
    close(level.d_var, 2 * level.sigma * level.d_sigma, rtol=1e-12)
    assert bool((level.g2 > 0).all())


@different
def test_time_is_each_coordinates_inverse(sde: sg.LinearSDE) -> None:
    t = times(sde, 15)
    close(sde.time(sde(t).lam), t[:, None].expand(15, 3), rtol=1e-7)
    assert (sde.reference.T, sde.reference.t_min) == (sde.T, sde.t_min)


@different
def test_a_level_of_many_times_is_levels_of_one(sde: sg.LinearSDE) -> None:
    t = times(sde, 6)
    many = sde(t)
    assert many.lam.shape == (6, 3) and many.t.shape == (6,)
    for at, each in zip(t, many.unbind(), strict=True):
        one = sde(at)
        assert one.lam.shape == each.lam.shape == (1, 3) and each.t.shape == ()
        for name in ("t", "alpha", "sigma", "d_alpha", "d_var", "d_sigma", "rho", "g2"):
            close(getattr(each, name), getattr(one, name))


def test_anisotropic_vp_is_vp_with_another_beta() -> None:
    """beta of each coordinate is the weight times beta, which VPSDE takes as its own."""
    sde = AnisotropicVPSDE(WEIGHTS)
    t = times(sde, 9)
    for i, w in enumerate(WEIGHTS):
        alone = sg.VPSDE(0.1 * w, 20 * w)
        for name in ("alpha", "sigma", "d_alpha", "d_var", "d_sigma", "f", "g2", "lam"):
            close(getattr(sde(t), name)[:, i], getattr(alone(t), name), rtol=1e-11)


def test_blurring_is_the_papers_formula() -> None:
    """Hoogeboom & Salimans (2023), app. A, a number at a time."""
    base, t = sg.CosineSDE(), 0.3
    sde = BlurringSDE((1, 4, 6), blur=5.0, floor=0.01, base=base)
    level, known = sde(t), base(t)
    assert level.alpha.shape == (1, 1, 4, 6) and level.sigma.shape == (1, 1, 1, 1)
    tau = (5.0 * math.sin(t * math.pi / 2) ** 2) ** 2 / 2
    for i in range(4):
        for j in range(6):
            square = (math.pi * i / 4) ** 2 + (math.pi * j / 6) ** 2
            fade = 0.99 * math.exp(-square * tau) + 0.01
            close(level.alpha[0, 0, i, j], known.alpha * fade, rtol=1e-12)
    close(level.sigma.squeeze(), known.sigma)
    close(sde(torch.tensor(0.0)).alpha, torch.ones(1, 1, 4, 6))


def test_without_a_floor_blurring_dissipates_heat() -> None:
    """A picture is blurred as by a Gaussian filter of the same standard deviation, SciPy's."""
    from scipy.ndimage import gaussian_filter

    n, t = 32, 0.4
    sde = BlurringSDE((n, n), blur=8.0, floor=1e-12, base=sg.CosineSDE())
    fade = (sde(t).alpha / sde.base(t).alpha)[0].numpy()
    image = gaussian_filter(np.random.default_rng(0).normal(size=(n, n)), 1.0)
    blurred = fft.idctn(fade * fft.dctn(image, norm="ortho"), norm="ortho")
    std = 8.0 * math.sin(t * math.pi / 2) ** 2
    assert np.abs(blurred - gaussian_filter(image, std, mode="reflect")).max() < 1e-3


def test_drift_and_kernel_are_each_coordinates_own() -> None:
    sde, x, z = DIFFERENT["anisotropic"], normal(4, 3), normal(4, 3, seed=1)
    t = times(sde, 4)
    x_t, score = sde.perturb(x, t, z)
    for i, w in enumerate(WEIGHTS):
        alone = sg.VPSDE(0.1 * w, 20 * w)
        own = slice(i, i + 1)
        for got, want in zip((x_t, score), alone.perturb(x[:, own], t, z[:, own]), strict=True):
            close(got[:, own], want, rtol=1e-11)
        close(sde.drift(x, t)[:, own], alone.drift(x[:, own], t), rtol=1e-11)
        close(sde.diffusion(x, t)[:, own], alone.diffusion(x[:, own], t), rtol=1e-11)
    assert sde.perturb(x.float(), t, z.float())[0].dtype == torch.float32


def test_a_batch_as_long_as_a_sample_is_no_coordinates() -> None:
    """Three samples of three coordinates: (3,) is one number a sample, (1, 3) one a coordinate."""
    x = torch.ones(3, 3, dtype=torch.float64)
    c = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    close(expand(c, x) * x, c[:, None].expand(3, 3))
    close(expand(c[None], x) * x, c[None].expand(3, 3))
    assert spread(c, 3).shape == (3, 1, 1) and spread(c, 1) is c
    assert spread(c.sum(), 2).shape == (1, 1) and spread(c[None], 2).shape == (1, 3)


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1), (2,), (2, 1)])
def test_states_of_other_coordinates_are_refused(shape: tuple[int, ...]) -> None:
    sde = DIFFERENT["anisotropic"]
    with refused_with(f"(1, 3), which does not broadcast against states {shape}"):
        sg.sample(sg.ScoreModel(lambda x, t: x, sde), shape, solver=sg.DDIM(), steps=2)


def test_wrong_parameters_are_refused() -> None:
    for weights in ([1.0, 0.0], [1.0, -2.0], [math.inf], 1.0):
        with refused("weights are positive numbers, of a sample's shape"):
            AnisotropicVPSDE(weights)  # type: ignore[arg-type]
    for how in ({"shape": ()}, {"floor": 0.0}, {"floor": 1.5}):
        with refused("a shape of one axis or more, and 0 < floor <= 1"):
            BlurringSDE(**{"shape": (3,), **how})  # type: ignore[arg-type]
    with refused("blur must be a number >= 0"):
        BlurringSDE((3,), blur=-1.0)
    with refused("an axis of BlurringSDE's shape must be a whole number >= 1"):
        BlurringSDE((3, 0))
    with refused("EDMSDE runs on 0 <= t_min < T <= 1"):
        BlurringSDE((3,), base=sg.EDMSDE())
    one = torch.ones(2, dtype=torch.float64)
    for shapes in ([one[:, None], one, one, one], [one, one, one, one[:, None]]):
        with refused("Where a Level differs between coordinates, alpha, sigma and their slopes"):
            sg.Level(one, *shapes)


def test_walks_are_the_references() -> None:
    sde = DIFFERENT["anisotropic"]
    for grid in (sg.walks.log_snr, sg.walks.karras, sg.walks.focused, sg.walks.uniform):
        close(grid(sde, 7), grid(sg.VPSDE(), 7))
    even = sg.walks.log_snr(sg.VPSDE(), 7)
    for climb in (sg.walks.ancestral, lambda sde, times: sg.walks.churn(sde, times, 2.0)):
        close(climb(sde, even), climb(sg.VPSDE(), even))


@pytest.mark.parametrize("label", ["sigma", "lam", "c_noise", "t", "999t"])
def test_a_label_is_one_number_a_sample(label: str) -> None:
    """Of the reference, the same from the levels of a walk as from times, at three samples of
    three coordinates too."""
    seen: list[torch.Tensor] = []

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(t)
        return x

    sde, x = DIFFERENT["anisotropic"], normal(3, 3)
    model, plain = (sg.ScoreModel(net, each, "x0", time=label) for each in (sde, sg.VPSDE()))
    t = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    model(x, t), plain(x, t)
    close(seen[0], seen[1])
    seen.clear()
    for each in (model, plain):
        sg.sample(each, x, solver=sg.DDIM(), steps=3)
    assert [s.shape for s in seen] == [(3,)] * 6
    close(torch.stack(seen[:3]), torch.stack(seen[3:]))


def test_a_label_of_the_levels_themselves_is_refused() -> None:
    model = sg.ScoreModel(lambda x, t: x, DIFFERENT["anisotropic"], time=lambda level: level.lam)
    with refused(r"A time label is of shape \(\) or \(b,\), but this one is \(1, 3\)"):
        sg.sample(model, (3, 3), solver=sg.DDIM(), steps=2)


@pytest.mark.parametrize("on", ["march", "sample", "times"])
def test_edms_scaling_is_each_coordinates_own(on: str) -> None:
    """c_in, c_skip and c_out: a state of the data's variance is seen with variance one."""
    seen: list[torch.Tensor] = []

    def net(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return 0 * x

    sde, x = DIFFERENT["anisotropic"], normal(5, 3)
    model = sg.ScoreModel(net, sde, "edm", sigma_data=0.7)
    level = sde(torch.tensor([1.0, 0.5], dtype=torch.float64))
    std = ((0.7 * level.alpha) ** 2 + level.sigma**2).sqrt()
    with torch.no_grad():
        if on == "march":
            p = sg.Reverse(model)
            (end,) = sg.march(sg.DDIM(), p, x, level.unbind())
            x0 = end.x
        elif on == "sample":
            x0 = sg.sample(model, x, solver=sg.DDIM(), walk=[1.0, 0.5])
        else:
            x0 = sg.DDIM().step(sg.Reverse(model), x, sde(1.0), sde(0.5)).x
    close(seen[0], x / std[:1], rtol=1e-12)
    # F = 0 is right for Gaussian data of that std, whose flow keeps x over its own std.
    shrink = 0.49 * level.alpha / std**2
    x0_hat = shrink[:1] * x
    eps = (x - level.alpha[:1] * x0_hat) / level.sigma[:1]
    close(x0, level.alpha[1:] * x0_hat + level.sigma[1:] * eps, rtol=1e-10)


def test_predictions_agree_whatever_is_predicted() -> None:
    """One exact model, said as x0, eps, score, v and velocity, of each coordinate."""
    sde, x = DIFFERENT["blurring"], normal(4, 3)
    t = times(sde, 4).clamp(min=0.05)
    known = exact(sde)(x, t)
    for name in ("x0", "eps", "score", "v", "velocity"):
        other = sg.ScoreModel(lambda x, label, name=name: getattr(known, name), sde, name)
        for view in ("x0", "eps", "score", "v", "velocity"):
            close(getattr(other(x, t), view), getattr(known, view), rtol=1e-9, atol=1e-12)

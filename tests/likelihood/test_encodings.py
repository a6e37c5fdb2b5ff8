"""Encodings both ways."""

from __future__ import annotations

from itertools import pairwise

import torch

import sdegen as sg
from sdegen.exact.distributions import Gaussian, exact_model
from sdegen.likelihood.flow import decode, encode, slerp
from sdegen.likelihood.ground import level_at_t_min
from tests.cases import (
    MIXTURE,
    AsGeneral,
    Smooth,
    close,
    closed_form,
    ends,
    normal,
    refused,
    sdes,
)


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


@closed_form
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


def test_part_of_the_way() -> None:
    """From data to a level on the way, and from there: the flow's own map between the two."""
    data, sde = Gaussian([0.4, -0.3], [[0.5, 0.2], [0.2, 0.4]]), sg.VPSDE()
    model, x = exact_model(data, sde), data.sample(6, torch.Generator().manual_seed(0))
    fine = sg.AdaptiveRK(clock="lam", rtol=1e-9, atol=1e-9)
    middle, at = sde(torch.tensor([0.4, sde.t_min], dtype=torch.float64)).unbind()
    there = encode(model, x, solver=fine, walk=[0.4, sde.t_min])
    close(there, data.flow(at.alpha * x, at, middle), rtol=0, atol=1e-7)
    close(decode(model, there, solver=fine, walk=[0.4, sde.t_min]), x, rtol=0, atol=1e-7)
    with refused("falls at every step, but this one climbs"):
        encode(model, x, solver=sg.DDIM(), walk=[0.4, 0.5, 0.1])
    with refused("falls all the way from T = 1 to t_min"):
        sg.log_prob(model, x, solver=fine, walk=[0.4, sde.t_min])


def test_ddims_inversion_on_its_own_spacing() -> None:
    """Song, Meng & Ermon (2021), sec. 4.3, written out on the steps that DDPM's were picked to."""
    sde = sg.DiscreteVPSDE()
    model, x = exact_model(MIXTURE, sde), MIXTURE.sample(4, torch.Generator().manual_seed(0))
    walk = sg.walks.leading(sde, 20)
    found = encode(model, x, solver=sg.DDIM(), walk=walk)
    *_, last = levels = [sde(t) for t in walk.flip(0)]
    y = levels[0].alpha * x
    for t, s in pairwise(levels):
        eps = model(y, t).eps
        y = s.alpha * (y - t.sigma * eps) / t.alpha + s.sigma * eps
    close(found, y, rtol=1e-9)
    assert float(last.t) < sde.T  # the published spacing begins below the noise


def test_any_sde_is_encoded_by_default() -> None:
    """One that does not say its marginals: Heun in t, on data as it is."""
    data, linear = Gaussian([0.4, -0.3], [0.5, 0.4]), sg.VPSDE(beta_max=5.0)
    sde, inner = AsGeneral(linear), exact_model(data, linear)
    model = sg.ScoreModel(lambda x, t: inner(x, t).score, sde, "score")
    x, (top, at) = data.sample(5, torch.Generator().manual_seed(0)), ends(linear)
    z = encode(model, x)
    close(z, data.flow(x, at, top), rtol=0, atol=1e-3)
    close(decode(model, z), x, rtol=0, atol=1e-3)


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
        probes=None,
        repeats=1,
        importance=1,
        protocol=None,
        weights="finished",
        step=None,
        ema=None,
        ema_std=None,
        elbo_draws=4,
        ddpm_steps=3,
        objective=None,
        bounds_on="dequantised",
        seed=0,
        device="cpu",
        packages=[],
        samples=None,
        solver={"_target_": "sdegen.UniPC"},
    )
    rows = measure(model, torch.tensor([[-1.0, 1.0]]), 17, settings, 0)
    assert all(rows[0][name] is not None for name in ("flow", "elbo", "ddpm"))

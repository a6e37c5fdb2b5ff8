"""The loss of any SDE that has a kernel, and what cannot be trained on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import sdegen as sg
from tests.cases import (
    AsGeneral,
    Ornstein,
    Recorder,
    Smooth,
    U,
    close,
    every_sde,
    fixed,
    normal,
    refused,
)

# ------------------------------------------------------------------------------- any SDE at all


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
    known = "edm, eps, likelihood, min_snr, sigma2, straight, truncated_snr, velocity"
    with refused(f"Unknown weighting 'snr'.*{known}"):
        sg.dsm_loss(sg.ScoreModel(never, sg.VPSDE()), normal(2, 2), weighting="snr")
    general = sg.ScoreModel(never, AsGeneral(sg.VPSDE()), "score")
    with refused("AsGeneral has no marginals.*weighting='likelihood', not 'eps'"):
        sg.dsm_loss(general, normal(2, 2), weighting="eps")
    for times in (sg.losses.likelihood_time, sg.losses.LogNormalTime()):
        with refused("needs alpha and sigma, but AsGeneral gives only drift and diffusion: use"):
            sg.dsm_loss(general, normal(2, 2), times=times)

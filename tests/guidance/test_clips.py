"""Frames of clips as observations, where all is known: autoregressive Gaussians.

A clip has f frames of one pixel, x_k = phi x_{k-1} + sqrt(1 - phi^2) z_k, so that the law of what
follows some frames, or lies between them, is a Gaussian of the last of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import sdegen as sg
from sdegen.exact import Gaussian, posterior
from sdegen.guidance import Known, dps, mmps, pigdm
from sdegen.losses import Between, Extend
from sdegen.sde.level import Level
from tests.cases import close

F, PHI, N = 6, 0.9, 60
GAPS = (torch.arange(F)[:, None] - torch.arange(F)).abs().double()
PRIOR = Gaussian(torch.zeros(F), PHI**GAPS)
SEEN = torch.tensor([[0.4, 1.0, 1.6, 1.2, 0.7, -0.5]], dtype=torch.float64)


def clips(x: Tensor) -> Tensor:
    """Vectors (b, f) as clips (b, 1, f, 1, 1)."""
    return x[:, None, :, None, None]


def model_of(problem: Gaussian, sde: Any) -> sg.ScoreModel:
    """Its exact score, of clips."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return clips(problem.denoise(x.flatten(1), sde(t)))

    return sg.ScoreModel(denoise, sde, predicts="x0")


class Law(NamedTuple):
    mean: Tensor
    cov: Tensor


def drawn(model: Any, steps: int = 60, about: Tensor | float = 0.0) -> Law:
    """Of samples along the flow, whose starts have covariance 1 and a mean exactly: all maps are
    affine, so that no sampling error is left.  about: the mean of the data, of which alpha_T is
    left at T."""
    z = torch.randn(N, F, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = z - z.mean(0)
    z = z @ torch.linalg.cholesky(z.T @ z / N).inverse().T
    z = z + model.sde(model.sde.T).alpha * about
    x = sg.sample(model, clips(z), solver=sg.DPMSolverPP(2), steps=steps, denoise=True).flatten(1)
    return Law(x.mean(0), (x - x.mean(0)).T @ (x - x.mean(0)) / N)


def wanted(task: Any, std: float) -> tuple[Gaussian, Any, Any]:
    """The exact law, A x0 and the mask of a task."""
    x0 = clips(SEEN)
    hole = task(x0).hole
    A = task.operator(x0, hole)
    rows = torch.eye(F, dtype=torch.float64)[~hole.flatten()]
    return posterior(PRIOR, rows, SEEN @ rows.T, std), A, hole


def off(found: Law, exact: Gaussian, hole: Tensor) -> float:
    """The largest error of means of hidden frames."""
    mean, _, _ = exact.spectrum
    return float((found.mean - mean)[hole.flatten()].abs().max())


tasks = pytest.mark.parametrize("task", [Extend(3), Between(2)], ids=["extend", "between"])


def test_what_follows_a_frame_is_known() -> None:
    exact, _, _ = wanted(Extend(3), 0.0)
    mean, var, axes = exact.spectrum
    k = torch.arange(1, 4).double()
    close(mean[3:], SEEN[0, 2] * PHI**k, rtol=1e-9)
    close(((axes * var) @ axes.T).diagonal()[3:], 1 - PHI ** (2 * k), rtol=1e-9)


@tasks
def test_products_with_the_jacobian_draw_the_exact_law(task: Any) -> None:
    exact, A, _ = wanted(task, 0.05)
    told = mmps(model_of(PRIOR, sg.VPSDE()), A(clips(SEEN)), A, 0.05, iterations=F)
    mean, var, axes = exact.spectrum
    found = drawn(told, 150, about=mean)
    close(found.mean, mean, rtol=0, atol=5e-4)
    close(found.cov, (axes * var) @ axes.T, rtol=0, atol=5e-4)


@tasks
def test_replacement_is_biased_and_more_steps_do_not_help(task: Any) -> None:
    """The known frames are replaced, and those beside them follow too little.  Ho et al. (2022b),
    section 3.1."""
    exact, _, hole = wanted(task, 0.0)
    told = Known(model_of(PRIOR, sg.VPSDE()), clips(SEEN), ~hole)
    few, many = drawn(told, 60), drawn(told, 240)
    close(many.mean[~hole.flatten()], SEEN[0][~hole.flatten()], rtol=1e-9)
    assert off(many, exact, hole) > 0.15 and off(many, exact, hole) > 0.9 * off(few, exact, hole)


def reconstruction(weight: float) -> Callable[[Level], Tensor]:
    """The scale of ``dps`` with std = 1 for which it is reconstruction guidance, x0 - w alpha / 2
    grad |y - A x0|^2.  Ho et al. (2022b), eq. 7."""
    return lambda level: weight * level.alpha**2 / level.sigma**2


@tasks
def test_reconstruction_guidance_is_a_scale_of_dps(task: Any) -> None:
    """By hand, at a state; and its error beside that of replacement, known frames replaced in
    both."""
    exact, A, hole = wanted(task, 0.0)
    model, y, w = model_of(PRIOR, sg.VPSDE()), A(clips(SEEN)), 2.0
    told = dps(model, y, A, 1.0, scale=reconstruction(w))
    level = model.sde(torch.tensor(0.4, dtype=torch.float64))
    x = clips(SEEN.flip(1)).requires_grad_()
    x0 = model(x, level).x0
    (gradient,) = torch.autograd.grad((y - A(x0)).square().sum(), x)
    close(told(x.detach(), level).x0, (x0 - w * level.alpha / 2 * gradient).detach(), rtol=1e-9)

    plain = off(drawn(Known(model, clips(SEEN), ~hole)), exact, hole)
    both = off(drawn(Known(told, clips(SEEN), ~hole)), exact, hole)
    assert both < 0.75 * plain


@tasks
def test_of_equal_variances_pigdm_is_nearer_than_replacement(task: Any) -> None:
    exact, A, hole = wanted(task, 0.05)
    model = model_of(PRIOR, sg.VPSDE())
    near = off(drawn(pigdm(model, A(clips(SEEN)), A, 0.05)), exact, hole)
    assert near < 0.75 * off(drawn(Known(model, clips(SEEN), ~hole)), exact, hole)

"""Posteriors in closed form: y = A x0 + std z is seen, and what is left is a problem again.

What methods of inverse problems are proven on: with ``exact_model(posterior(...), sde)`` every
solver draws from p(x0 | y) itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sdegen.checks import number
from sdegen.exact.distributions import (
    Empirical,
    Gaussian,
    GaussianMixture,
    Mixture,
    Problem,
)
from sdegen.exact.ground import matrix

Measurement = Tensor | Callable[[Tensor], Tensor]
"""A: a matrix (m, d), or a function of states (b, *), as the operators of ``guidance`` are."""


def posterior(problem: Problem, A: Measurement, y: Tensor, std: float) -> Any:
    """p(x0 | y) of y = A x0 + std z, a problem again, by the kind of problem:

    - ``Gaussian`` N(m, S): N(m + K (y - A m), (I - K A) S), K = S A^T (A S A^T + std^2 I)^-1;
    - ``Mixture`` and ``GaussianMixture``: each component's, a ``GaussianMixture`` with weights in
      proportion to w_k N(y; A m_k, A S_k A^T + std^2 I);
    - ``Empirical``: its points with weights in proportion to w_i exp(-|y - A x_i|^2 / 2 std^2).

    A: a matrix (m, d), or a linear function of states; for an Empirical any function.
    y: one measurement, of the shape that A makes of one state, with the batch's axis of length 1
       or without. A batch is as many problems: [posterior(problem, A, each, std) for each in y].
    std: of the noise, > 0; or 0 where A S A^T is positive definite, but not for an Empirical.

    ValueError for other shapes, a function that is not linear, and other problems.
    """
    number("std", std, 0)
    if isinstance(problem, Empirical):
        return of_points(problem, A, y, std)
    if isinstance(problem, Gaussian):
        mean, var, axes = problem.spectrum
        H, seen = as_matrix(A, len(mean)), measured(y)
        mean, cov, _ = conditioned(mean[None], ((axes * var) @ axes.T)[None], H, seen, std)
        return Gaussian(mean[0], cov[0])
    if isinstance(problem, Mixture):
        means, stds, weights = problem.constants
        eye = torch.eye(means.shape[1], dtype=torch.float64)
        problem = GaussianMixture(means, stds[:, None, None] ** 2 * eye, weights)
    if isinstance(problem, GaussianMixture):
        means, var, axes, weights = problem.constants
        H, seen = as_matrix(A, means.shape[1]), measured(y)
        covs = (axes * var[:, None, :]) @ axes.mT
        means, covs, evidence = conditioned(means, covs, H, seen, std)
        return GaussianMixture(means, covs, (weights.log() + evidence).softmax(0))
    raise ValueError(
        "A posterior is known in closed form of Gaussian, Mixture, GaussianMixture and Empirical, "
        f"not of {type(problem).__name__}."
    )


def measured(y: Tensor) -> Tensor:
    """One measurement as a vector (m,) in float64."""
    if not isinstance(y, Tensor):
        raise ValueError(f"y is one measurement, a tensor, but it is {y!r}.")
    return matrix(y).to("cpu").flatten()


def as_matrix(A: Measurement, d: int) -> Tensor:
    """A (m, d) in float64, of a matrix or a linear function; ValueError for what is neither."""
    if isinstance(A, Tensor):
        if A.ndim != 2 or A.shape[1] != d:
            raise ValueError(
                f"A is a matrix (m, {d}) of states of {d} numbers, but it is {tuple(A.shape)}."
            )
        return A.to("cpu", torch.float64)
    eye = torch.eye(d, dtype=torch.float64)
    H = each_by_itself(A, eye).flatten(1).T
    x = torch.cat([torch.zeros_like(eye[:1]), -1.5 * eye.cumsum(0)])
    if not torch.allclose(A(x).reshape(d + 1, -1), x @ H.T, rtol=1e-6, atol=1e-9):
        raise ValueError(
            "A posterior in closed form is of a linear measurement, but A(x) is not the sum of "
            "what it makes of x's coordinates: of any function it is known for Empirical data."
        )
    return H


def each_by_itself(A: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A x (b, *) of flat states (b, d); ValueError where A does not see the batch's axis as one,
    as measurements of images do that are shown none."""
    error: Exception | None
    try:
        seen, alone = A(x), A(x[:1])
        fine = seen.shape == (len(x), *alone.shape[1:]) and torch.allclose(seen[:1], alone)
        error = (
            None if fine else ValueError("alone a state is measured as another than in a batch")
        )
    except (ValueError, RuntimeError, IndexError) as found:
        error = found
    if error is None:
        return seen
    why = str(error).rstrip(".")
    raise ValueError(
        f"A does not measure each of the problem's states {tuple(x.shape)} by itself: {why}. "
        "Where it is of images, reshape: lambda x: A(x.reshape(-1, 1, h, w))."
    ) from error


def conditioned(
    means: Tensor, covs: Tensor, H: Tensor, y: Tensor, std: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each N(m_k, S_k): mean (k, d), covariance (k, d, d) and log-density of y (k,)."""
    m, d = H.shape
    if y.shape != (m,):
        raise ValueError(f"A makes {m} numbers of a state, but y has {len(y)}.")
    noise = std**2 * torch.eye(m, dtype=torch.float64)
    root, failed = torch.linalg.cholesky_ex(H @ covs @ H.T + noise)
    if failed.any():
        raise ValueError(
            f"A S A^T + std^2 is not positive definite with std = {std!r}: without noise, y fixes "
            "values that are not free. Give a std > 0."
        )
    K = torch.cholesky_solve(H @ covs, root).mT
    rest = torch.eye(d, dtype=torch.float64) - K @ H
    off = y - means @ H.T
    # Joseph's form: symmetric and positive, but for rounding of the prior's size.
    covs = rest @ covs @ rest.mT + std**2 * K @ K.mT
    if std == 0:  # what is fixed has no variance, where rounding has the prior's size
        free = torch.eye(d, dtype=torch.float64) - torch.linalg.pinv(H) @ H
        covs = free @ covs @ free
    var, axes = torch.linalg.eigh((covs + covs.mT) / 2)
    covs = axes * var.clamp(min=0)[..., None, :] @ axes.mT
    each = torch.linalg.solve_triangular(root, off[..., None], upper=False).square().sum((1, 2))
    flat = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + m * math.log(2 * math.pi)
    return means + (K @ off[..., None])[..., 0], covs, -(each + flat) / 2


def of_points(problem: Empirical, A: Measurement, y: Tensor, std: float) -> Empirical:
    """The points, weighted by their likelihoods."""
    if std == 0:
        raise ValueError("Points are weighted by exp(-|y - A x|^2 / 2 std^2): give a std > 0.")
    rows, _, logs = problem.constants
    data = rows.reshape(-1, *problem.data.shape[1:])
    each = rows @ as_matrix(A, rows.shape[1]).T if isinstance(A, Tensor) else A(data).flatten(1)
    seen = measured(y)
    if each.shape[1:] != seen.shape:
        raise ValueError(f"A makes {each.shape[1]} numbers of a state, but y has {len(seen)}.")
    logs = logs - (each - seen).square().sum(1) / (2 * std**2)
    return Empirical(data, problem.chunk, logs.softmax(0))

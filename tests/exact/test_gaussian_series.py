"""Autoregressions at rest, and what follows of a beginning, against themselves and posteriors."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.exact import Gaussian, autoregression, following, posterior
from tests.cases import close, normal, refused

PHI = torch.tensor([[0.7, 0.3], [-0.3, 0.6]]).double()
Q = torch.tensor([[0.36, 0.15], [0.15, 0.4]]).double()


def covariance(law: Gaussian) -> Tensor:
    _, var, axes = law.spectrum
    return (axes * var) @ axes.T


def test_one_variable_is_the_textbooks() -> None:
    law = autoregression(torch.tensor([[0.8]]), torch.tensor([[0.2]]), 6)
    i = torch.arange(6).double()
    close(covariance(law), 0.2 / 0.36 * 0.8 ** (i[:, None] - i).abs(), rtol=1e-6)


def test_pushes_are_of_their_covariance_and_independent_of_the_past() -> None:
    """x_k - Phi x_{k-1}, all of them and the first state: block by block."""
    length = 5
    cov = covariance(autoregression(PHI, Q, length)).reshape(2, length, 2, length)
    cov = cov.permute(1, 0, 3, 2).reshape(2 * length, 2 * length)  # time first
    take = torch.eye(2 * length).double()
    for k in range(1, length):
        take[2 * k : 2 * k + 2, 2 * k - 2 : 2 * k] = -PHI
    found = take @ cov @ take.T
    S = found[:2, :2]
    close(S, PHI @ S @ PHI.T + Q, rtol=1e-10)
    close(found, torch.block_diag(S, *[Q] * (length - 1)), atol=1e-12)


def test_a_single_time_is_the_law_at_rest() -> None:
    S = covariance(autoregression(PHI, Q, 1))
    close(S, PHI @ S @ PHI.T + Q, rtol=1e-10)


def test_what_follows_is_the_last_value_times_powers() -> None:
    law, before = autoregression(PHI, Q, 7), normal(3, 2, 4)
    mean, cov = following(law, before)
    assert mean.shape == (3, 2, 3) and cov.shape == (6, 6)
    wanted, spread = before[..., -1], torch.zeros(2, 2).double()
    for k in range(3):
        wanted, spread = wanted @ PHI.T, PHI @ spread @ PHI.T + Q
        close(mean[..., k], wanted, rtol=1e-9, atol=1e-12)
        close(cov.reshape(2, 3, 2, 3)[:, k, :, k], spread, rtol=1e-9)


def test_what_follows_is_the_posterior() -> None:
    root = normal(12, 12)
    law, before = Gaussian(normal(12, seed=1), root @ root.T), normal(1, 3, 1, seed=2)
    mean, cov = following(law, before)
    seen = torch.eye(12).double()[[0, 4, 8]]
    known = posterior(law, seen, before.flatten(), 0.0)
    rest = torch.arange(12) % 4 > 0
    close(mean.flatten(), known.spectrum[0][rest], rtol=1e-8)
    close(cov, covariance(known)[rest][:, rest], atol=1e-8)


def test_a_singular_law_has_what_follows() -> None:
    """As of days whose mean is zero: the last value is fixed by the others."""
    flat = torch.eye(4).double() - 0.25
    mean, cov = following(Gaussian(torch.zeros(4), flat), torch.tensor([[[0.5, -0.2, 0.1]]]))
    close(mean, torch.tensor([[[-0.4]]]), rtol=1e-6)
    close(cov, torch.zeros(1, 1), atol=1e-12)


def test_refusals() -> None:
    with refused("an eigenvalue of modulus 1.1"):
        autoregression(torch.tensor([[1.1]]), torch.eye(1), 3)
    with refused(r"are \(d, d\), but they are \[2, 2\] and \[1, 1\]"):
        autoregression(PHI, torch.eye(1), 3)
    with refused("Q is a covariance"):
        autoregression(PHI, -Q, 3)
    with refused("length must be"):
        autoregression(PHI, Q, 0)
    with refused("Phi and Q are finite"):
        autoregression(torch.tensor([[float("nan")]]), torch.eye(1), 3)
    law = autoregression(torch.tensor([[0.5]]), torch.zeros(1, 1), 4)
    for value in (5.0, float("nan")):
        with refused("No series of the law begins so"):
            following(law, torch.full((1, 1, 2), value))
    law = autoregression(PHI, Q, 4)
    for shape in ((1, 2, 4), (1, 3, 1)):
        with refused(r"Beginnings \(b, d, k\) are of series of 8 numbers"):
            following(law, torch.zeros(shape))


def test_of_no_beginning_it_is_the_law() -> None:
    """d = 3, length 2 and 1; and of one value before, of one channel."""
    Phi = torch.tensor([[0.5, -0.4, 0.1], [0.3, 0.6, 0.0], [0.0, 0.2, -0.3]]).double()
    Q = torch.tensor([[1.0, 0.3, 0.0], [0.3, 0.5, 0.1], [0.0, 0.1, 0.2]]).double()
    for length in (1, 2):
        law = autoregression(Phi, Q, length)
        mean, cov = following(law, torch.zeros(4, 3, 0))
        close(mean, torch.zeros(4, 3, length))
        close(cov, covariance(law), atol=1e-12)
        assert following(law, torch.zeros(0, 3, length - 1))[0].shape == (0, 3, 1)
    mean, cov = following(autoregression([[-0.8]], [[0.36]], 2), torch.tensor([[[2.0]]]))  # type: ignore[arg-type]
    close(mean, [[[-1.6]]], rtol=1e-9)
    close(cov, [[0.36]], rtol=1e-9)

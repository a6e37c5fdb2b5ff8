"""Gaussian series: vector autoregressions at rest, and what follows of a beginning."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.checks import whole
from sdegen.exact.distributions import Gaussian
from sdegen.exact.ground import matrix


def autoregression(Phi: Tensor, Q: Tensor, length: int) -> Gaussian:
    """The law of series x_k = Phi x_{k-1} + N(0, Q) at rest: states (b, d length), time last.

        Cov[x_i, x_j] = Phi^(i - j) S for i >= j,    S = Phi S Phi^T + Q

    Phi, Q: (d, d); ``reshape(b, d, length)`` makes series of its draws. With d = 1 the covariance
    is Q / (1 - Phi^2) Phi^|i - j|.

    Raises ValueError for matrices of other shapes, a Q that is no covariance, and a Phi with an
    eigenvalue of modulus 1 or more, which does not come to rest.
    """
    Phi, Q, length = matrix(Phi), matrix(Q), whole("length", length)
    d = len(Phi) if Phi.ndim else 0
    if not d or Phi.shape != (d, d) or Q.shape != (d, d):
        raise ValueError(f"Phi and Q are (d, d), but they are {[*Phi.shape]} and {[*Q.shape]}.")
    if not (Phi.isfinite().all() and Q.isfinite().all()):
        raise ValueError(f"Phi and Q are finite, but they are {Phi.tolist()} and {Q.tolist()}.")
    if not torch.allclose(Q, Q.T) or torch.linalg.eigvalsh(Q).min() < -1e-12:
        raise ValueError(f"Q is a covariance, but it is {Q.tolist()}.")
    if (largest := float(torch.linalg.eigvals(Phi).abs().max())) >= 1:
        raise ValueError(f"Phi has an eigenvalue of modulus {largest:g}: it comes to no rest.")
    eye = torch.eye(d * d, dtype=torch.float64)
    S = torch.linalg.solve(eye - torch.kron(Phi, Phi), Q.reshape(-1)).reshape(d, d)
    below = [S]  # Cov[x_{j + i}, x_j]
    for _ in range(length - 1):
        below.append(Phi @ below[-1])
    each = [
        torch.stack([below[i - j] if i >= j else below[j - i].T for j in range(length)])
        for i in range(length)
    ]
    cov = torch.stack(each).permute(2, 0, 3, 1)  # from (i, j, d, d)
    return Gaussian(torch.zeros(d * length), cov.reshape(d * length, d * length))


def following(law: Gaussian, before: Tensor) -> tuple[Tensor, Tensor]:
    """What follows of series that begin as before (b, d, k): means (b, d, m), covariance (d m,
    d m) of them flat, where the law is of series (d (k + m)), time last.

    S_21 S_11^+ applied to what is known, and S_22 - S_21 S_11^+ S_12; of nothing, k = 0, it is the
    law itself.

    Raises ValueError for a beginning that is none of the law's series, or all of it.
    """
    mean, var, axes = law.spectrum
    b, d, k = before.shape if before.ndim == 3 else (0, 0, 0)
    length = len(mean) // d if d else 0
    if length * d != len(mean) or not k < length:
        raise ValueError(
            f"Beginnings (b, d, k) are of series of {len(mean)} numbers, but they are "
            f"{tuple(before.shape)}."
        )
    cov, seen = (axes * var) @ axes.T, torch.arange(length).repeat(d) < k
    gain = torch.linalg.lstsq(cov[seen][:, seen], cov[seen][:, ~seen], driver="gelsd").solution.T
    off = before.to(mean).reshape(b, d * k) - mean[seen]
    known = cov[seen][:, seen]
    within = off @ torch.linalg.pinv(known, hermitian=True) @ known
    if not torch.allclose(within, off, rtol=1e-6, atol=1e-6 * float(var.max().sqrt())):
        raise ValueError("No series of the law begins so: it is not finite, or has no density.")
    rest = cov[~seen][:, ~seen] - gain @ cov[seen][:, ~seen]
    return (mean[~seen] + off @ gain.T).reshape(b, d, length - k), (rest + rest.T) / 2

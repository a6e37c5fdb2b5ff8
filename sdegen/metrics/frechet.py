"""The Frechet distance between two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

from sdegen.metrics.samples import matrices


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Squared 2-Wasserstein distance of the Gaussians with the moments of a (n, d) and b (m, d).

        |mean_a - mean_b|^2 + tr S_a + tr S_b - 2 tr (S_a^{1/2} S_b S_a^{1/2})^{1/2}

    with unbiased covariances S. Dowson and Landau (1982); with Inception features it is the FID
    of Heusel et al. (2017).

    No covariance is formed and no root of a matrix taken. Centred features divided by
    sqrt(n - 1) are Q R with S = R^T R, and then the last trace is the sum of the singular values
    of R_a R_b^T. A rank-deficient S, as with fewer samples than features, is no special case,
    whereas the eigenvalue zero of S, known to 1e-16, would have a root known to 1e-8 only.

    Raises ValueError if a and b are not (n, d) and (m, d), have fewer than 2 rows, or have values
    that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2:
        raise ValueError(
            f"the features have shapes {tuple(a.shape)} and {tuple(b.shape)}, "
            "expected (n, d) and (m, d): flatten them first."
        )
    a, b = matrices(a, b, least=2)
    root_a, root_b = _root(a), _root(b)
    mean = (a.mean(0) - b.mean(0)).square().sum()
    spread = root_a.square().sum() + root_b.square().sum()
    overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
    return max(0.0, float(mean + spread - 2 * overlap))


def _root(x: Tensor) -> Tensor:
    """R (min(n, d), d), for which R^T R is the covariance of x (n, d)."""
    centred = (x - x.mean(0)) / (len(x) - 1) ** 0.5
    root: Tensor = torch.linalg.qr(centred, mode="r").R
    return root

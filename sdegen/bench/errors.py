"""How far a solver's result is off: path by path, or as a distribution."""

from __future__ import annotations

from torch import Tensor

from sdegen.metrics.kernels import energy_distance, mmd
from sdegen.metrics.sliced import sliced_wasserstein


def pathwise(x: Tensor, exact: Tensor) -> dict[str, float]:
    """Root mean square per coordinate of each sample's error, over the samples: rms, median and
    90 % quantile.  At few steps the rms is carried by the few that end in another mode."""
    each = (x - exact).double().reshape(len(x), -1).square().mean(1).sqrt()
    return {
        "rms": float(each.square().mean().sqrt()),
        "median": float(each.quantile(0.5)),
        "q90": float(each.quantile(0.9)),
    }


def distances(x: Tensor, exact: Tensor) -> dict[str, float]:
    """Between two sets of samples (n, *), in the three ways there are."""
    return {
        "sliced": sliced_wasserstein(x, exact),
        "energy": energy_distance(x, exact),
        "mmd": mmd(x, exact),
    }

"""Distributions whose scores are exact, and the orders of solvers measured on them."""

from sdegen.exact.convergence import (
    Affine,
    Normal,
    affine,
    chain_of,
    end_of,
    girsanov,
    marginal,
    path_kl,
    prior_of,
    reverse_of,
)
from sdegen.exact.distributions import (
    Empirical,
    Gaussian,
    GaussianMixture,
    LowRankMixture,
    Mixture,
    Problem,
    exact_model,
)
from sdegen.exact.gaussian_series import autoregression, following
from sdegen.exact.orders import flow_order, law, strong_order, weak_order
from sdegen.exact.posteriors import posterior
from sdegen.exact.spectra import power_law, power_spectrum

__all__ = [
    "Affine",
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "LowRankMixture",
    "Mixture",
    "Normal",
    "Problem",
    "affine",
    "autoregression",
    "chain_of",
    "end_of",
    "exact_model",
    "flow_order",
    "following",
    "girsanov",
    "law",
    "marginal",
    "path_kl",
    "posterior",
    "power_law",
    "power_spectrum",
    "prior_of",
    "reverse_of",
    "strong_order",
    "weak_order",
]

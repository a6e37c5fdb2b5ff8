"""Distributions whose scores are exact, and the orders of solvers measured on them."""

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

__all__ = [
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "LowRankMixture",
    "Mixture",
    "Problem",
    "autoregression",
    "exact_model",
    "flow_order",
    "following",
    "law",
    "posterior",
    "strong_order",
    "weak_order",
]
